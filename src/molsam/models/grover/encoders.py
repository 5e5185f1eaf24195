"""GROVER's message passing encoders; all encoders of a block run together.

Encoder j has its own matrix W_j and depth D_j: m_j = x, then D_j - 1 times m_j <- act(x + W_j S m_j + b_j), where S
sums over neighbours.

Encoders are sorted by depth, so the active ones, which still pass messages, come first. One sum over rows of width
(active encoders) x hidden and one batched product serve them all. The first S x is common to all encoders, and its
product with every W_j is a single product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.models.grover.graph import LineSums, Neighbours
from molsam.models.layers.segment import take


class Plan(NamedTuple):
    """Which encoders make which steps, and the slot of the result where each of the J final states goes."""

    order: list[int]
    """all encoders, deepest first"""
    steps: list[tuple[int, int, list[int]]]
    """for each step: how many of `order` make it (the first ones), how many of these continue after it, and the slots
    of those that end"""
    slots: list[int]
    """the slot of each encoder of `order`"""

    @property
    def idle(self) -> list[int]:
        """Slots of the encoders without a step; their state is x."""
        return self.slots[self.steps[0][0] :] if self.steps else self.slots

    @property
    def chosen(self) -> np.ndarray:
        """int64 [.], the encoders that make the first step, then those that make the second, and so on."""
        return np.array([j for made, _, _ in self.steps for j in self.order[:made]], np.int64)

    @classmethod
    def of(cls, depths: Sequence[int], slots: Sequence[int]) -> Plan:
        """Return the plan of encoders with these depths and slots."""
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
    chosen: Tensor | None = None,
) -> Tensor:
    """Return the final states of J encoders, each in its slot, [J, n, h].

    x: [n, h]. W: [J, h, h]. b: [J, h] or None. act: gets messages [n, a, h] and the encoders that they belong to, int64
    [a]. chosen: `plan.chosen` on the device, if it is there already.
    """
    states, m = [x] * len(W), x
    chosen = torch.from_numpy(plan.chosen).to(x.device) if chosen is None else chosen
    counts = [active for active, _, _ in plan.steps]
    # Taken for all steps in one operation, so that autograd adds up the gradients in one operation.
    matrices = take(W.flatten(1), chosen).unflatten(1, W.shape[1:]).split(counts)
    origins = x.unsqueeze(1).expand(len(counts), len(x), 1, x.shape[1]).unbind()
    for t, (which, (active, more, ending)) in enumerate(zip(chosen.split(counts), plan.steps, strict=True)):
        origin = origins[t] if b is None else origins[t] + b.index_select(0, which)
        if t:
            by_encoder = origin.expand(-1, active, -1).transpose(0, 1)
            m = torch.baddbmm(by_encoder, neighbours.sum(m).transpose(0, 1), matrices[t].mT).transpose(0, 1)
        else:
            m = origin + F.linear(neighbours.sum(x), matrices[t].flatten(0, 1)).unflatten(1, (active, -1))
        m = act(m, which)
        if ending:
            *going_on, finished = m.split([more, active - more], dim=1) if more else [m]
            m = going_on[0] if more else m
            for slot, state in zip(ending, finished.unbind(1), strict=True):
                states[slot] = state
    return torch.stack(states)


def encode_all(
    x: Tensor,
    W: Tensor,
    b: Tensor | None,
    neighbours: Neighbours | LineSums,
    depths: Tensor,
    steps: int,
    act: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return the final states of J encoders, [n, J, h], where all make `steps` steps and later ones do not count.

    The depths, int64 [J] on the device, then change no size. More arithmetic, but a captured pass can repeat it.
    """
    count = len(W)
    which = torch.arange(count, device=x.device)
    origin = x.unsqueeze(1) if b is None else x.unsqueeze(1) + b
    states = m = x.unsqueeze(1).expand(-1, count, -1)
    for step in range(1, steps + 1):
        if step == 1:
            m = origin + F.linear(neighbours.sum(x), W.flatten(0, 1)).unflatten(1, (count, -1))
        else:
            summed = neighbours.sum(m).transpose(0, 1)
            m = torch.baddbmm(origin.expand(-1, count, -1).transpose(0, 1), summed, W.mT).transpose(0, 1)
        m = act(m, which)
        states = torch.where((depths > step).unsqueeze(1), m, states)
    return states
