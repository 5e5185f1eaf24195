"""Row norms in CoMPT's form: ScaleNorm, and a LayerNorm with the unbiased standard deviation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.errors import ConfigError
from molsam.models.layers.fused import replay
from molsam.models.layers.mish import mish
from molsam.native import kernels

SCALE_EPS = 1e-5
LAYER_EPS = 1e-6


def norm_layer(name: str, width: int) -> ScaleNorm | LayerNorm:
    """Return a new norm of that name, scale or layer; raises ConfigError for another name."""
    if name not in ("scale", "layer"):
        raise ConfigError(f"norm={name!r} is unknown; choose scale or layer.")
    return ScaleNorm(width) if name == "scale" else LayerNorm(width)


class ScaleNorm(nn.Module):
    """x g / max(|x|, 1e-5) with one gain g, initially sqrt(width) (Nguyen and Salazar, IWSLT 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(math.sqrt(width)))

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, width]."""
        y: Tensor = (_CompiledScaleNorm if kernels.available(x) else _ScaleNorm).apply(x, self.gain)
        return y

    def after_mish(self, x: Tensor, base: Tensor) -> Tensor:
        """Return base + norm(mish(x)), float [N, width] like both; where C is used, in one pass over memory."""
        if kernels.available(x) and kernels.available(base):
            y: Tensor = _CompiledAfterMish.apply(x, base, self.gain)
            return y
        return base + self(mish(x))


class LayerNorm(nn.Module):
    """a (x - mean) / (s + 1e-6) + b, where s is the standard deviation with width - 1 in the denominator."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.ones(width))
        self.shifts = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, width]."""
        y: Tensor = (_CompiledLayerNorm if kernels.available(x) else _LayerNorm).apply(x, self.gains, self.shifts)
        return y


class _ScaleNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, gain: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        bound = length.clamp(min=SCALE_EPS)
        factor = gain / bound
        ctx.save_for_backward(x, gain, length, bound, factor)
        return x * factor

    @staticmethod
    def backward(ctx, grad):
        x, gain, length, bound, factor = ctx.saved_tensors
        if torch.is_grad_enabled():
            return replay(plain_scale_norm, (x, gain), grad)
        along = (x * grad).sum(-1, keepdim=True).div_(bound)
        by_gain = along.sum()
        # At the bound the denominator is constant, so its part of the gradient is 0: division by infinity.
        turn = along.mul_(factor).div_(F.threshold(length, SCALE_EPS, math.inf))
        return (grad * factor).addcmul_(x, turn, value=-1), by_gain


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        std = torch.linalg.vector_norm(centred, dim=-1, keepdim=True) / math.sqrt(x.shape[-1] - 1)
        unit = centred.div_(std + LAYER_EPS)
        ctx.save_for_backward(x, gain, bias, unit, std)
        return torch.addcmul(bias, unit, gain)

    @staticmethod
    def backward(ctx, grad):
        x, gain, bias, unit, std = ctx.saved_tensors
        if torch.is_grad_enabled():
            return replay(plain_layer_norm, (x, gain, bias), grad)
        width = x.shape[-1]
        by_gains = grad * unit
        turn = torch.mv(by_gains, gain).unsqueeze(-1).div_(F.threshold(std * (width - 1), 0, math.inf))
        by_x = (grad * gain).sub_(torch.mv(grad, gain / width).unsqueeze(-1)).div_(std + LAYER_EPS)
        return by_x.addcmul_(unit, turn, value=-1), by_gains.sum(0), grad.sum(0)


class _CompiledScaleNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, gain: Tensor) -> Tensor:
        x, y = x.contiguous(), torch.empty_like(x, memory_format=torch.contiguous_format)
        length = x.new_empty(len(x))
        kernels.call("scale_norm", x.dtype, *x.shape, SCALE_EPS, x, gain, length, y)
        ctx.save_for_backward(x, gain, length)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, gain, length = ctx.saved_tensors
        if torch.is_grad_enabled():
            return replay(plain_scale_norm, (x, gain), grad)
        by_x, by_gain = torch.empty_like(x), torch.empty_like(length)
        given = x, gain, length, grad.contiguous()
        kernels.call("scale_norm_backward", x.dtype, *x.shape, SCALE_EPS, *given, by_x, by_gain)
        return by_x, by_gain.sum()


class _CompiledAfterMish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, base: Tensor, gain: Tensor) -> Tensor:
        x, base = x.contiguous(), base.contiguous()
        out, kept, length = torch.empty_like(x), x.new_empty(2, *x.shape), x.new_empty(len(x))
        kernels.call("mish_scale_norm", x.dtype, *x.shape, SCALE_EPS, x, base, gain, kept, length, out)
        ctx.save_for_backward(x, gain, kept, length)
        return out

    @staticmethod
    def backward(ctx, grad):
        x, gain, kept, length = ctx.saved_tensors
        if torch.is_grad_enabled():
            by_x, by_gain = replay(lambda x, gain: plain_scale_norm(mish(x), gain), (x, gain), grad)
            return by_x, grad, by_gain
        by_x, by_gain = torch.empty_like(x), torch.empty_like(length)
        given = kept, gain, length, grad.contiguous()
        kernels.call("mish_scale_norm_backward", x.dtype, *x.shape, SCALE_EPS, *given, by_x, by_gain)
        return by_x, grad, by_gain.sum()


class _CompiledLayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        x = x.contiguous()
        unit, y = torch.empty_like(x), torch.empty_like(x)
        std = x.new_empty(len(x))
        kernels.call("layer_norm", x.dtype, *x.shape, LAYER_EPS, x, gain, bias, unit, std, y)
        ctx.save_for_backward(x, gain, bias, unit, std)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, gain, bias, unit, std = ctx.saved_tensors
        if torch.is_grad_enabled():
            return replay(plain_layer_norm, (x, gain, bias), grad)
        by_x, sums = torch.empty_like(x), x.new_zeros(torch.get_num_threads(), 2, len(gain))
        given = gain, unit, std, grad.contiguous()
        kernels.call("layer_norm_backward", x.dtype, *x.shape, LAYER_EPS, *given, by_x, sums)
        return by_x, *sums.sum(0)


def plain_scale_norm(x: Tensor, gain: Tensor) -> Tensor:
    """Compute ScaleNorm in plain torch."""
    return x * (gain / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=SCALE_EPS))


def plain_layer_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Compute LayerNorm in plain torch."""
    std, mean = torch.std_mean(x, dim=-1, keepdim=True)
    return gain * (x - mean) / (std + LAYER_EPS) + bias
