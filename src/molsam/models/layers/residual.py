"""What CoMPT adds to a residual stream: the norm of mish of a linear layer, in one pass over the rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.models.layers.fused import replay
from molsam.models.layers.norm import LAYER_EPS, SCALE_EPS, LayerNorm, ScaleNorm, plain_layer_norm, plain_scale_norm
from molsam.native import kernels


def add_norm_of_mish(norm: ScaleNorm | LayerNorm, linear: nn.Linear, x: Tensor, *to: Tensor) -> Tensor:
    """norm(mish(linear(x))) + the one or two tensors of `to`: all [n, d], where `kernels.available`."""
    first, second = to if len(to) == 2 else (*to, None)
    gain, shift = (norm.gain, None) if isinstance(norm, ScaleNorm) else (norm.gains, norm.shifts)
    out: Tensor = _Residual.apply(x, linear.weight, linear.bias, first, second, gain, shift)
    return out


class _Residual(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        W: Tensor,
        bias: Tensor,
        first: Tensor,
        second: Tensor | None,
        gain: Tensor,
        shift: Tensor | None,
    ) -> Tensor:
        slope = torch.mm(x, W.t())
        (kept, out), size = x.new_empty(2, *slope.shape).unbind(), x.new_empty(len(x))
        ctx.norm = _norm(slope, gain, shift)
        kernels.call(
            "residual",
            x.dtype,
            **ctx.norm,
            z=slope,
            bias=bias,
            first=first.contiguous(),
            second=None if second is None else second.contiguous(),
            kept=kept,
            size=size,
            out=out,
        )
        ctx.save_for_backward(x, W, bias, first, second, gain, shift, kept, size, slope)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, W, bias, first, second, gain, shift, kept, size, slope = ctx.saved_tensors
        if torch.is_grad_enabled():
            return replay(_plain, (x, W, bias, first, second, gain, shift), grads[0])
        grad, d = grads[0].contiguous(), kept.shape[1]
        by_z, sums, own = torch.empty_like(grad), x.new_empty(3, d), x.new_empty(torch.get_num_threads(), 3, d)
        saved = {"kept": kept, "size": size, "slope": slope}
        kernels.call("residual_backward", x.dtype, **ctx.norm, **saved, grad=grad, by_z=by_z, own=own, sums=sums)
        by_bias, by_gain, by_shift = sums
        by_norm = (by_gain[0], None) if shift is None else (by_gain, by_shift)
        by_second = None if second is None else grad
        return torch.mm(by_z, W), torch.mm(by_z.t(), x), by_bias, grad, by_second, *by_norm


def _norm(z: Tensor, gain: Tensor, shift: Tensor | None) -> dict[str, Any]:
    """What both functions of c/layers/residual.h take first."""
    n, d = z.shape
    gains, eps = (1, SCALE_EPS) if shift is None else (d, LAYER_EPS)
    return {"n": n, "d": d, "gains": gains, "eps": eps, "gain": gain, "shift": shift}


def _plain(
    x: Tensor,
    W: Tensor,
    bias: Tensor,
    first: Tensor,
    second: Tensor | None,
    gain: Tensor,
    shift: Tensor | None,
) -> Tensor:
    mish = F.mish(F.linear(x, W, bias))
    normed = plain_scale_norm(mish, gain) if shift is None else plain_layer_norm(mish, gain, shift)
    return normed + first if second is None else normed + first + second
