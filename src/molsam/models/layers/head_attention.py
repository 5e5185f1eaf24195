"""Attention between the heads of one atom (or bond): in GROVER the heads are the sequence.

With q_i = W_q x_i + b_q of head i (k, v likewise), cut into P parts of width d, per row and part

    S_ij = q_i . k_j / sqrt(d),   A_i = softmax over j of S_ij,   o_i = sum over j of A_ij v_j.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def head_attention(states: Tensor, weights: list[Tensor], parts: int, dropout: float = 0.0) -> Tensor:
    """Return o [n, heads, h].

    states: [3, heads, n, h] of q, k and v. weights: W_q, b_q, W_k, b_k, W_v, b_v. parts: P. dropout: of A.
    """
    heads, n, h = states.shape[1:]
    W, b = torch.stack(weights[::2]), torch.stack(weights[1::2])
    # With W as the first factor its gradient has W's memory layout.
    rows = torch.baddbmm(b.unsqueeze(2), W, states.flatten(1, 2).mT)
    q, k, v = rows.view(3, parts, h // parts, heads, n).permute(0, 4, 1, 3, 2).flatten(1, 2)
    attention = torch.softmax(torch.bmm(q, k.mT) / math.sqrt(h // parts), dim=2)
    attention = F.dropout(attention, dropout, dropout > 0)
    return torch.bmm(attention, v).view(n, parts, heads, h // parts).transpose(1, 2).flatten(2)


def joint_map(W_o: Tensor, b_o: Tensor | None, W_out: Tensor, b_out: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Return W_out [h, h] of each head and W_o [h, heads * h] of all heads as one linear map of the flattened heads.

    Nothing nonlinear stands between the two. The result is [h, heads * h] and a bias [h], or None without biases.
    """
    per_head = W_o.unflatten(1, (-1, len(W_out)))
    bias = None if b_o is None or b_out is None else b_o + per_head.sum(1) @ b_out
    return (per_head @ W_out).flatten(1), bias
