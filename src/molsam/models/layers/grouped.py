"""Products of groups of rows, each group with a matrix of its own: in C (c/layers/grouped.c) if widths are whole vectors."""

from __future__ import annotations

from array import array
from typing import Any

import torch
from torch import Tensor

from molsam.native import kernels


def grouped_product(rows: Tensor, matrices: Tensor, sizes: list[int]) -> Tensor:
    """Rows [E, d] in K consecutive groups of `sizes`, times their group's matrix [K, d, f] -> [E, f]."""
    return _GroupedProduct.apply(rows.to(matrices.dtype), matrices, sizes)


class _GroupedProduct(torch.autograd.Function):
    """One graph node for all groups; its backward is itself and its partner, so it has all orders."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrices: Tensor, sizes: list[int]) -> Tensor:
        ctx.save_for_backward(rows, matrices)
        ctx.sizes = sizes
        _, d, f = matrices.shape
        out = rows.new_empty(len(rows), f)
        if _compiled(rows, d, f):
            turned = not matrices.is_contiguous() and matrices.mT.is_contiguous()
            given = array("q", sizes), rows.contiguous(), (matrices.mT if turned else matrices).contiguous()
            kernels.call("grouped_product", rows.dtype, len(sizes), d, f, int(turned), *given, out)
            return out
        for part, matrix, target in zip(rows.split(sizes), matrices, out.split(sizes), strict=True):
            torch.mm(part, matrix, out=target)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, matrices = ctx.saved_tensors
        need_rows, need_matrices, _ = ctx.needs_input_grad
        grad_rows = _GroupedProduct.apply(grads[0], matrices.mT, ctx.sizes) if need_rows else None
        grad_matrices = _GroupedOuter.apply(rows, grads[0], ctx.sizes) if need_matrices else None
        return grad_rows, grad_matrices, None


class _GroupedOuter(torch.autograd.Function):
    """Left [E, d] and right [E, f] in K groups -> left_k^T right_k [K, d, f]."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, sizes: list[int]) -> Tensor:
        ctx.save_for_backward(left, right)
        ctx.sizes = sizes
        d, f = left.shape[1], right.shape[1]
        out = left.new_empty(len(sizes), d, f)
        if _compiled(left, d, f):
            groups = len(sizes), d, f, array("q", sizes)
            kernels.call("grouped_outer", left.dtype, *groups, left.contiguous(), right.contiguous(), out)
            return out
        for a, b, target in zip(left.split(sizes), right.split(sizes), out, strict=True):
            torch.mm(a.mT, b, out=target)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        left, right = ctx.saved_tensors
        grad_left = _GroupedProduct.apply(right, grads[0].mT, ctx.sizes)
        return grad_left, _GroupedProduct.apply(left, grads[0], ctx.sizes), None


def _compiled(rows: Tensor, *widths: int) -> bool:
    return kernels.available(rows) and all(kernels.whole_vectors(width) == width for width in widths)
