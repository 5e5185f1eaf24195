"""The queries of CoMPT's bond types: what an atom's features are multiplied with for its score with each type."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def type_queries(
    heads: int, bonds: Tensor, W_k: Tensor, b_k: Tensor, W_q: Tensor, b_q: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight [heads * T, d] and bias [heads * T] such that x weight' + bias is (W_q x + b_q) . (W_k e + b_k) / sqrt(d / heads)
    per head and type e; bonds [T, d]."""
    d = bonds.shape[1]
    keys = F.linear(bonds, W_k, b_k).view(-1, heads, d // heads).transpose(0, 1) / math.sqrt(d // heads)
    joined = torch.bmm(keys, torch.cat([W_q, b_q.unsqueeze(1)], dim=1).view(heads, d // heads, d + 1)).flatten(0, 1)
    return joined[:, :-1], joined[:, -1]
