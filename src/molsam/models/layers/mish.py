"""Mish, x tanh(softplus(x)) (Misra, BMVC 2020)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.models.layers.fused import replay
from molsam.native import kernels


class Mish(nn.Module):
    """Element-wise x tanh(softplus(x))."""

    def forward(self, x: Tensor) -> Tensor:
        """Return Mish of x, float [...]."""
        if kernels.available(x):
            y: Tensor = _Compiled.apply(x)
            return y
        return mish(x)


def mish(x: Tensor) -> Tensor:
    """Compute Mish in plain torch.

    torch's own kernel is one launch on a device, but twice as slow as these three calls on a CPU.
    """
    return x * torch.tanh(F.softplus(x)) if x.is_cpu else F.mish(x)


class _Compiled(torch.autograd.Function):
    """Mish in C (c/layers/mish_norm.c): one sigmoid and a few products, several times faster than torch on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y, slope = torch.empty_like(x), torch.empty_like(x)
        kernels.call("mish", x.dtype, x.numel(), x, y, slope)
        ctx.save_for_backward(x, slope)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, slope = ctx.saved_tensors
        if torch.is_grad_enabled():
            return replay(mish, (x,), grads[0])
        return slope * grads[0]
