"""What CoMPT computes in one function: the same as its formula, in values and in two derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.models.layers.mish import Mish
from molsam.models.layers.norm import norm_layer
from molsam.models.layers.queries import type_queries
from molsam.models.layers.residual import _Residual, add_norm_of_mish
from molsam.native import kernels
from tests.models.test_grover_fused import assert_same, randn


@pytest.mark.skipif(kernels.in_use() != "compiled", reason="no C compiler")
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("sums", [1, 2])
@pytest.mark.parametrize("norm", ["scale", "layer"])
@pytest.mark.parametrize(("n", "width", "d"), [(1, 3, 4), (7, 5, 35), (300, 4, 16)])
def test_the_norm_of_mish_of_a_linear_layer(n: int, width: int, d: int, norm: str, sums: int) -> None:
    torch.manual_seed(0)
    gains = [randn(1).detach()[0].requires_grad_()] if norm == "scale" else [randn(d), randn(d)]
    inputs = [randn(n, width), randn(d, width), randn(d), *(randn(n, d) for _ in range(sums)), *gains]

    def fused(x: Tensor, W: Tensor, b: Tensor, *rest: Tensor) -> Tensor:
        to, (gain, *shift) = rest[:sums], rest[sums:]
        second, shifts = to[1] if sums == 2 else None, shift[0] if shift else None
        out: Tensor = _Residual.apply(x, W, b, to[0], second, gain, shifts)
        return out

    def plain(x: Tensor, W: Tensor, b: Tensor, *rest: Tensor) -> Tensor:
        to, (gain, *shift) = rest[:sums], rest[sums:]
        z = F.linear(x, W, b)
        mish = z * F.softplus(z).tanh()
        if shift:
            std, mean = torch.std_mean(mish, dim=1, keepdim=True)
            return sum(to, gain * (mish - mean) / (std + 1e-6) + shift[0])
        return sum(to, gain * mish / mish.norm(dim=1, keepdim=True).clamp(min=1e-5))

    assert_same(fused, plain, inputs)


@pytest.mark.skipif(kernels.in_use() != "compiled", reason="no C compiler")
@pytest.mark.parametrize("name", ["scale", "layer"])
def test_rows_without_length_or_spread(name: str) -> None:
    torch.manual_seed(0)
    norm, linear = norm_layer(name, 5).double(), nn.Linear(3, 5).double()
    nn.init.zeros_(linear.bias)
    inputs = [torch.zeros(2, 3, dtype=torch.float64, requires_grad=True), randn(2, 5), *norm.parameters(), linear.bias]
    weight = torch.randn(2, 5, dtype=torch.float64)
    fused = add_norm_of_mish(norm, linear, *inputs[:2])
    plain = norm(Mish()(linear(inputs[0]))) + inputs[1]
    torch.testing.assert_close(fused, plain)
    found, expected = (torch.autograd.grad((out * weight).sum(), inputs) for out in (fused, plain))
    torch.testing.assert_close(found, expected)
    assert found[0].isfinite().all()


@pytest.mark.parametrize(("types", "d", "heads"), [(1, 16, 1), (5, 32, 2), (19, 48, 3), (3, 6, 2)])
def test_queries_of_bond_types(types: int, d: int, heads: int) -> None:
    torch.manual_seed(0)
    x = randn(4, d).detach()
    inputs = [randn(types, d), randn(d, d), randn(d), randn(d, d), randn(d)]

    def fused(*given: Tensor) -> Tensor:
        weight, bias = type_queries(heads, *given)
        return x @ weight.T + bias

    def plain(bonds: Tensor, W_k: Tensor, b_k: Tensor, W_q: Tensor, b_q: Tensor) -> Tensor:
        keys, queries = bonds @ W_k.T + b_k, x @ W_q.T + b_q
        products = [q @ k.T for q, k in zip(queries.chunk(heads, dim=1), keys.chunk(heads, dim=1), strict=True)]
        return torch.cat(products, dim=1) / math.sqrt(d // heads)

    assert_same(fused, plain, inputs)
