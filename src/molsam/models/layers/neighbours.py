"""Sums over an atom's neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def bag_sum(rows: Tensor, places: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return for each b the sum of rows[places[offsets[b] : offsets[b + 1]]], times their weights if given.

    rows: float [N, d]. The result carries no gradient. torch.nn.functional.embedding_bag would spend a third of the
    time on checks, and another third on preparing a backward pass that is not used.
    """
    bags: Tensor = torch.embedding_bag(
        rows.detach(), places, offsets, per_sample_weights=weights, include_last_offset=True
    )[0]
    return bags


class NeighbourSum(torch.autograd.Function):
    """A h: for each atom, the sum of its neighbours' rows; arguments of `apply`: h [N, d], neighbours, their offsets.

    With a fourth argument, kind int64 [N], h has one row for each kind of atom, [J, d], and the row of atom v is
    h[kind[v]].

    Bonds run both ways, so A is symmetric. The backward pass is therefore the same function and can be differentiated
    again. On graphs of the size of molecules the overhead of calls dominates; this one gather-and-sum kernel takes a
    fifth of the time of a general message-passing call.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, neighbours: Tensor, offsets: Tensor, kind: Tensor | None = None) -> Tensor:
        ctx.save_for_backward(neighbours, offsets)
        ctx.kind, ctx.kinds = kind, hidden.shape[0]
        return bag_sum(hidden, neighbours if kind is None else kind.index_select(0, neighbours), offsets)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        by_atom = NeighbourSum.apply(grads[0].contiguous(), *ctx.saved_tensors)
        if ctx.kind is None:
            return by_atom, None, None, None
        return by_atom.new_zeros(ctx.kinds, by_atom.shape[1]).index_add(0, ctx.kind, by_atom), None, None, None
