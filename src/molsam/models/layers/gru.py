"""A bidirectional GRU over molecules of different sizes, without padding.

Cho et al., EMNLP 2014, in torch's form: r, z = sigmoid(W x + b + U h + c); n = tanh(W x + b + r (U h + c));
h' = (1 - z) n + z h.

Both directions run together; step t covers all molecules with more than t atoms. Molecules are sorted by decreasing
size, so the active ones are always first, and the products shrink as molecules end. A line is an atom read in one
direction; its number is 2 * atom + direction. Packed lines are in the order of the steps, so each step is one
contiguous block [2, active, width]. Whatever does not depend on the previous step (input projections, weight gradients,
derivatives of the gates) is computed for all atoms at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.data.states import to_device
from molsam.models.layers.fused import replay
from molsam.models.layers.segment import take
from molsam.native import kernels


class Packing(NamedTuple):
    """The packed order of the 2N lines of B molecules with N atoms."""

    line: Tensor
    """int64 [2N], the line in each packed row"""
    row: Tensor
    """int64 [2N], the packed row of each line"""
    start: Tensor
    """int64 [2N], for each packed row the state before it: an index into the 2B initial states and packed rows"""
    order: Tensor
    """int64 [B], molecules by decreasing size"""
    rank: Tensor
    """int64 [B], place of each molecule in `order`"""
    active: list[int]
    """the number of active molecules in each step"""

    def blocks(self, rows: Tensor) -> list[Tensor]:
        """Return views [2, active, width] of packed rows [2N, width], one per step."""
        parts = rows.split([2 * n for n in self.active])
        return [part.view(2, n, -1) for part, n in zip(parts, self.active, strict=True)]


def packing(sizes: Tensor) -> Packing:
    """Return the packed order for molecules with `sizes` (int64 [B]) atoms."""
    order = torch.argsort(sizes, descending=True, stable=True)
    rank = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=sizes.device))
    ends = sizes.cumsum(0)
    first, last, rank_of_atom = torch.stack([ends - sizes, ends - 1, rank]).repeat_interleave(sizes, dim=1)
    atom = torch.arange(len(first), device=sizes.device)
    active = torch.bincount(atom - first)
    # First row of each direction of the initial states (entries 0 and 1) and of the steps' blocks.
    width = torch.cat([active.new_tensor([len(sizes)]), active])
    block = 2 * (width.cumsum(0) - width)
    table = torch.stack([block, block + width], dim=1).view(-1)
    entry = (2 * torch.stack([atom - first, last - atom], dim=1) + active.new_tensor([0, 1])).view(-1)
    place = rank_of_atom.repeat_interleave(2)
    row = table.index_select(0, entry + 2) + place - 2 * len(sizes)
    line = torch.empty_like(row).index_copy_(0, row, torch.arange(len(row), device=sizes.device))
    start = (table.index_select(0, entry) + place).index_select(0, line)
    return Packing(line, row, start, order, rank, active.tolist())


class Reading(NamedTuple):
    """The order in which torch's GRU reads packed sequences: all first atoms, then all second atoms, and so on.

    Within each step the largest molecule comes first.
    """

    line: Tensor
    """int64 [N], the atom that is read at each place"""
    place: Tensor
    """int64 [N], the place at which each atom is read"""
    order: Tensor
    """int64 [B], molecules by decreasing size"""
    rank: Tensor
    """int64 [B], place of each molecule in `order`"""


def reading(sizes: np.ndarray) -> list[np.ndarray]:
    """Return the fields of the `Reading` for molecules with `sizes` (int64 [B]) atoms."""
    order = np.argsort(-sizes, kind="stable")
    rank, starts = order.argsort(), sizes.cumsum() - sizes
    atom = np.arange(sizes.sum()) - starts.repeat(sizes)
    active = (sizes[:, None] > np.arange(sizes.max(initial=0))).sum(0)
    place = (active.cumsum() - active).take(atom) + rank.repeat(sizes)
    line = np.empty_like(place)
    line[place] = np.arange(len(place))
    return [line, place, order, rank]


class PaddedReading(NamedTuple):
    """The order in which each direction reads the atoms of molecules that are padded to n atoms.

    The padding follows the atoms in both directions, so it changes no atom's state.
    """

    rows: Tensor
    """int64 [2, n * B], the atom that is read at each place (any atom in the padding): all first atoms, and so on"""
    place: Tensor
    """int64 [2, N], the place at which each atom is read"""


def padded_reading(sizes: np.ndarray, longest: int) -> list[np.ndarray]:
    """Return the fields of the `PaddedReading` for molecules with `sizes` (int64 [B]) atoms, none above `longest`."""
    count, every, ends = len(sizes), np.arange(longest)[:, None], sizes.cumsum()
    first = np.repeat(ends - sizes, sizes)
    forth = np.arange(len(first)) - first
    back = sizes.repeat(sizes) - 1 - forth
    within = np.minimum(every, sizes - 1)
    rows = np.stack([ends - sizes + within, ends - 1 - within]).reshape(2, -1)
    return [rows, np.stack([forth, back]) * count + np.arange(count).repeat(sizes)]


class BiGRU(nn.GRU):
    """One-layer bidirectional GRU; its parameters, their names and their initialisation are those of torch.nn.GRU."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True, bidirectional=True)

    def forward(  # type: ignore[override]
        self, x: Tensor, sizes: Tensor | None, h0: Tensor, order: Reading | PaddedReading | None = None
    ) -> Tensor:
        """Return the states of all atoms, float [N, 2 * hidden]: forward direction, then backward.

        Args:
            x: float [N, input], molecules one after the other.
            sizes: int64 [B] on the CPU, the number of atoms of each molecule; None with a `PaddedReading`.
            h0: float [B, hidden], the initial state of both directions.
            order: the `Reading` on the device, if it is there already; None: computed here.

        A device uses torch's own GRU, one call of cuDNN, which has no second derivatives.
        """
        weights = [getattr(self, name) for name in self._flat_weights_names]
        x, h0 = x.to(weights[0].dtype), h0.to(weights[0].dtype)  # autocast may have lowered them
        if isinstance(order, PaddedReading):
            return _padded(order, x, h0, weights)
        assert sizes is not None
        if not x.is_cpu:
            order = order or Reading(*to_device(reading(sizes.numpy()), x.device))
            return _on_device(sizes, order, x, h0, weights)
        if kernels.available(x):
            out: Tensor = _CompiledBiGRU.apply(sizes, x.contiguous(), h0.contiguous(), *weights)
        else:
            out = _BiGRU.apply(packing(sizes), x, h0, *weights)
        return out


def _on_device(sizes: Tensor, order: Reading, x: Tensor, h0: Tensor, weights: list[Tensor]) -> Tensor:
    """Run torch's GRU over packed sequences."""
    active = (sizes.unsqueeze(1) > torch.arange(int(sizes.max()))).sum(0)
    initial = take(h0, order.order).expand(2, -1, -1).contiguous()
    # cuDNN differentiates only in training mode; without dropout the mode changes nothing else.
    states, _ = torch._VF.gru(take(x, order.line), active, initial, weights, True, 1, 0.0, True, True)
    return take(states, order.place)


def _padded(order: PaddedReading, x: Tensor, h0: Tensor, weights: list[Tensor]) -> Tensor:
    """Run torch's GRU once for each direction, over molecules of one size."""
    states = []
    for rows, place, own in zip(order.rows, order.place, (weights[:4], weights[4:]), strict=True):
        read, initial = take(x, rows).view(-1, *h0.shape[:1], x.shape[1]), h0.unsqueeze(0)
        found, _ = torch._VF.gru(read, initial, own, True, 1, 0.0, True, False, False)
        states.append(take(found.flatten(0, 1), place))
    return torch.cat(states, dim=1)


class _BiGRU(torch.autograd.Function):
    """Weights are in torch's order: W, U, b, c forward, then the same backward; gates r, z, n.

    `gates` has r, z and the part U h + c of n. `n` is separate and starts as twice its argument, because
    tanh(x) = 2 sigmoid(2 x) - 1 takes a third of the time of torch's tanh on a CPU.
    """

    @staticmethod
    def forward(ctx, p: Packing, x: Tensor, h0: Tensor, *weights: Tensor) -> Tensor:
        atoms, (batch, d) = len(x), h0.shape
        gates, n = x.new_empty(atoms, 2, 3 * d), x.new_empty(atoms, 2, d)
        for k, (W, _, b, c) in enumerate((weights[:4], weights[4:])):
            torch.addmm(b[: 2 * d] + c[: 2 * d], x, W[: 2 * d].t(), out=gates[:, k, : 2 * d])
            torch.addmm(b[2 * d :], x, W[2 * d :].t(), beta=2, alpha=2, out=n[:, k])
            gates[:, k, 2 * d :] = c[2 * d :]
        gates, n = gates.view(-1, 3 * d).index_select(0, p.line), n.view(-1, d).index_select(0, p.line)
        states = x.new_empty(2 * (batch + atoms), d)
        states[: 2 * batch].view(2, batch, d).copy_(h0.index_select(0, p.order))
        U = torch.stack([weights[1], weights[5]])
        _run(p, gates, n, states, U)
        ctx.packing = p
        ctx.save_for_backward(x, h0, *weights, gates, n, states, U)
        return states[2 * batch :].index_select(0, p.row).view(atoms, 2 * d)

    @staticmethod
    def backward(ctx, grad):
        x, h0, *weights, gates, n, states, U = ctx.saved_tensors
        p = ctx.packing
        if torch.is_grad_enabled():
            return None, *replay(lambda *inputs: _plain(p, *inputs), [x, h0, *weights], grad)
        atoms, (batch, d) = len(x), h0.shape
        start = states.index_select(0, p.start)
        slopes, by_n = _slopes(gates, n, start)
        carry = torch.cat([grad.new_zeros(2 * batch, d), grad.reshape(-1, d).index_select(0, p.line)])
        _run_back(p, slopes, gates, carry, U)
        by_n *= carry[2 * batch :]
        slopes = slopes.index_select(0, p.row).view(atoms, 2, -1)  # in place of the old one, to save memory
        start = start.index_select(0, p.row).view(atoms, 2, d)
        by_n = by_n.index_select(0, p.row).view(atoms, 2, d)
        by_x = torch.zeros_like(x)
        found: list[Tensor] = []
        for k, W in enumerate((weights[0], weights[4])):
            by_x.addmm_(slopes[:, k, : 2 * d], W[: 2 * d]).addmm_(by_n[:, k], W[2 * d :])
            found += _weight_gradients(slopes[:, k], by_n[:, k], x, start[:, k])
        return None, by_x, carry[: 2 * batch].view(2, batch, d).sum(0).index_select(0, p.rank), *found


def _run(p: Packing, gates: Tensor, n: Tensor, states: Tensor, U: Tensor) -> None:
    """Run the recurrence: complete `gates` and `n`, which start as the input projections, and `states` in place.

    U: [2, 3d, d].
    """
    d, batch = n.shape[1], len(p.order)
    minus_one = n.new_tensor(-1)
    h = states[: 2 * batch].view(2, batch, d)
    blocks = (p.blocks(t) for t in (gates, n, states[2 * batch :]))
    for active, gate, new, state in zip(p.active, *blocks, strict=True):
        h = h[:, :active]
        gate.baddbmm_(h, U.mT)
        r, z, hidden = gate.view(2, active, 3, d).unbind(2)
        gate[..., : 2 * d].sigmoid_()
        new.addcmul_(r, hidden, value=2).sigmoid_()
        torch.add(minus_one, new, alpha=2, out=new)
        h = torch.lerp(new, h, z, out=state)


def _slopes(gates: Tensor, n: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return the derivatives of h' with respect to the gates.

    First those by the arguments of r and z and by the part U h + c of n, [2N, 3d]; then those by the argument of n,
    [2N, d].
    """
    slopes = torch.empty_like(gates)
    r, z, hidden = gates.view(len(gates), 3, -1).unbind(1)
    by_r, by_z, by_hidden = slopes.view(len(gates), 3, -1).unbind(1)
    rest = 1 - z
    by_n = torch.addcmul(rest, rest * n, n, value=-1)
    torch.sub(start, n, out=by_z).mul_(z).mul_(rest)
    torch.mul(by_n, r, out=by_hidden)
    torch.sub(1, r, out=by_r).mul_(hidden).mul_(by_hidden)
    return slopes, by_n


def _run_back(p: Packing, slopes: Tensor, gates: Tensor, carry: Tensor, U: Tensor) -> None:
    """Go backward in time: turn `slopes` into gradients, and `carry`, the outputs' gradients, into all states'."""
    d, batch = carry.shape[1], len(p.order)
    scratch = carry.new_empty(2 * batch * d)
    grads = [carry[: 2 * batch].view(2, batch, d), *p.blocks(carry[2 * batch :])]
    blocks = zip(p.active, p.blocks(slopes), p.blocks(gates), grads, grads[1:], strict=False)
    for active, slope, gate, before, grad in reversed(list(blocks)):
        quarters = slope.view(2, active, 3, d)
        torch.mul(grad.unsqueeze(2), quarters, out=quarters)
        # The batched product is fast only if its result is contiguous.
        product = scratch[: 2 * active * d].view(2, active, d)
        torch.bmm(slope, U, out=product)
        product.addcmul_(grad, gate[..., d : 2 * d])
        before[:, :active].add_(product)


def _weight_gradients(slopes: Tensor, by_n: Tensor, x: Tensor, h: Tensor) -> list[Tensor]:
    """Return the gradients of one direction's W, U, b and c from the rows of its lines."""
    d = h.shape[1]
    gW = x.new_empty(3 * d, x.shape[1])
    torch.mm(slopes[:, : 2 * d].t(), x, out=gW[: 2 * d])
    torch.mm(by_n.t(), x, out=gW[2 * d :])
    sums = slopes.sum(0)
    return [gW, slopes.t() @ h, torch.cat([sums[: 2 * d], by_n.sum(0)]), sums]


class _CompiledBiGRU(torch.autograd.Function):
    """The same with the recurrence in C (c/layers/gru.c); the lines stay in the atoms' order and nothing is packed."""

    @staticmethod
    def forward(ctx, sizes: Tensor, x: Tensor, h0: Tensor, *weights: Tensor) -> Tensor:
        atoms, (batch, d) = len(x), h0.shape
        gates = x.new_empty(atoms, 2, 3 * d)
        hidden, states = x.new_empty(2, atoms, 2 * d)
        for k, (W, _, b, c) in enumerate((weights[:4], weights[4:])):
            torch.addmm(torch.cat([b[: 2 * d] + c[: 2 * d], b[2 * d :]]), x, W.t(), out=gates[:, k])
        bias = torch.cat([weights[3][2 * d :], weights[7][2 * d :]])
        offsets = F.pad(sizes.cumsum(0), (1, 0))
        given = {"molecules": batch, "d": d, "offsets": offsets, "U": weights[1], "U_back": weights[5], "h0": h0}
        kernels.call("gru", x.dtype, **given, bias=bias, gates=gates, hidden=hidden, states=states)
        ctx.save_for_backward(sizes, x, h0, *weights, offsets, gates, hidden, states)
        return states

    @staticmethod
    def backward(ctx, grad):
        sizes, x, h0, *weights, offsets, gates, hidden, states = ctx.saved_tensors
        if torch.is_grad_enabled():
            return None, *replay(lambda *inputs: _plain(packing(sizes), *inputs), [x, h0, *weights], grad)
        atoms, (batch, d) = len(x), h0.shape
        slopes, by_hidden, previous = (torch.empty_like(t) for t in (gates, hidden, states))
        carry = grad.new_zeros(batch, 2, d)
        given = {"molecules": batch, "d": d, "offsets": offsets, "U": weights[1], "U_back": weights[5], "h0": h0}
        saved = {"gates": gates, "hidden": hidden, "states": states, "grad": grad.contiguous()}
        found_here = {"slopes": slopes, "by_hidden": by_hidden, "previous": previous, "carry": carry}
        kernels.call("gru_backward", x.dtype, **given, **saved, **found_here)
        by_x = torch.zeros_like(x)
        found: list[Tensor] = []
        for k, W in enumerate((weights[0], weights[4])):
            a, n, h = slopes[:, k], by_hidden.view(atoms, 2, d)[:, k], previous.view(atoms, 2, d)[:, k]
            by_x.addmm_(a, W)
            gU = x.new_empty(3 * d, d)
            torch.mm(a[:, : 2 * d].t(), h, out=gU[: 2 * d])
            torch.mm(n.t(), h, out=gU[2 * d :])
            sums = a.sum(0)
            found += [a.t() @ x, gU, sums, torch.cat([sums[: 2 * d], n.sum(0)])]
        return None, by_x, carry.sum(1), *found


def _plain(p: Packing, x: Tensor, h0: Tensor, *weights: Tensor) -> Tensor:
    """Compute the same function in steps that autograd can differentiate."""
    d = h0.shape[1]
    W, U, b, c = (torch.stack(pair) for pair in zip(weights[:4], weights[4:], strict=True))
    inputs = torch.addmm(b.view(-1), x, W.flatten(0, 1).t()).view(-1, 3 * d).index_select(0, p.line)
    h = h0.index_select(0, p.order).expand(2, -1, -1)
    states = []
    for active, gates in zip(p.active, p.blocks(inputs), strict=True):
        h = h[:, :active]
        hidden = torch.baddbmm(c.unsqueeze(1), h, U.transpose(1, 2))
        r, z = (gates[..., : 2 * d] + hidden[..., : 2 * d]).sigmoid().chunk(2, dim=2)
        n = (gates[..., 2 * d :] + r * hidden[..., 2 * d :]).tanh()
        h = torch.lerp(n, h, z)
        states.append(h.flatten(0, 1))
    return torch.cat(states).index_select(0, p.row).view(len(x), 2 * d)
