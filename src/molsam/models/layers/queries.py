"""The queries of CoMPT's bond types: what an atom's features are multiplied with for its score with each type."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.models.layers.fused import replay
from molsam.native import kernels


def type_queries(
    heads: int, bonds: Tensor, W_k: Tensor, b_k: Tensor, W_q: Tensor, b_q: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight [heads * T, d] and bias [heads * T] such that x weight' + bias is (W_q x + b_q) . (W_k e + b_k) / sqrt(d / heads)
    per head and type e; bonds [T, d]."""
    given = bonds, W_k, b_k, W_q, b_q
    if not kernels.available(bonds) or kernels.whole_vectors(bonds.shape[1]) != bonds.shape[1]:
        joined = _plain(heads, *given)
        return joined[:, :-1], joined[:, -1]
    weight, bias = _TypeQueries.apply(heads, *given)
    return weight, bias


class _TypeQueries(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, heads: int, bonds: Tensor, W_k: Tensor, b_k: Tensor, W_q: Tensor, b_q: Tensor
    ) -> tuple[Tensor, Tensor]:
        bonds, (types, d) = bonds.contiguous(), bonds.shape
        keys = bonds.new_empty(d, kernels.whole_vectors(types))
        weight, bias = bonds.new_empty(heads * types, d), bonds.new_empty(heads * types)
        kernels.call("type_queries", bonds.dtype, types, d, heads, bonds, W_k, b_k, W_q, b_q, keys, weight, bias)
        ctx.heads = heads
        ctx.save_for_backward(bonds, W_k, b_k, W_q, b_q, keys)
        return weight, bias

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        bonds, W_k, b_k, W_q, b_q, keys = ctx.saved_tensors
        heads, (types, d) = ctx.heads, bonds.shape
        by_weight, by_bias = (grad.contiguous() for grad in grads)
        if torch.is_grad_enabled():
            joined = torch.cat([by_weight, by_bias.unsqueeze(1)], dim=1)
            return None, *replay(lambda *given: _plain(heads, *given), (bonds, W_k, b_k, W_q, b_q), joined)
        by_bonds = bonds.new_empty(heads, types, d)
        found = [torch.empty_like(one) for one in (W_k, b_k, W_q, b_q)]
        given = bonds, W_k, W_q, b_q, keys, by_weight, by_bias
        kernels.call("type_queries_backward", bonds.dtype, types, d, heads, *given, by_bonds, *found)
        return None, by_bonds.sum(0), *found


def _plain(heads: int, bonds: Tensor, W_k: Tensor, b_k: Tensor, W_q: Tensor, b_q: Tensor) -> Tensor:
    """Weight and, as its last column, bias."""
    d = bonds.shape[1]
    keys = F.linear(bonds, W_k, b_k).view(-1, heads, d // heads).transpose(0, 1) / math.sqrt(d // heads)
    return torch.bmm(keys, torch.cat([W_q, b_q.unsqueeze(1)], dim=1).view(heads, d // heads, d + 1)).flatten(0, 1)
