"""Reductions over the atoms of each molecule: segments of consecutive rows, bounded by `offsets`.

Segment b is rows offsets[b] .. offsets[b + 1] - 1 of x [N, ...]; offsets is int64 [B + 1].
All are differentiable twice, and an empty segment gives zeros.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from molsam.models.layers.fused import replay
from molsam.models.layers.neighbours import bag_sum
from molsam.native import kernels


def segment_index(offsets: Tensor) -> Tensor:
    """int64 [N], the segment of every row."""
    return torch.arange(len(offsets) - 1, device=offsets.device).repeat_interleave(offsets.diff())


def segment_sum(x: Tensor, offsets: Tensor) -> Tensor:
    """Sum of each segment's rows, [B, ...]."""
    total: Tensor = (_CompiledSum if kernels.available(x) else _SegmentSum).apply(x, offsets)
    return total


def segment_mean(x: Tensor, offsets: Tensor) -> Tensor:
    """Mean of each segment's rows, [B, ...]."""
    if kernels.available(x):
        mean: Tensor = _CompiledSum.apply(x, offsets, True)
        return mean
    count = offsets.diff().clamp(min=1).to(x.dtype).view(-1, *[1] * (x.ndim - 1))
    return segment_sum(x, offsets) / count


def segment_max(x: Tensor, offsets: Tensor) -> Tensor:
    """Element-wise maximum over each segment's rows, [B, ...]; equal maxima share the gradient."""
    if kernels.available(x):
        largest: Tensor = _CompiledMax.apply(x, offsets)
        return largest
    return _plain_max(x, offsets)


def _plain_max(x: Tensor, offsets: Tensor) -> Tensor:
    return _SegmentMax.apply(x, segment_index(offsets), len(offsets) - 1)


def equal(x: Tensor, y: Tensor) -> Tensor:
    """1 where x and y agree, else 0, in their dtype: five times faster than a bool tensor that is then converted."""
    return torch.eq(x, y, out=torch.empty_like(x))


class _CompiledSum(torch.autograd.Function):
    """Sum or mean in C (c/layers/segments.c)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, offsets: Tensor, mean: bool = False) -> Tensor:
        ctx.rows, ctx.mean = len(x), mean
        ctx.save_for_backward(offsets)
        out = x.new_empty(len(offsets) - 1, *x.shape[1:])
        kernels.call("segment_sum", x.dtype, *_sizes(x, offsets), int(mean), offsets, x.contiguous(), out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _CompiledSpread.apply(grads[0], *ctx.saved_tensors, ctx.mean, ctx.rows), None, None


class _CompiledSpread(torch.autograd.Function):
    """Its transpose."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, offsets: Tensor, mean: bool, rows: int) -> Tensor:
        ctx.mean = mean
        ctx.save_for_backward(offsets)
        out = grad.new_empty(rows, *grad.shape[1:])
        kernels.call("segment_spread", grad.dtype, *_sizes(grad, offsets), int(mean), offsets, grad.contiguous(), out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return _CompiledSum.apply(grads[0], *ctx.saved_tensors, ctx.mean), None, None, None


class _CompiledMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, offsets: Tensor) -> Tensor:
        x, out = x.contiguous(), x.new_empty(len(offsets) - 1, *x.shape[1:])
        kernels.call("segment_max", x.dtype, *_sizes(x, offsets), offsets, x, out)
        ctx.save_for_backward(x, offsets, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, offsets, out = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *replay(partial(_plain_max, offsets=offsets), (x,), grads[0]), None
        by_x = torch.empty_like(x)
        kernels.call("segment_max_backward", x.dtype, *_sizes(x, offsets), offsets, x, out, grads[0].contiguous(), by_x)
        return by_x, None


def _sizes(x: Tensor, offsets: Tensor) -> tuple[int, int]:
    """How many segments, and numbers in a row."""
    return len(offsets) - 1, math.prod(x.shape[1:])


class _SegmentSum(torch.autograd.Function):
    """One kernel each way, which takes a third of index_add's time for a batch of small molecules."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(offsets)
        rows = torch.arange(len(x), device=x.device)
        return bag_sum(x.reshape(len(x), math.prod(x.shape[1:])), rows, offsets).view(len(offsets) - 1, *x.shape[1:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].index_select(0, segment_index(*ctx.saved_tensors)), None


class _SegmentMax(torch.autograd.Function):
    """Row copies in the backward pass, which take half the time of scatter_reduce's element-wise ones."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, n_segments: int) -> Tensor:
        wide = index.view(-1, *[1] * (x.ndim - 1)).expand_as(x)
        largest = x.new_zeros(n_segments, *x.shape[1:])
        largest.scatter_reduce_(0, wide, x, "amax", include_self=False)
        ctx.save_for_backward(x, largest, index)
        return largest

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        x, largest, index = ctx.saved_tensors
        is_largest = equal(x, largest.index_select(0, index))
        count = torch.zeros_like(largest).index_add(0, index, is_largest).clamp(min=1)
        return is_largest * (grads[0] / count).index_select(0, index), None, None
