"""The queries of CoMPT's bond types: what an atom's features are multiplied with for its score with each type."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def type_queries(
    heads: int, bonds: Tensor, layers: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Of each layer a weight [heads * T, d] and a bias [heads * T] such that x weight' + bias is (W_q x + b_q) . (W_k e + b_k)
    / sqrt(d / heads) per head and type e; bonds: float [T, d]; layers: (W_k, b_k, W_q, b_q) of each, at least one."""
    (T, d), parts = bonds.shape, len(layers) * heads
    W_k, b_k, W_q, b_q = map(torch.cat, zip(*layers, strict=True))
    keys = F.linear(bonds, W_k, b_k).view(T, parts, -1).transpose(0, 1) / math.sqrt(d // heads)
    weight = torch.bmm(keys, W_q.view(parts, -1, d))
    bias = torch.bmm(keys, b_q.view(parts, -1, 1))
    return weight.view(len(layers), -1, d).unbind(), bias.view(len(layers), -1).unbind()
