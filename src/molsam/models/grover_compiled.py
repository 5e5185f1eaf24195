"""GROVER in C: a block with its encoders, the attention between their heads and the linear map behind it (c/grover.c),
and the feed-forward layers (c/feed_forward.c).

A thread takes some molecules, or rows, through all of it, so that what passes from one operation to the next stays in
its core's cache. grover_encoders.py and layers/head_attention.py compute the same one after the other.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from molsam import kernels
from molsam.models.grover_encoders import Plan, plain_encode
from molsam.models.grover_graph import Neighbours
from molsam.models.layers.activation import Elementwise
from molsam.models.layers.fused import replay
from molsam.models.layers.head_attention import plain_head_attention


def fits(x: Tensor, act: Elementwise) -> bool:
    """Whether C knows this: activations that are linear below zero."""
    return act.below is not None and kernels.available(x)


def block(neighbours: Neighbours, plan: Plan, act: Elementwise, heads: int, *tensors: Tensor | None) -> Tensor:
    """x [n, h], W [3 * heads, h, h], b [3 * heads, h] or None, mixing [h, heads * h] and its bias [h] or None (the linear
    map of the attended heads), W_q, b_q, W_k, b_k, W_v, b_v -> [n, h]."""
    out: Tensor = _Block.apply(neighbours, plan, act, heads, *tensors)
    return out


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        neighbours: Neighbours,
        plan: Plan,
        act: Elementwise,
        heads: int,
        x: Tensor,
        W: Tensor,
        b: Tensor | None,
        mixing: Tensor,
        mixing_bias: Tensor | None,
        *qkv: Tensor,
    ) -> Tensor:
        (n, h), wide = x.shape, kernels.whole_vectors(x.shape[1])
        x, W = x.contiguous(), W.contiguous()
        bias = x.new_zeros(len(W), wide) if b is None else F.pad(b, (0, wide - h))
        mixing, qkv = mixing.contiguous(), tuple(one.contiguous() for one in qkv)
        shift = x.new_zeros(h) if mixing_bias is None else mixing_bias
        lanes, common = _common(neighbours, plan, act, heads, x, wide)
        active = [step[0] for step in plan.steps]
        first, states = x.new_empty(n, wide), x.new_empty(sum(active[1:]) + len(W), n, wide)
        projected, attention = x.new_empty(3, h, heads, lanes), x.new_empty(heads, heads, heads, lanes)
        saved, out = (first, states, projected, attention), torch.empty_like(x)
        given = x, W, bias, _addresses(qkv), mixing, shift
        kernels.call("grover_block", x.dtype, *common, neighbours.rows, neighbours.offsets, *given, *saved, out)
        ctx.neighbours, ctx.plan, ctx.act, ctx.heads, ctx.common = neighbours, plan, act, heads, common
        ctx.save_for_backward(x, W, b, mixing, mixing_bias, *qkv, *saved)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, W, b, mixing, mixing_bias, *rest = ctx.saved_tensors
        qkv, saved = rest[:6], rest[6:]
        neighbours, heads = ctx.neighbours, ctx.heads
        if torch.is_grad_enabled():
            plain = partial(_plain, neighbours, ctx.plan, ctx.act, heads)
            return *(None,) * 4, *replay(plain, (x, W, b, mixing, mixing_bias, *qkv), grads[0])
        h, J = x.shape[1], len(W)
        grad, by_x = grads[0].contiguous(), torch.empty_like(x)
        rows = (J * h, J, 3 * h, 3, h * heads)
        by_weights = x.new_empty(sum(rows), h)
        lists = neighbours.rows, neighbours.offsets, neighbours.back, neighbours.back_offsets
        given = *lists, W, _addresses(qkv), mixing, *saved, grad, by_x, by_weights
        kernels.call("grover_block_backward", x.dtype, *ctx.common, *given)
        by_W, by_bias, by_projection, by_projection_bias, by_mixing = by_weights.split(rows)
        pairs = zip(by_projection.view(3, h, h), by_projection_bias, strict=True)
        return (
            *(None,) * 4,
            by_x,
            by_W.view(W.shape),
            None if b is None else by_bias,
            by_mixing.t(),
            None if mixing_bias is None else grad.sum(0),
            *[by for pair in pairs for by in pair],
        )


def feed_forward(
    kind: Tensor, act: Elementwise, table: Tensor, x: Tensor, W_1: Tensor, W_2: Tensor, bias: Tensor
) -> Tensor:
    """W_2 act(table[kind] + W_1 x) + bias: kind int64 [n], table [kinds, d], x [n, h], W_1 [d, h], W_2 [h, d] -> [n, h]."""
    out: Tensor = _FeedForward.apply(kind, act, table, x, W_1, W_2, bias)
    return out


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kind: Tensor, act: Elementwise, table: Tensor, x: Tensor, W_1: Tensor, W_2: Tensor, bias: Tensor
    ) -> Tensor:
        assert act.below is not None
        (n, h), hidden = x.shape, len(W_1)
        x, table, W_2 = x.contiguous(), table.contiguous(), W_2.contiguous()
        W_1 = W_1 if W_1.stride(1) == 1 else W_1.contiguous()
        result, out = x.new_empty(n, kernels.whole_vectors(hidden)), torch.empty_like(x)
        common = n, h, kernels.whole_vectors(h), hidden, result.shape[1], kind, array("d", [act.below])
        weights = W_1.data_ptr(), W_1.stride(0), W_2
        kernels.call("feed_forward", x.dtype, *common, table, x, *weights, bias, result, out)
        ctx.kind, ctx.act, ctx.common = kind, act, common
        ctx.save_for_backward(table, x, W_1, W_2, bias, result)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        table, x, W_1, W_2, bias, result = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = partial(_plain_feed_forward, ctx.kind, ctx.act)
            return None, None, *replay(plain, (table, x, W_1, W_2, bias), grads[0])
        grad = grads[0].contiguous()
        by_x, *found = (torch.empty_like(one, memory_format=torch.contiguous_format) for one in (x, table, W_1, W_2))
        given = len(table), x, W_1.data_ptr(), W_1.stride(0), W_2, result, grad, by_x
        kernels.call("feed_forward_backward", x.dtype, *ctx.common, *given, *found)
        by_table, by_W_1, by_W_2 = found
        return None, None, by_table, by_x, by_W_1, by_W_2, grad.sum(0)


def _plain_feed_forward(
    kind: Tensor, act: Elementwise, table: Tensor, x: Tensor, W_1: Tensor, W_2: Tensor, bias: Tensor
) -> Tensor:
    return F.linear(act.plain(torch.addmm(table.index_select(0, kind), x, W_1.t())), W_2, bias)


def _addresses(tensors: Sequence[Tensor]) -> array[int]:
    return array("q", [tensor.data_ptr() for tensor in tensors])


def _common(
    neighbours: Neighbours, plan: Plan, act: Elementwise, heads: int, x: Tensor, wide: int
) -> tuple[int, tuple[Any, ...]]:
    """The most rows that all chunks can have in whole vectors, and what both functions take first."""
    assert neighbours.bounds is not None
    assert neighbours.same is not None
    assert act.below is not None
    chunks = len(neighbours.bounds) - 1
    numbers = [step[0] for step in plan.steps] + [0], plan.order, plan.slots
    plans = *(array("q", part) for part in numbers), array("d", [act.below])
    lanes = len(x) + chunks * kernels.LANES
    return lanes, (*x.shape, wide, heads, heads, len(plan.steps), *plans, neighbours.bounds, chunks, neighbours.same)


def _plain(
    neighbours: Neighbours,
    plan: Plan,
    act: Elementwise,
    heads: int,
    x: Tensor,
    W: Tensor,
    b: Tensor | None,
    mixing: Tensor,
    mixing_bias: Tensor | None,
    *qkv: Tensor,
) -> Tensor:
    states = plain_encode(x, W, b, neighbours, plan, lambda m, _: act.plain(m)).unflatten(0, (3, heads))
    return F.linear(plain_head_attention(states, list(qkv), heads).flatten(1), mixing, mixing_bias)
