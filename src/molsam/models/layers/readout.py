"""The readout of dgllife's predictors, [sum_v sigmoid(w h_v + b) h_v ; max_v h_v], as one operation.

For batches with a large molecule, sums are added in float64: adding 300 atoms one by one in float32 has a relative
error of 1e-5.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.models.layers.batchnorm import FEW
from molsam.models.layers.fused import replay
from molsam.models.layers.segment import segment_max, segment_sum
from molsam.native import kernels


def weighted_sum_and_max(h: Tensor, w: Tensor, b: Tensor, molecule: Tensor, offsets: Tensor, max_size: int) -> Tensor:
    """Return [sum_v sigmoid(w h_v + b) h_v ; max_v h_v] of each molecule, [B, 2d].

    h: float [N, d] of the atoms; w: float [1, d]; b: float [1]; molecule: int64 [N]; offsets: int64 [B + 1].
    No molecule is empty, and none has more than max_size atoms. Equal maxima share the gradient.
    """
    if kernels.available(h):
        out: Tensor = _Compiled.apply(h, w, b, molecule, offsets)
        return out
    return plain(h, w, b, molecule, len(offsets) - 1, max_size)


class _Compiled(torch.autograd.Function):
    """The readout in C (c/layers/readout.c), which adds in float64."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, w: Tensor, b: Tensor, molecule: Tensor, offsets: Tensor) -> Tensor:
        h = h.contiguous()
        (n, d), molecules = h.shape, offsets.shape[0] - 1
        weight, out = h.new_empty(n), h.new_empty(molecules, 2 * d)
        kernels.call("weighted_sum_and_max", h.dtype, molecules, d, offsets, h, w, b, weight, out)
        ctx.save_for_backward(h, w, b, molecule, offsets, weight, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        h, w, b, molecule, offsets, weight, out = ctx.saved_tensors
        if torch.is_grad_enabled():
            plainly = partial(plain, molecule=molecule, count=len(offsets) - 1)
            return *replay(plainly, (h, w, b), grads[0]), None, None
        d = h.shape[1]
        by_h, by_w = torch.empty_like(h), h.new_zeros(torch.get_num_threads(), d + 1)
        sizes = {"molecules": offsets.shape[0] - 1, "d": d, "offsets": offsets}
        given = {"h": h, "w": w, "weight": weight, "out": out, "grad": grads[0].contiguous()}
        kernels.call("weighted_sum_and_max_backward", h.dtype, **sizes, **given, by_h=by_h, by_w=by_w)
        by_w, by_b = by_w.sum(0).split([d, 1])
        return by_h, by_w.unsqueeze(0), by_b, None, None


def plain(h: Tensor, w: Tensor, b: Tensor, molecule: Tensor, count: int, max_size: int = 0) -> Tensor:
    """Compute the same function in plain torch."""
    weighted = h * torch.sigmoid(F.linear(h, w, b))
    exact = h.dtype if max_size <= FEW else torch.float64
    total = segment_sum(weighted.to(exact), molecule, count).to(h.dtype)
    return torch.cat([total, segment_max(h, molecule, count)], dim=1)
