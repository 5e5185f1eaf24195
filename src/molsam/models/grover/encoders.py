"""GROVER's message passing encoders, all of a block at once.

Encoder j has its own matrix W_j and depth D_j: m_j = x, then D_j - 1 times m_j <- act(x + W_j S m_j + b_j), where S
sums over neighbours.

Encoders are sorted by depth, so that those still passing messages are the first ones: one sum over rows of width
(active encoders) x hidden and one batched product serve them all. The first S x is common to all, and its
product with all W_j is one product. The backward pass uses that S acts on rows and W_j on columns: with
U = S^T (gradient of the argument of act), the gradient of m is U W and that of W is U^T m, so neither S m nor its
gradient is kept or made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.models.grover.graph import Neighbours
from molsam.models.layers.activation import Elementwise
from molsam.models.layers.fused import replay


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


def encode(x: Tensor, W: Tensor, b: Tensor | None, neighbours: Neighbours, plan: Plan, act: Elementwise) -> Tensor:
    """x [n, h], W [J, h, h], b [J, h] or None -> the final states [J, n, h], each in its slot."""
    states: Tensor = _Encoders.apply(neighbours, plan, act, x, W, b)
    return states


class _Encoders(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, neighbours: Neighbours, plan: Plan, act: Elementwise, x: Tensor, W: Tensor, b: Tensor | None
    ) -> Tensor:
        n, h = x.shape
        order = torch.tensor(plan.order, device=x.device)
        matrices = W.index_select(0, order)
        origin = x.unsqueeze(1) if b is None else x.unsqueeze(1) + b.index_select(0, order)
        origin = origin.expand(n, len(W), h)
        out, first, states = x.new_empty(len(W), n, h), x, list[Tensor]()
        slots, x_and_bias = out.unbind(0), origin.unbind(1)
        for t, (active, more, ending) in enumerate(plan.steps):
            if t:
                total = neighbours.gather(states[-1]).transpose(0, 1)
                update = torch.bmm(total, matrices[:active].mT).transpose(0, 1)
            else:
                first = neighbours.gather(x)
                update = torch.mm(first, matrices[:active].view(-1, h).t()).view(n, active, h)
            ended = zip(ending, update.unbind(1)[more:], x_and_bias[more:active], strict=True)
            for slot, message, start in ended:
                torch.add(message, start, out=slots[slot])
            if more:
                m = torch.add(update[:, :more], origin[:, :more], out=x.new_empty(n, more, h))
                states.append(act.apply_(m))
        act.apply_(out)
        for slot in plan.idle:
            slots[slot].copy_(x)
        ctx.neighbours, ctx.plan, ctx.act = neighbours, plan, act
        ctx.save_for_backward(x, W, b, order, matrices, first, out, *states)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, W, b, order, matrices, first, out, *states = ctx.saved_tensors
        neighbours, plan, act = ctx.neighbours, ctx.plan, ctx.act
        if torch.is_grad_enabled():
            return None, None, None, *replay(partial(_plain, neighbours, plan, act), (x, W, b), grads[0])
        h = x.shape[1]
        grad, results = grads[0].unbind(0), out.unbind(0)
        gx, g_matrices, g_bias = torch.zeros_like(x), torch.zeros_like(matrices), x.new_zeros(len(W), h)
        for slot in plan.idle:
            gx += grad[slot]
        g_state = None
        for t, (active, more, ending) in reversed(list(enumerate(plan.steps))):
            slope = x.new_empty(len(x), active, h)
            if g_state is not None:
                act.slope(g_state, states[t], slope[:, :more])
            for slot, target in zip(ending, slope.unbind(1)[more:], strict=True):
                act.slope(grad[slot], results[slot], target)
            gx += slope.sum(1)
            if b is not None:
                g_bias[:active] += slope.sum(0)
            if t:
                back = neighbours.gather(slope, transposed=True).transpose(0, 1)
                g_matrices[:active].baddbmm_(back.mT, states[t - 1].transpose(0, 1))
                g_state = torch.bmm(back, matrices[:active]).transpose(0, 1)
            else:
                wide = slope.flatten(1)
                g_matrices[:active].view(-1, h).addmm_(wide.t(), first)
                gx += neighbours.gather(torch.mm(wide, matrices[:active].view(-1, h)), transposed=True)
        place = order.argsort()
        gW = g_matrices.index_select(0, place)
        return None, None, None, gx, gW, None if b is None else g_bias.index_select(0, place)


def _plain(neighbours: Neighbours, plan: Plan, act: Elementwise, x: Tensor, W: Tensor, b: Tensor | None) -> Tensor:
    return plain_encode(x, W, b, neighbours, plan, lambda m, _: act.plain(m))


def plain_encode(
    x: Tensor,
    W: Tensor,
    b: Tensor | None,
    neighbours: Neighbours,
    plan: Plan,
    act: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """`encode` in differentiable steps; act gets messages [n, a, h] and the a encoders they belong to, int64 [a]."""
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
