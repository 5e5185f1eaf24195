"""What CoMPT computes in one function: the same as its formula, in values and in two derivatives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from molsam.models.layers.queries import type_queries
from tests.models.test_grover_parts import assert_same, randn


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
