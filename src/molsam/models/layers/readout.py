"""The readout of dgllife's predictors, [sum_v sigmoid(w h_v + b) h_v ; max_v h_v], as one operation.

On molecule-sized batches a call costs more than its arithmetic: one backward pass by hand, which reads the molecule of
each atom once for both halves, takes a third of autograd's. Where there is a large molecule, sums are added in float64:
one by one in float32, its 300 atoms lose 1e-5 of theirs.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from molsam.models.layers.batchnorm import FEW
from molsam.models.layers.fused import replay
from molsam.models.layers.neighbours import bag_sum
from molsam.models.layers.segment import equal, segment_max, segment_sum
from molsam.native import kernels


def weighted_sum_and_max(h: Tensor, w: Tensor, b: Tensor, offsets: Tensor, molecule: Tensor, max_size: int) -> Tensor:
    """Atoms h [N, d], w [1, d], b [1], offsets int64 [B + 1], molecule of each atom int64 [N], max_size -> [B, 2d].

    No molecule is empty, none has more than max_size atoms. Equal maxima share the gradient.
    """
    if kernels.available(h):
        out: Tensor = _Compiled.apply(h, w, b, offsets)
    else:
        out = _WeightedSumAndMax.apply(h, w, b, offsets, molecule, max_size)
    return out


class _Compiled(torch.autograd.Function):
    """In C (c/layers/readout.c), which adds in float64."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, w: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
        h = h.contiguous()
        d, molecules = h.shape[1], len(offsets) - 1
        weight, out = h.new_empty(len(h)), h.new_empty(molecules, 2 * d)
        kernels.call("weighted_sum_and_max", h.dtype, molecules, d, offsets, h, w, b, weight, out)
        ctx.save_for_backward(h, w, b, offsets, weight, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        h, w, b, offsets, weight, out = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *replay(partial(plain, offsets=offsets), (h, w, b), grads[0]), None
        d = h.shape[1]
        by_h, by_w = torch.empty_like(h), h.new_zeros(torch.get_num_threads(), d + 1)
        sizes = {"molecules": len(offsets) - 1, "d": d, "offsets": offsets}
        given = {"h": h, "w": w, "weight": weight, "out": out, "grad": grads[0].contiguous()}
        kernels.call("weighted_sum_and_max_backward", h.dtype, **sizes, **given, by_h=by_h, by_w=by_w)
        by_w, by_b = by_w.sum(0).split([d, 1])
        return by_h, by_w.unsqueeze(0), by_b, None


class _WeightedSumAndMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, w: Tensor, b: Tensor, offsets: Tensor, molecule: Tensor, max_size: int) -> Tensor:
        weight = torch.addmv(b, h, w[0]).sigmoid_()
        exact = h.dtype if max_size <= FEW else torch.float64
        atoms = torch.arange(len(h), device=h.device)
        total = bag_sum(h.to(exact), atoms, offsets, weight.to(exact)).to(h.dtype)
        largest = h.new_zeros(total.shape)
        largest.scatter_reduce_(0, molecule.unsqueeze(1).expand_as(h), h, "amax", include_self=False)
        ctx.save_for_backward(h, w, b, offsets, molecule, atoms, weight.unsqueeze(1), largest)
        return torch.cat([total, largest], dim=1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        h, w, b, offsets, molecule, atoms, weight, largest = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *replay(partial(plain, offsets=offsets), (h, w, b), grads[0]), None, None, None
        hit = equal(h, largest.index_select(0, molecule))
        by_sum, by_max = grads[0].chunk(2, dim=1)
        share = by_max / bag_sum(hit, atoms, offsets)
        by_sum, by_max = torch.cat([by_sum, share], dim=1).index_select(0, molecule).chunk(2, dim=1)
        slope = torch.linalg.vecdot(by_sum, h).unsqueeze(1) * weight * (1 - weight)
        by_h = hit.mul_(by_max).addcmul_(by_sum, weight).addcmul_(slope, w)
        return by_h, slope.t() @ h, slope.sum(0), None, None, None


def plain(h: Tensor, w: Tensor, b: Tensor, offsets: Tensor) -> Tensor:
    """The same function in differentiable steps."""
    weight = torch.sigmoid(h @ w[0] + b).unsqueeze(1)
    return torch.cat([segment_sum(h * weight, offsets), segment_max(h, offsets)], dim=1)
