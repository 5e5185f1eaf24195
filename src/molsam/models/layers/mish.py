"""Mish, x tanh(softplus(x)) (Misra, BMVC 2020), several times faster than torch's on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.models.layers.fused import replay


class Mish(nn.Module):
    """Element-wise x tanh(softplus(x)).

    With s = sigmoid(x) and w = s (2 - s), tanh(softplus(x)) = w / (2 - w): one sigmoid and a few products, no
    exponential that could overflow.
    """

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _Mish.apply(x)
        return y


class _Mish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        s = x.sigmoid()
        w = (2 - s).mul_(s)
        ctx.save_for_backward(x, s)
        return (2 - w).reciprocal_().mul_(w).mul_(x)

    @staticmethod
    def backward(ctx, grad):
        x, s = ctx.saved_tensors
        if torch.is_grad_enabled():
            return replay(F.mish, (x,), grad)
        # d/dx = w / (2 - w) + 4 x s (1 - s)^2 / (2 - w)^2
        t = 1 - s
        q = (t * t).add_(1).reciprocal_()  # 1 / (2 - w)
        slope = t.mul_(t).mul_(s).mul_(x).mul_(q).mul_(4)
        slope.add_(s).addcmul_(s, 1 - s)  # w = s + s (1 - s)
        return (slope.mul_(q).mul_(grad),)
