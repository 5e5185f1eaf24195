"""Sums over an atom's neighbours."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def bag_sum(rows: Tensor, places: Tensor, offsets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Sums of some rows [N, d], times their weights if given: of those at places[offsets[b] : offsets[b + 1]]. No graph.

    The checks of torch.nn.functional.embedding_bag would take a third of the time, what a backward pass of torch's own
    needs (it is made for rows that require a gradient) another.
    """
    bags: Tensor = torch.embedding_bag(
        rows.detach(), places, offsets, per_sample_weights=weights, include_last_offset=True
    )[0]
    return bags


class NeighbourSum(torch.autograd.Function):
    """A h: for each atom, the sum of its neighbours' rows; arguments of `apply`: h [N, d], neighbours, their offsets.

    With a fourth, kind int64 [N], h has a row for each kind of atom [J, d], and that of atom v is h[kind[v]].
    Bonds run both ways, so A is symmetric and the backward pass is the same function, which can be
    differentiated again. One gather-and-sum kernel costs a fifth of a message-passing call on
    molecule-sized graphs, where the cost of calling is all there is.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, neighbours: Tensor, offsets: Tensor, kind: Tensor | None = None) -> Tensor:
        ctx.save_for_backward(neighbours, offsets)
        ctx.kind, ctx.kinds = kind, len(hidden)
        return bag_sum(hidden, neighbours if kind is None else kind.index_select(0, neighbours), offsets)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        by_atom = NeighbourSum.apply(grads[0].contiguous(), *ctx.saved_tensors)
        if ctx.kind is None:
            return by_atom, None, None, None
        return by_atom.new_zeros(ctx.kinds, by_atom.shape[1]).index_add(0, ctx.kind, by_atom), None, None, None
