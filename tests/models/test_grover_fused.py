"""GROVER's hand-written passes: equal to the same operation in plain torch, in values and in two derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.models.grover.encoders import Plan, encode, plain_encode
from molsam.models.grover.graph import Neighbourhood
from molsam.models.layers.activation import ACTIVATIONS, activation, elementwise
from molsam.models.layers.head_attention import head_attention, plain_head_attention
from molsam.native import kernels
from tests.models.test_grover import batch_of, build

BY_RESULT = ["relu", "leakyrelu", "tanh", "selu", "elu"]
DEPTHS = [3, 1, 2, 0, 5, 2]


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def derivatives(f: Callable[..., Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Value, gradient without and with a graph, and the gradient of a function of that gradient."""
    torch.manual_seed(1)
    out = f(*inputs)
    weight = torch.randn(out.shape, dtype=out.dtype)
    fast = torch.autograd.grad((out * weight).sum(), inputs)
    slow = torch.autograd.grad((f(*inputs) * weight).sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in slow), inputs, allow_unused=True)
    return [out, *fast, *slow, *(torch.zeros_like(x) if g is None else g for x, g in zip(inputs, second, strict=True))]


def assert_same(fused: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    expected = derivatives(plain, inputs)
    assert expected[-len(inputs)].any()
    for found, value in zip(derivatives(fused, inputs), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", BY_RESULT)
@pytest.mark.parametrize(("biased", "padding"), [(True, False), (False, True)])
def test_encoders(name: str, biased: bool, padding: bool) -> None:
    batch = batch_of(["CC(=O)OC", "C", "C1CC1N"])
    plan, act = Plan.of(DEPTHS, [4, 2, 0, 1, 3, 5]), activation(name)
    bonds = Neighbourhood.of(batch, padding).bonds
    by_result = elementwise(act)
    assert by_result is not None
    torch.manual_seed(0)
    inputs = [randn(len(batch.src) + padding, 4), randn(6, 4, 4)] + ([randn(6, 4)] if biased else [])

    def fused(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
        return encode(x, W, b, bonds, plan, by_result)

    def plain(x: Tensor, W: Tensor, b: Tensor | None = None) -> Tensor:
        return plain_encode(x, W, b, bonds, plan, lambda m, _: act(m))

    assert_same(fused, plain, inputs)


def test_encoders_pass_as_many_messages_as_their_depths_say() -> None:
    batch = batch_of(["CCO"])
    atoms = Neighbourhood.of(batch, False).atoms
    plan, act = Plan.of([1, 2, 3], [2, 1, 0]), elementwise(nn.Tanh())
    assert act is not None
    x, W = randn(3, 2), randn(3, 2, 2)
    adjacency = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.float64)
    once = torch.tanh(x + adjacency @ x @ W[1].T)
    first = torch.tanh(x + adjacency @ x @ W[2].T)
    twice = torch.tanh(x + adjacency @ first @ W[2].T)
    torch.testing.assert_close(encode(x, W, None, atoms, plan, act), torch.stack([twice, once, x]))


def test_attention_between_heads() -> None:
    torch.manual_seed(0)
    inputs = [randn(3, 3, 5, 8), *(p for _ in range(3) for p in (randn(8, 8), randn(8)))]
    assert_same(lambda s, *w: head_attention(s, list(w), 2), lambda s, *w: plain_head_attention(s, list(w), 2), inputs)


def test_attention_between_heads_is_multi_head_attention_over_the_heads() -> None:
    torch.manual_seed(0)
    heads, n, h, parts = 3, 5, 8, 2
    states, W, b = randn(3, heads, n, h), randn(3, h, h), randn(3, h)
    attended = head_attention(states, [t for pair in zip(W, b, strict=True) for t in pair], parts)
    q, k, v = states.transpose(1, 2)
    theirs, _ = F.multi_head_attention_forward(
        *(t.transpose(0, 1) for t in (q, k, v)), h, parts, None, b.flatten(), None, None, False, 0.0,
        torch.eye(h, dtype=torch.float64), None, use_separate_proj_weight=True,
        q_proj_weight=W[0], k_proj_weight=W[1], v_proj_weight=W[2],
    )  # fmt: skip
    torch.testing.assert_close(attended.transpose(0, 1), theirs)


@pytest.mark.parametrize("name", BY_RESULT)
def test_slopes_by_the_result(name: str) -> None:
    act = activation(name)
    by_result, x = elementwise(act), torch.linspace(-2, 2, 8, dtype=torch.float64, requires_grad=True)
    assert by_result is not None
    y = act(x)
    (expected,) = torch.autograd.grad(y.sum(), x)
    out, inplace = torch.empty_like(x), x.detach().clone()
    by_result.slope(torch.ones_like(x), y.detach(), out)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(by_result.apply_(inplace), y.detach())


def test_activations_whose_result_does_not_tell_the_slope_take_plain_steps() -> None:
    assert {name for name in ACTIVATIONS if elementwise(activation(name)) is None} == {"prelu", "mish", "gelu"}
    for settings in ({"activation": "gelu"}, {"activation": "relu", "dropout": 0.5}):
        assert not any("Encoders" in node for node in _nodes(build(**settings)))
    found = _nodes(build(activation="relu"))
    compiled = kernels.available(torch.empty(0))
    assert ("_BlockBackward" if compiled else "_EncodersBackward") in found
    assert compiled or "_HeadAttentionBackward" in found


def _nodes(model: Any) -> set[str]:
    """Names of the autograd nodes of a training pass."""
    found, waiting = set(), [model.train()(batch_of(["CCO"])).logits.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None:
            found.add(node.name())
            waiting += [n for n, _ in node.next_functions]
    return found
