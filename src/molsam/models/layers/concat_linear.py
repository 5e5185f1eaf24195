"""A linear map of concatenated features, without concatenating them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.models.layers.fused import replay


def concat_linear(parts: list[Tensor], W: Tensor, b: Tensor | None) -> Tensor:
    """W [x_1 ; x_2 ; ...] + b for parts x_k [n, f_k], W [h, sum of f_k] -> [n, h].

    Input features need no gradient, and the columns of W that meet them then need no product in the backward
    pass; cutting W by autograd would cost a padded copy of its gradient for each part.
    """
    if torch.is_autocast_enabled(W.device.type):
        return F.linear(torch.cat(parts, dim=1), W, b)
    out: Tensor = _ConcatLinear.apply(W, b, *parts)
    return out


class _ConcatLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, W: Tensor, b: Tensor | None, *parts: Tensor) -> Tensor:
        ctx.save_for_backward(W, b, *parts)
        columns = W.split([x.shape[1] for x in parts], dim=1)
        out = F.linear(parts[0], columns[0], b)
        for x, w in zip(parts[1:], columns[1:], strict=True):
            out.addmm_(x, w.t())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        W, b, *parts = ctx.saved_tensors
        grad = grads[0]
        if torch.is_grad_enabled():
            return replay(lambda w, b, *parts: F.linear(torch.cat(parts, dim=1), w, b), [W, b, *parts], grad)
        gW = torch.empty_like(W)
        widths = [x.shape[1] for x in parts]
        for x, target in zip(parts, gW.split(widths, dim=1), strict=True):
            torch.mm(grad.t(), x, out=target)
        gb = None if b is None else grad.sum(0)
        columns = W.split(widths, dim=1)
        needed = ctx.needs_input_grad[2:]
        return gW, gb, *[grad @ w if need else None for w, need in zip(columns, needed, strict=True)]
