"""CoMPT's fused functions equal their formulas, in values and in first and second derivatives."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from molsam.models.layers.queries import type_queries
from tests.models.test_grover_parts import assert_same, randn


@pytest.mark.parametrize(
    ("types", "d", "heads", "layers"), [(1, 16, 1, 1), (5, 32, 2, 3), (19, 48, 3, 1), (3, 6, 2, 2)]
)
def test_queries_of_bond_types(types: int, d: int, heads: int, layers: int) -> None:
    torch.manual_seed(0)
    x = randn(4, d).detach()
    inputs = [
        randn(types, d),
        *(part for _ in range(layers) for part in (randn(d, d), randn(d), randn(d, d), randn(d))),
    ]

    def by_layer(weights: tuple[Tensor, ...]) -> list[Any]:
        return [weights[i : i + 4] for i in range(0, len(weights), 4)]

    def fused(bonds: Tensor, *weights: Tensor) -> Tensor:
        made = zip(*type_queries(heads, bonds, by_layer(weights)), strict=True)
        return torch.stack([x @ weight.T + bias for weight, bias in made])

    def plain(bonds: Tensor, *weights: Tensor) -> Tensor:
        scores = []
        for W_k, b_k, W_q, b_q in by_layer(weights):
            keys, queries = bonds @ W_k.T + b_k, x @ W_q.T + b_q
            products = [q @ k.T for q, k in zip(queries.chunk(heads, dim=1), keys.chunk(heads, dim=1), strict=True)]
            scores.append(torch.cat(products, dim=1) / math.sqrt(d // heads))
        return torch.stack(scores)

    assert_same(fused, plain, inputs)
