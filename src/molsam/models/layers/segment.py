"""Gathering of rows, and reductions over segments: the atoms of each molecule, or the bonds of each atom.

Row i of x [N, ...] belongs to segment index[i], int64 [N]; there are `count` segments. All functions are twice
differentiable. The result of an empty segment is 0.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def take(x: Tensor, rows: Tensor) -> Tensor:
    """Return x[rows], float [n, d] or [n]; a row may be taken more than once."""
    # index_select has the faster gradient on a CPU. embedding's is one launch on a device, and adds in a fixed order.
    if x.is_cpu:
        return x.index_select(0, rows)
    return F.embedding(rows, x) if x.ndim > 1 else F.embedding(rows, x.unsqueeze(1)).squeeze(1)


def segment_sum(x: Tensor, index: Tensor, count: int) -> Tensor:
    """Return the sum of each segment's rows, [count, ...]."""
    return x.new_zeros(count, *x.shape[1:]).index_add(0, index, x)


def segment_mean(x: Tensor, index: Tensor, sizes: Tensor) -> Tensor:
    """Return the mean of each segment's rows, [count, d]; sizes: int64 [count], none of them 0."""
    return segment_sum(x, index, len(sizes)) / sizes.unsqueeze(1)


def segment_max(x: Tensor, index: Tensor, count: int) -> Tensor:
    """Return the element-wise maximum of each segment's rows, [count, d]; equal maxima share the gradient."""
    largest: Tensor = _SegmentMax.apply(x, index, count)
    return largest


class _SegmentMax(torch.autograd.Function):
    """Own backward pass: it copies whole rows, in a third of the time of scatter_reduce's element-wise copies."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, count: int) -> Tensor:
        largest = x.new_zeros(count, x.shape[1])
        largest.scatter_reduce_(0, index.unsqueeze(1).expand_as(x), x, "amax", include_self=False)
        ctx.save_for_backward(x, largest, index)
        return largest

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, largest, index = ctx.saved_tensors
        x, largest = x.detach(), largest.detach()
        is_largest = torch.eq(x, largest.index_select(0, index), out=torch.empty_like(x))
        # Start from the smallest positive number, so that an empty segment does not divide by 0.
        ties = torch.full_like(largest, torch.finfo(x.dtype).tiny).index_add_(0, index, is_largest)
        return is_largest * take(grads[0] / ties, index), None, None
