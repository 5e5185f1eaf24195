"""GROVER's encoders and attention between heads against their definitions, and when C computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.models.grover.encoders import Plan, encode
from molsam.models.grover.graph import Neighbourhood
from molsam.models.layers.activation import ACTIVATIONS, activation, leaky
from molsam.models.layers.head_attention import head_attention
from molsam.native import kernels
from tests.models.test_grover import batch_of, build


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


def test_encoders_pass_as_many_messages_as_their_depths_say() -> None:
    batch = batch_of(["CCO"])
    atoms = Neighbourhood.of(batch, False).atoms
    plan = Plan.of([1, 2, 3], [2, 1, 0])
    x, W = randn(3, 2), randn(3, 2, 2)
    adjacency = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=torch.float64)
    once = torch.tanh(x + adjacency @ x @ W[1].T)
    first = torch.tanh(x + adjacency @ x @ W[2].T)
    twice = torch.tanh(x + adjacency @ first @ W[2].T)
    torch.testing.assert_close(
        encode(x, W, None, atoms, plan, lambda m, _: torch.tanh(m)), torch.stack([twice, once, x])
    )


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


def test_c_knows_activations_that_are_linear_below_zero_and_no_dropout() -> None:
    slopes = {name: found.below for name in ACTIVATIONS if (found := leaky(activation(name)))}
    assert slopes == {"relu": 0.0, "leakyrelu": 0.1}
    for settings in ({"activation": "gelu"}, {"activation": "relu", "dropout": 0.5}):
        assert not any("Block" in node for node in _nodes(build(**settings)))
    assert ("_BlockBackward" in _nodes(build(activation="relu"))) == kernels.available(torch.empty(0))


def _nodes(model: Any) -> set[str]:
    """Names of the autograd nodes of a training pass."""
    found, waiting = set(), [model.train()(batch_of(["CCO"])).logits.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None:
            found.add(node.name())
            waiting += [n for n, _ in node.next_functions]
    return found
