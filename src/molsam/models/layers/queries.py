"""The queries of CoMPT's bond types: linear maps from an atom's features to its score with each type."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def type_queries(
    heads: int, bonds: Tensor, layers: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return each layer's weight [heads * T, d] and bias [heads * T] of the scores.

    x weight' + bias is (W_q x + b_q) . (W_k e + b_k) / sqrt(d / heads) for each head and type e.
    bonds: float [T, d]; layers: (W_k, b_k, W_q, b_q) of each layer, at least one.
    """
    (T, d), parts = bonds.shape, len(layers) * heads
    W_k, b_k, W_q, b_q = map(torch.cat, zip(*layers, strict=True))
    keys = F.linear(bonds, W_k, b_k).view(T, parts, -1).transpose(0, 1) / math.sqrt(d // heads)
    weight = torch.bmm(keys, W_q.view(parts, -1, d))
    bias = torch.bmm(keys, b_q.view(parts, -1, 1))
    return weight.view(len(layers), -1, d).unbind(), bias.view(len(layers), -1).unbind()
