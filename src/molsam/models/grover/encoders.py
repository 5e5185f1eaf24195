"""GROVER's message passing encoders, all of a block at once.

Encoder j has its own matrix W_j and depth D_j: m_j = x, then D_j - 1 times m_j <- act(x + W_j S m_j + b_j), where S
sums over neighbours.

Encoders are sorted by depth, so that those still passing messages are the first ones: one sum over rows of width
(active encoders) x hidden and one batched product serve them all. The first S x is common to all, and its
product with all W_j is one product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.models.grover.graph import Neighbours


class Plan(NamedTuple):
    """Who passes messages when, for J encoders whose final states go to given slots of a result."""

    order: list[int]
    """all encoders, deepest first"""
    steps: list[tuple[int, int, list[int]]]
    """per step: how many of `order` make it, how many go on after it (each time the first ones), the others' slots"""
    slots: list[int]
    """per encoder of `order`, where its final state goes"""

    @property
    def idle(self) -> list[int]:
        """Slots of the encoders without a step: their state is x."""
        return self.slots[self.steps[0][0] :] if self.steps else self.slots

    @classmethod
    def of(cls, depths: Sequence[int], slots: Sequence[int]) -> Plan:
        """The plan of encoders with these depths and slots."""
        order = sorted(range(len(depths)), key=lambda j: -depths[j])
        active = [sum(depth > t for depth in depths) for t in range(1, max(1, *depths) + 1)]
        steps = [(made, more, [slots[j] for j in order[more:made]]) for made, more in pairwise(active)]
        return cls(order, steps, [slots[j] for j in order])


def encode(
    x: Tensor,
    W: Tensor,
    b: Tensor | None,
    neighbours: Neighbours,
    plan: Plan,
    act: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """x [n, h], W [J, h, h], b [J, h] or None -> the final states [J, n, h], each in its slot; act gets messages [n, a, h] and
    the a encoders they belong to, int64 [a]."""
    states = [x] * len(W)
    order = torch.tensor(plan.order, dtype=torch.int64, device=x.device)
    m = torch.empty(0)
    for t, (active, more, ending) in enumerate(plan.steps):
        chosen = order[:active]
        matrices = W.index_select(0, chosen)
        if t:
            update = torch.bmm(neighbours.sum(m).transpose(0, 1), matrices.mT).transpose(0, 1)
        else:
            update = F.linear(neighbours.sum(x), matrices.flatten(0, 1)).unflatten(1, (active, -1))
        origin = x.unsqueeze(1) if b is None else x.unsqueeze(1) + b.index_select(0, chosen)
        m, finished = act(origin + update, chosen).tensor_split([more], dim=1)
        for slot, state in zip(ending, finished.unbind(1), strict=True):
            states[slot] = state
    return torch.stack(states)
