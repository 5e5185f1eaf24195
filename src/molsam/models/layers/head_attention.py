"""Attention between the few heads of one row: GROVER's sequence is as long as it has heads.

With q_i = W_q x_i + b_q of head i (k, v likewise), cut into P parts of width d, per row and part

    S_ij = q_i . k_j / sqrt(d),   A_i = softmax over j of S_ij,   o_i = sum over j of A_ij v_j.

Matrices of heads x heads are too small for batched products, which cost more to call than to compute. So rows
come last here: [part, d, head, row]. Every product over heads is then a few element-wise operations over whole
vectors of rows, and the linear maps give and take this order for nothing (they multiply from the left).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.models.layers.fused import replay


def head_attention(states: Tensor, weights: list[Tensor], parts: int) -> Tensor:
    """States [3, heads, n, h] of q, k and v; weights: W_q, b_q, W_k, b_k, W_v, b_v -> o [n, heads, h]."""
    out: Tensor = _HeadAttention.apply(parts, states, *weights)
    return out


class _HeadAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parts: int, states: Tensor, *weights: Tensor) -> Tensor:
        _, heads, n, h = states.shape
        projected = states.new_empty(3, h, heads * n)
        for role, (W, b) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
            torch.addmm(b.unsqueeze(1), W, states[role].view(-1, h).t(), out=projected[role])
        q, k, v = projected.view(3, parts, h // parts, heads, n)
        scores = _inner(q, k).mul_(1 / math.sqrt(q.shape[1]))
        attention = torch.softmax(scores, dim=2)
        ctx.parts = parts
        ctx.save_for_backward(states, *weights, projected, attention)
        return _mix(attention, v, torch.empty_like(v)).permute(3, 2, 0, 1).flatten(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        states, *weights, projected, attention = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *_replay(ctx.parts, states, weights, grads[0])
        _, heads, n, h = states.shape
        grad = grads[0].unflatten(2, (ctx.parts, -1)).permute(2, 3, 1, 0).contiguous()
        q, k, v = projected.view(3, ctx.parts, h // ctx.parts, heads, n)
        g_projected, g_states = torch.empty_like(projected), torch.empty_like(states)
        gq, gk, gv = g_projected.view(3, ctx.parts, h // ctx.parts, heads, n)
        transposed = attention.transpose(1, 2)
        _mix(transposed, grad, gv)
        g_scores = torch._softmax_backward_data(_inner(grad, v), attention, 2, attention.dtype)
        g_scores.mul_(1 / math.sqrt(q.shape[1]))
        _mix(g_scores, k, gq)
        _mix(g_scores.transpose(1, 2), q, gk)
        found: list[Tensor] = []
        for role, W in enumerate(weights[::2]):
            rows = states[role].view(-1, h)
            torch.mm(g_projected[role].t(), W, out=g_states[role].view(-1, h))
            found += [g_projected[role] @ rows, g_projected[role].sum(1)]
        return None, g_states, *found


def _inner(left: Tensor, right: Tensor) -> Tensor:
    """Sum over d of left_i right_j: [P, d, H, n] twice -> [P, H, H, n]."""
    parts, d, heads, n = left.shape
    out, product = left.new_empty(parts, heads, heads, n), left.new_empty(d, heads, heads, n)
    # Part by part, so that the products stay in the processor's cache.
    for x, y, target in zip(left.unsqueeze(3), right.unsqueeze(2), out, strict=True):
        torch.mul(x, y, out=product)
        torch.sum(product, 0, out=target)
    return out


def _mix(weights: Tensor, rows: Tensor, out: Tensor) -> Tensor:
    """out_i = sum over j of weights_ij rows_j: [P, H, H, n], [P, d, H, n] -> [P, d, H, n]."""
    first, *others = zip(weights.unsqueeze(1).unbind(3), rows.split(1, dim=2), strict=True)
    torch.mul(*first, out=out)
    for weight, row in others:
        out.addcmul_(weight, row)
    return out


def plain_head_attention(states: Tensor, weights: list[Tensor], parts: int, dropout: float = 0.0) -> Tensor:
    """`head_attention` in differentiable steps, with dropout of the attention weights."""
    linear = zip(states, weights[::2], weights[1::2], strict=True)
    q, k, v = (F.linear(x, W, b).permute(2, 0, 1).unflatten(0, (parts, len(W) // parts)) for x, W, b in linear)
    scores = torch.einsum("pcin,pcjn->pijn", q, k) / math.sqrt(q.shape[1])
    attention = F.dropout(torch.softmax(scores, dim=2), dropout, dropout > 0)
    return torch.einsum("pijn,pcjn->nipc", attention, v).flatten(2)


def _replay(parts: int, states: Tensor, weights: list[Tensor], grad: Tensor) -> tuple[Tensor | None, ...]:
    return replay(lambda s, *w: plain_head_attention(s, list(w), parts), [states, *weights], grad)


def joint_map(W_o: Tensor, b_o: Tensor | None, W_out: Tensor, b_out: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """W_out [h, h] of each head and W_o [h, heads * h] of all as one linear map of the flattened heads, because nothing stands
    between them: [h, heads * h] and its bias [h], if they have biases."""
    per_head = W_o.unflatten(1, (-1, len(W_out)))
    bias = None if b_o is None or b_out is None else b_o + per_head.sum(1) @ b_out
    return (per_head @ W_out).flatten(1), bias
