"""GROVER in C: the input layers (c/grover/input.c), the blocks (c/grover/block.c) and the feed-forward layers
(c/grover/feed_forward.c).

A block is one call: its encoders, the attention between their heads, the linear map after it and its norm. A thread
takes some molecules, or rows, through all operations, so that intermediate results stay in its core's cache.
encoders.py and layers/head_attention.py compute the same one operation after the other.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.models.grover.encoders import Plan, encode
from molsam.models.grover.graph import Neighbours
from molsam.models.layers.activation import Leaky
from molsam.models.layers.fused import replay
from molsam.models.layers.head_attention import head_attention, joint_map
from molsam.native import kernels

QKV = ("W_q", "b_q", "W_k", "b_k", "W_v", "b_v")
SAVED = ("first", "states", "projected", "attention", "unit", "factor")


def block(neighbours: Neighbours, plan: Plan, act: Leaky, heads: int, eps: float, *tensors: Tensor | None) -> Tensor:
    """Return the output of an `MTBlock` without dropout, [n, h].

    tensors: the norm's gain and bias [h]; x [n, h]; the encoders' W [3 * heads, h, h] and b [3 * heads, h] or None;
    W_o [h, heads * h] and b_o [h] or None, the map of all heads; W_out [h, h] and b_out [h] or None, the map of each
    head; W_q, b_q, W_k, b_k, W_v, b_v.
    """
    out: Tensor = _Block.apply(neighbours, plan, act, heads, eps, *tensors)
    return out


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        neighbours: Neighbours,
        plan: Plan,
        act: Leaky,
        heads: int,
        eps: float,
        gain: Tensor,
        norm_bias: Tensor,
        x: Tensor,
        W: Tensor,
        b: Tensor | None,
        W_o: Tensor,
        b_o: Tensor | None,
        W_out: Tensor,
        b_out: Tensor | None,
        *qkv: Tensor,
    ) -> Tensor:
        h, wide = x.shape[1], kernels.whole_vectors(x.shape[1])
        x, W, W_o, W_out, *qkv = (one.contiguous() for one in (x, W, W_o, W_out, *qkv))  # type: ignore[assignment]
        bias = x.new_zeros(len(W), wide) if b is None else F.pad(b, (0, wide - h))
        maps, norm = (
            {"W_o": W_o, "b_o": b_o, "W_out": W_out, "b_out": b_out},
            {"eps": eps, "gain": gain, "shift": norm_bias},
        )
        out, ctx.common = torch.empty_like(x), _common(neighbours, plan, act.below, heads, x, wide)
        saved = _saved(ctx.common, x)
        mixing, attended = torch.empty_like(W_o), dict(zip(QKV, qkv, strict=True))
        given = {"x": x, "W": W, "bias": bias, "mixing": mixing, "out": out}
        kernels.call("grover_block", x.dtype, **ctx.common, **saved, **given, **attended, **maps, **norm)
        ctx.neighbours, ctx.plan, ctx.act, ctx.heads, ctx.eps = neighbours, plan, act, heads, eps
        ctx.save_for_backward(gain, norm_bias, x, W, b, *maps.values(), *qkv, mixing, *saved.values())
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gain, norm_bias, x, W, b, W_o, b_o, W_out, b_out, *rest = ctx.saved_tensors
        qkv, mixing, saved = rest[:6], rest[6], dict(zip(SAVED, rest[7:], strict=True))
        neighbours, heads = ctx.neighbours, ctx.heads
        if torch.is_grad_enabled():
            plain = partial(_plain, neighbours, ctx.plan, ctx.act, heads, ctx.eps)
            inputs = gain, norm_bias, x, W, b, W_o, b_o, W_out, b_out, *qkv
            return *(None,) * 5, *replay(plain, inputs, grads[0])
        h, J = x.shape[1], W.shape[0]
        grad, by_x = grads[0].contiguous(), torch.empty_like(x)
        rows = (J * h, J, 3 * h, 3, h * heads, 1, 1, 1)
        by_weights, by_maps = (x.new_empty(count, h) for count in (sum(rows), (heads + 1) * h + 1))
        lists = {"back": neighbours.back, "back_offsets": neighbours.back_offsets}
        weights = {"W": W, "W_o": W_o, "W_out": W_out, "b_out": b_out, "gain": gain, "mixing": mixing}
        weights |= zip(QKV[::2], qkv[::2], strict=True)
        found = {"by_x": by_x, "by_weights": by_weights, "by_maps": by_maps}
        kernels.call("grover_block_backward", x.dtype, **ctx.common, **saved, **lists, **weights, grad=grad, **found)
        by_W, by_bias, by_projection, by_projection_bias, _, *by_rows = torch.split_with_sizes(by_weights, rows)
        by_W_o, by_W_out, by_b_out = torch.split_with_sizes(by_maps, (heads * h, h, 1))
        by_gain, by_norm_bias, by_b_o = (row[0] for row in by_rows)
        pairs = zip(by_projection.view(3, h, h).unbind(), by_projection_bias.unbind(), strict=True)
        return (
            *(None,) * 5,
            by_gain,
            by_norm_bias,
            by_x,
            by_W.view(W.shape),
            None if b is None else by_bias,
            by_W_o.view(W_o.shape),
            None if b_o is None else by_b_o,
            by_W_out,
            None if b_out is None else by_b_out[0],
            *[by for pair in pairs for by in pair],
        )


def input_layer(kinds: Sequence[Tensor], act: Leaky, eps: float, *tensors: Tensor | None) -> Tensor:
    """Return norm(act(W [table[kind], ...] + b)), [n, h], for one or two tables.

    kinds: int64 [n] for each table. tensors: the norm's gain and shift [h]; W [h, sum of f]; b [h] or None; the tables
    [., f].
    """
    out: Tensor = _Input.apply(kinds, act, eps, *tensors)
    return out


class _Input(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kinds: Sequence[Tensor],
        act: Leaky,
        eps: float,
        gain: Tensor,
        shift: Tensor,
        W: Tensor,
        b: Tensor | None,
        *tables: Tensor,
    ) -> Tensor:
        W, *tables = (one.contiguous() for one in (W, *tables))  # type: ignore[assignment]
        n, h, wide = kinds[0].shape[0], W.shape[0], kernels.whole_vectors(W.shape[0])
        mapped = W.new_empty(sum(table.shape[0] for table in tables), wide)
        (unit, out), factor = W.new_empty(2, n, h).unbind(), W.new_empty(n)
        ctx.sizes = {"n": n, "h": h, "wide": wide, "below": act.below}
        norm, made = {"eps": eps, "gain": gain, "shift": shift}, {"mapped": mapped, "unit": unit, "factor": factor}
        features = ctx.sizes | _features(kinds, tables)
        kernels.call("input_layer", W.dtype, **features, W=W, bias=b, **norm, **made, out=out)
        ctx.kinds, ctx.act, ctx.eps = kinds, act, eps
        ctx.save_for_backward(gain, shift, W, b, *tables, mapped, unit, factor)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, mapped, unit, factor = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = partial(_plain_input, ctx.kinds, ctx.act, ctx.eps)
            return None, None, None, *replay(plain, inputs, grads[0])
        gain, _, W, b, *tables = inputs
        by, by_W = gain.new_empty(mapped.shape[0] + 2, gain.shape[0]), torch.empty_like(W)
        by_b = None if b is None else torch.empty_like(b)
        saved = {"W": W, "gain": gain, "mapped": mapped, "unit": unit, "factor": factor}
        found = {"by": by, "by_W": by_W, "by_bias": by_b}
        features = ctx.sizes | _features(ctx.kinds, tables)
        kernels.call("input_layer_backward", W.dtype, **features, **saved, grad=grads[0].contiguous(), **found)
        by_tables: list[Tensor | None] = [None] * len(tables)
        if any(ctx.needs_input_grad[-len(tables) :]):
            parts = W.split([table.shape[1] for table in tables], dim=1)
            rows = by[:-2].split([table.shape[0] for table in tables])
            by_tables = [torch.mm(*each) for each in zip(rows, parts, strict=True)]
        return None, None, None, by[-2], by[-1], by_W, by_b, *by_tables


def _features(kinds: Sequence[Tensor], tables: Sequence[Tensor]) -> dict[str, Any]:
    """Return the tables and their rows under the names of c/grover/input.h."""
    names = ("a", "kinds", "f", "A"), ("b", "others", "g", "B")
    given = [(kind, *table.shape, table) for kind, table in zip(kinds, tables, strict=True)]
    pairs = zip(names, [*given, (None, 0, 0, None)], strict=False)
    return {name: value for group, values in pairs for name, value in zip(group, values, strict=True)}


def _plain_input(
    kinds: Sequence[Tensor],
    act: Leaky,
    eps: float,
    gain: Tensor,
    shift: Tensor,
    W: Tensor,
    b: Tensor | None,
    *tables: Tensor,
) -> Tensor:
    rows = [table.index_select(0, kind) for table, kind in zip(tables, kinds, strict=True)]
    return F.layer_norm(act.plain(F.linear(torch.cat(rows, dim=1), W, b)), gain.shape, gain, shift, eps)


def feed_forward(kind: Tensor, neighbours: Neighbours, act: Leaky, eps: float, *tensors: Tensor) -> Tensor:
    """Return norm(W_2 act(W_1 [table[kind] ; S states] + b_1) + b_2), [n, h]; S must be without padding.

    kind: int64 [n]. tensors: table [kinds, f]; states [m, h]; W_1 [d, f + h], b_1 [d]; W_2 [h, d], b_2 [h]; the norm's
    gain and bias [h].
    """
    out: Tensor = _FeedForward.apply(kind, neighbours, act, eps, *tensors)
    return out


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        kind: Tensor,
        neighbours: Neighbours,
        act: Leaky,
        eps: float,
        table: Tensor,
        states: Tensor,
        W_1: Tensor,
        b_1: Tensor,
        W_2: Tensor,
        b_2: Tensor,
        gain: Tensor,
        shift: Tensor,
    ) -> Tensor:
        states, table, W_1, W_2 = (one.contiguous() for one in (states, table, W_1, W_2))
        (n, h), hidden, broad = (kind.shape[0], states.shape[1]), W_1.shape[0], kernels.whole_vectors(W_1.shape[0])
        result, mapped = states.new_empty(n, broad), states.new_empty(table.shape[0], broad)
        (x, unit, out), factor = states.new_empty(3, n, h).unbind(), states.new_empty(n)
        kinds, f = table.shape
        sizes = {"n": n, "h": h, "hidden": hidden, "broad": broad, "kinds": kinds, "f": f}
        ctx.sizes = sizes | {"below": act.below}
        layers = {"kind": kind, "table": table, "W_1": W_1, "b_1": b_1, "W_2": W_2, "b_2": b_2}
        norm = {"eps": eps, "gain": gain, "shift": shift}
        given = {"lists": neighbours.rows, "offsets": neighbours.offsets, "states": states}
        made = {"mapped": mapped, "x": x, "result": result, "unit": unit, "factor": factor, "out": out}
        kernels.call("feed_forward", states.dtype, **ctx.sizes, **layers, **norm, **given, **made)
        ctx.kind, ctx.neighbours, ctx.act, ctx.eps = kind, neighbours, act, eps
        ctx.save_for_backward(table, states, W_1, b_1, W_2, b_2, gain, shift, x, result, unit, factor)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        inputs, saved, neighbours = ctx.saved_tensors[:8], ctx.saved_tensors[8:], ctx.neighbours
        if torch.is_grad_enabled():
            plain = partial(_plain_feed_forward, ctx.kind, neighbours, ctx.act, ctx.eps)
            return *(None,) * 4, *replay(plain, inputs, grads[0])
        table, states, W_1, b_1, W_2, _, gain, _ = inputs
        by_states, by_W_1, by_b_1, by_W_2 = (torch.empty_like(one) for one in (states, W_1, b_1, W_2))
        by_mapped, by_rows = W_1.new_empty(table.shape[0], W_1.shape[0]), gain.new_empty(3, gain.shape[0])
        lists = {"count": states.shape[0], "lists": neighbours.back, "offsets": neighbours.back_offsets}
        layers = {"kind": ctx.kind, "table": table, "W_1": W_1, "W_2": W_2, "gain": gain}
        given = dict(zip(("x", "result", "unit", "factor"), saved, strict=True)) | {"grad": grads[0].contiguous()}
        found = {"by_states": by_states, "by_table": by_mapped, "by_W_1": by_W_1, "by_b_1": by_b_1, "by_W_2": by_W_2}
        kernels.call(
            "feed_forward_backward", W_1.dtype, **ctx.sizes, **layers, **lists, **given, **found, by_rows=by_rows
        )
        by_gain, by_shift, by_b_2 = by_rows.unbind()
        by_table = torch.mm(by_mapped, W_1[:, : table.shape[1]]) if ctx.needs_input_grad[4] else None
        return *(None,) * 4, by_table, by_states, by_W_1, by_b_1, by_W_2, by_b_2, by_gain, by_shift


def _plain_feed_forward(
    kind: Tensor,
    neighbours: Neighbours,
    act: Leaky,
    eps: float,
    table: Tensor,
    states: Tensor,
    W_1: Tensor,
    b_1: Tensor,
    W_2: Tensor,
    b_2: Tensor,
    gain: Tensor,
    shift: Tensor,
) -> Tensor:
    features = torch.cat([table.index_select(0, kind), neighbours.sum(states)], dim=1)
    hidden = act.plain(F.linear(features, W_1, b_1))
    return F.layer_norm(F.linear(hidden, W_2, b_2), gain.shape, gain, shift, eps)


def _common(neighbours: Neighbours, plan: Plan, below: float, heads: int, x: Tensor, wide: int) -> dict[str, Any]:
    """Return the fields that both functions of c/grover/block.c take first (see c/grover/plan.h)."""
    assert neighbours.bounds is not None
    assert neighbours.same is not None
    (n, h), steps = x.shape, len(plan.steps)
    active = [step[0] for step in plan.steps]
    sizes = {"n": n, "h": h, "wide": wide, "heads": heads, "parts": heads, "steps": steps}
    encoders = {"active": array("q", [*active, 0]), "order": array("q", plan.order), "slot": array("q", plan.slots)}
    chunks = {"chunks": len(neighbours.bounds) - 1, "bounds": neighbours.bounds, "same": neighbours.same[:steps]}
    lists = {"rows": neighbours.rows, "offsets": neighbours.offsets}
    return {**sizes, **encoders, **chunks, **lists, "passing": sum(active[1:]), "below": below}


def _saved(common: dict[str, Any], x: Tensor) -> dict[str, Tensor]:
    """Return empty tensors for what the backward pass needs (see c/grover/plan.h)."""
    n, h, wide, heads = (common[name] for name in ("n", "h", "wide", "heads"))
    lanes, states = n + common["chunks"] * kernels.LANES, common["passing"] + 3 * heads
    shapes = (n, wide), (states, n, wide), (3, h, heads, lanes), (heads, heads, heads, lanes), (n, h), (n,)
    return {name: x.new_empty(shape) for name, shape in zip(SAVED, shapes, strict=True)}


def _plain(
    neighbours: Neighbours,
    plan: Plan,
    act: Leaky,
    heads: int,
    eps: float,
    gain: Tensor,
    norm_bias: Tensor,
    x: Tensor,
    W: Tensor,
    b: Tensor | None,
    W_o: Tensor,
    b_o: Tensor | None,
    W_out: Tensor,
    b_out: Tensor | None,
    *qkv: Tensor,
) -> Tensor:
    states = encode(x, W, b, neighbours, plan, lambda m, _: act.plain(m)).unflatten(0, (3, heads))
    attended = head_attention(states, list(qkv), heads).flatten(1)
    mixed = F.linear(attended, *joint_map(W_o, b_o, W_out, b_out))
    return F.layer_norm(mixed, gain.shape, gain, norm_bias, eps)
