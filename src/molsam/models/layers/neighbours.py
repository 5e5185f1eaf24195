"""Sums over an atom's neighbours."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.data.batch import MoleculeBatch


class Neighbours(NamedTuple):
    """The neighbours of all atoms, one after the other: the compressed columns of the adjacency matrix."""

    sources: Tensor
    """int64 [E], neighbours of atom 0, of atom 1, ...; an atom with a self loop is its own neighbour"""
    offsets: Tensor
    """int64 [N + 1], first entry of each atom"""


def neighbours(batch: MoleculeBatch) -> Neighbours:
    """The neighbour lists of a batch, equal to `batch.graph.adj_tensors("csc")`.

    Sorting them here saves a GCN, whose step is all calls, the graph object: a tenth of the step.
    """
    dst, order = batch.dst.sort()
    atoms = torch.arange(batch.n_atoms + 1, device=dst.device)
    return Neighbours(batch.src.index_select(0, order), torch.searchsorted(dst, atoms))


class NeighbourSum(torch.autograd.Function):
    """A h: for each atom, the sum of its neighbours' rows; arguments of `apply`: h [N, d], sources, offsets.

    Bonds run both ways, so A is symmetric and the backward pass is the same function, which can be
    differentiated again. One gather-and-sum kernel costs a fifth of a message-passing call on
    molecule-sized graphs, where the cost of calling is all there is.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, sources: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(sources, offsets)
        return F.embedding_bag(sources, hidden, offsets, mode="sum", include_last_offset=True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return NeighbourSum.apply(grads[0].contiguous(), *ctx.saved_tensors), None, None
