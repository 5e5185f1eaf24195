"""The parts of GROVER's encoder: input layer, message passing with attention between heads, output layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.models.grover import compiled
from molsam.models.grover.encoders import Plan, encode, encode_all
from molsam.models.grover.graph import LineSums, Neighbours
from molsam.models.layers.activation import activation, leaky
from molsam.models.layers.head_attention import head_attention, joint_map
from molsam.models.layers.segment import take
from molsam.native import kernels


class Rows(NamedTuple):
    """Feature vectors of atoms or bonds; few are distinct, and linear maps run only over these."""

    table: Tensor
    """float [J, f]"""
    kind: Tensor
    """int64 [n], the row of `table` of each atom or bond"""

    def linear(self, W: Tensor, b: Tensor | None = None) -> Tensor:
        """Return the features times W [h, f], plus b [h] or None: [n, h]."""
        return take(F.linear(self.table, W, b), self.kind)

    def padded(self) -> Rows:
        """Return the same rows followed by a row of zeros."""
        return Rows(F.pad(self.table, (0, 0, 0, 1)), F.pad(self.kind, (0, 1), value=len(self.table)))


class InputLayer(nn.Module):
    """x = LN(act(W_i f)) of the concatenated features f; x = f if f has the width of x."""

    def __init__(self, width: int, hidden: int, activation_name: str, dropout: float, *, bias: bool) -> None:
        super().__init__()
        self.dropout = dropout
        self.identity = width == hidden
        if not self.identity:
            self.W_i = nn.Linear(width, hidden, bias=bias)
            self.act = activation(activation_name)
            self.norm = nn.LayerNorm(hidden)

    def forward(self, first: Rows, *others: Rows) -> Tensor:
        """Return x [n, hidden] of features [n, f_1], [n, f_2], ..."""
        parts = first, *others
        if self.identity:
            return torch.cat([part.table.index_select(0, part.kind) for part in parts], dim=1)
        kinds, tables = [part.kind for part in parts], [part.table for part in parts]
        weights, act = (self.W_i.weight, self.W_i.bias), leaky(self.act)
        if act is not None and not (self.training and self.dropout) and kernels.available(self.W_i.weight):
            norm = self.norm.eps, self.norm.weight, self.norm.bias
            return compiled.input_layer(kinds, act, *norm, *weights, *tables)
        W, *rest = self.W_i.weight.split([table.shape[1] for table in tables], dim=1)
        x = first.linear(W, self.W_i.bias)
        for part, w in zip(others, rest, strict=True):
            x = x + part.linear(w)
        return F.dropout(self.norm(self.act(x)), self.dropout, self.training)


class MTBlock(nn.Module):
    """Message passing transformer: attention between `heads` heads whose q, k and v are message passing encoders.

    Each of the 3 * heads encoders (head by head: q, k, v) has its own W_j and depth D_j:
    m_j = x, then D_j - 1 times m_j <- act(x + W_j sum m_j over neighbours).
    The heads of one atom (or bond) are the sequence of a multi-head attention with `heads` parts.
    The output is LN(W_o flatten(W_out attention)), without a residual connection.
    """

    def __init__(self, hidden: int, heads: int, activation_name: str, dropout: float, *, bias: bool) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.W_h = nn.Parameter(torch.empty(3 * heads, hidden, hidden))
        self.b_h = nn.Parameter(torch.empty(3 * heads, hidden)) if bias else None
        self.act = activation(activation_name)
        if isinstance(self.act, nn.PReLU):
            self.act = nn.PReLU(3 * heads)
        self.query, self.key, self.value = (nn.Linear(hidden, hidden) for _ in range(3))
        self.W_out = nn.Linear(hidden, hidden, bias=bias)
        self.W_o = nn.Linear(heads * hidden, hidden, bias=bias)
        self.norm = nn.LayerNorm(hidden)

    def plan(self, depths: Sequence[int]) -> Plan:
        """Return the plan of the 3 * heads encoders with these depths."""
        return Plan.of(depths, [role * self.heads + head for head in range(self.heads) for role in range(3)])

    def forward(self, x: Tensor, neighbours: Neighbours, plan: Plan, chosen: Tensor | None = None) -> Tensor:
        """Return the block's output [n, hidden] of x [n, hidden]; chosen: see `encode`."""
        act, dropout = leaky(self.act), self.training and self.dropout
        if act is not None and not dropout and neighbours.bounds is not None and kernels.available(x):
            norm = self.norm
            tensors = norm.weight, norm.bias, x, self.W_h, self.b_h, *self._maps, *self._projections
            return compiled.block(neighbours, plan, act, self.heads, norm.eps, *tensors)
        states = encode(x, self.W_h, self.b_h, neighbours, plan, self._activate, chosen).unflatten(0, (3, self.heads))
        return self._attended(states)

    def of_fixed_size(self, x: Tensor, neighbours: Neighbours | LineSums, depths: Tensor, steps: int) -> Tensor:
        """Return the output, [n, hidden], by operations that do not depend on the depths (see `encode_all`)."""
        states = encode_all(x, self.W_h, self.b_h, neighbours, depths, steps, self._activate)
        return self._attended(states.unflatten(1, (self.heads, 3)).permute(2, 1, 0, 3))

    def _attended(self, states: Tensor) -> Tensor:
        """Return the output [n, hidden] of the encoders' states [3, heads, n, hidden]."""
        attended = head_attention(states, self._projections, self.heads, self.dropout if self.training else 0.0)
        joint = F.linear(attended.flatten(1), *joint_map(*self._maps))
        return F.dropout(self.norm(joint), self.dropout, self.training)

    @property
    def _maps(self) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        of_all, of_each = self.W_o, self.W_out
        return of_all.weight, of_all.bias, of_each.weight, of_each.bias

    @property
    def _projections(self) -> list[Tensor]:
        return [p for layer in (self.query, self.key, self.value) for p in (layer.weight, layer.bias)]

    def _activate(self, m: Tensor, chosen: Tensor) -> Tensor:
        if isinstance(self.act, nn.PReLU):
            m = F.prelu(m, self.act.weight.index_select(0, chosen))
        else:
            m = self.act(m)
        return F.dropout(m, self.dropout, self.training)


class FeedForward(nn.Module):
    """LN(W_2 act(W_1 [features ; summed])); the hidden layer is 4 times as wide as the output."""

    def __init__(self, feature_dim: int, hidden: int, activation_name: str, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.W_1 = nn.Linear(feature_dim + hidden, 4 * hidden)
        self.W_2 = nn.Linear(4 * hidden, hidden)
        self.act = activation(activation_name)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, features: Rows, states: Tensor, neighbours: Neighbours) -> Tensor:
        """Return [N, hidden] of features [N, feature_dim] and the neighbours' sums of states [n, hidden]."""
        act, plain = leaky(self.act), bool(self.training and self.dropout) or neighbours.missing is not None
        if act is not None and not plain and kernels.available(states):
            weights = self.W_1.weight, self.W_1.bias, self.W_2.weight, self.W_2.bias
            tensors = features.table, states, *weights, self.norm.weight, self.norm.bias
            return compiled.feed_forward(features.kind, neighbours, act, self.norm.eps, *tensors)
        summed = neighbours.sum(states)
        if summed.is_cpu:
            by_features, by_sum = self.W_1.weight.split([features.table.shape[1], summed.shape[1]], dim=1)
            x = torch.addmm(features.linear(by_features, self.W_1.bias), summed, by_sum.t())
        else:  # more arithmetic in fewer launches
            x = self.W_1(torch.cat([take(features.table, features.kind), summed], dim=1))
        x = self.act(x)
        x = self.W_2(F.dropout(x, self.dropout, self.training))
        return F.dropout(self.norm(x), self.dropout, self.training)
