"""Mish, x tanh(softplus(x)) (Misra, BMVC 2020), several times faster than torch's on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.models.layers.fused import replay
from molsam.native import kernels


class Mish(nn.Module):
    """Element-wise x tanh(softplus(x)).

    With s = sigmoid(x) and w = s (2 - s), T = tanh(softplus(x)) = w / (2 - w): one sigmoid and a few products, no
    exponential that could overflow. The slope is T + x s (1 - T^2) = T + s (x - T y) for y = x T.
    """

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Mish.apply(x)
        return y


class _Mish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        if kernels.available(x):
            x = x.contiguous()
            y, slope = torch.empty_like(x), torch.empty_like(x)
            kernels.call("mish", x.dtype, x.numel(), x, y, slope)
            ctx.save_for_backward(x, slope)
            return y
        s = x.sigmoid()
        w = torch.lerp(s, s.new_ones(()), s)  # s + s (1 - s), in one pass
        T = torch.div(w, 2 - w, out=w)
        y = x * T
        if x.requires_grad:
            slope = torch.addcmul(x, T, y, value=-1)
            ctx.save_for_backward(x, torch.addcmul(T, s, slope, out=slope))
        return y

    @staticmethod
    def backward(ctx, grad):
        x, slope = ctx.saved_tensors
        if torch.is_grad_enabled():
            return replay(F.mish, (x,), grad)
        return (slope * grad,)
