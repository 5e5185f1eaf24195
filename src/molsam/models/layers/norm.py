"""Row norms in CoMPT's form: ScaleNorm, and a LayerNorm with the unbiased standard deviation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from molsam.errors import ConfigError
from molsam.models.layers.fused import replay

SCALE_EPS = 1e-5
LAYER_EPS = 1e-6


def norm_layer(name: str, width: int) -> nn.Module:
    """A new norm of that name, scale or layer; raises ConfigError for another."""
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
        y: Tensor = _ScaleNorm.apply(x, self.gain)
        return y


class LayerNorm(nn.Module):
    """a (x - mean) / (s + 1e-6) + b, where s is the standard deviation with width - 1 in the denominator."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.ones(width))
        self.shifts = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """x: float [N, width]."""
        y: Tensor = _LayerNorm.apply(x, self.gains, self.shifts)
        return y


class _ScaleNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, gain: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        ctx.save_for_backward(x, gain, length)
        return x * (gain / length.clamp(min=SCALE_EPS))

    @staticmethod
    def backward(ctx, grad):
        x, gain, length = ctx.saved_tensors
        if torch.is_grad_enabled():
            return replay(_plain_scale_norm, (x, gain), grad)
        inverse = length.clamp(min=SCALE_EPS).reciprocal()
        along = torch.linalg.vecdot(x, grad).unsqueeze(-1) * inverse
        # Below the bound the denominator is constant.
        turn = torch.where(length > SCALE_EPS, -along * inverse * inverse * gain, 0)
        return torch.addcmul(x * turn, grad, gain * inverse), along.sum()


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
            return replay(_plain_layer_norm, (x, gain, bias), grad)
        by_unit = grad * gain
        along = torch.linalg.vecdot(by_unit, unit).unsqueeze(-1)
        turn = torch.where(std > 0, along / (std * (x.shape[-1] - 1)), 0)
        by_x = (by_unit - by_unit.mean(-1, keepdim=True)).div_(std + LAYER_EPS)
        return by_x.addcmul_(unit, turn, value=-1), (grad * unit).sum(0), grad.sum(0)


def _plain_scale_norm(x: Tensor, gain: Tensor) -> Tensor:
    return x * (gain / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=SCALE_EPS))


def _plain_layer_norm(x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    std, mean = torch.std_mean(x, dim=-1, keepdim=True)
    return gain * (x - mean) / (std + LAYER_EPS) + bias
