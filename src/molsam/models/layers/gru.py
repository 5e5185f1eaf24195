"""A bidirectional GRU over molecules of different sizes, without padding.

Cho et al., EMNLP 2014, in torch's form: r, z = sigmoid(W x + b + U h + c); n = tanh(W x + b + r (U h + c));
h' = (1 - z) n + z h.

Both directions run together, step t over all molecules with more than t atoms: molecules are sorted by
decreasing size, so the active ones are always the first, and the products shrink as molecules end. Rows in this
order are called packed here. What does not depend on the previous step (input projections, weight gradients,
derivatives of the gates) is done for all atoms at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from molsam.models.layers.fused import replay


class Packing(NamedTuple):
    """Where the rows of B molecules with N atoms lie in the packed order; index 0 is forward, 1 backward."""

    atom: Tensor
    """int64 [2, N], the atom of each packed row"""
    row: Tensor
    """int64 [2, N], the packed row of each atom"""
    state: Tensor
    """int64 [N], for each packed row the state it starts from: B initial ones, then the packed rows"""
    order: Tensor
    """int64 [B], molecules by decreasing size"""
    rank: Tensor
    """int64 [B], place of each molecule in `order`"""
    steps: list[tuple[int, int]]
    """per step (first packed row, number of active molecules)"""


def packing(sizes: Tensor) -> Packing:
    """The packed order of molecules with `sizes` (int64 [B]) atoms each."""
    order = torch.argsort(sizes, descending=True, stable=True)
    rank = torch.empty_like(order).index_copy_(0, order, torch.arange(len(order), device=sizes.device))
    ends = sizes.cumsum(0)
    total = int(ends[-1])
    position = torch.arange(total, device=sizes.device) - (ends - sizes).repeat_interleave(sizes)
    active = torch.bincount(position)
    starts = active.cumsum(0) - active
    backward = sizes.repeat_interleave(sizes) - 1 - position
    row = starts[torch.stack([position, backward])] + rank.repeat_interleave(sizes)
    atom = torch.empty_like(row).scatter_(1, row, torch.arange(total, device=sizes.device).expand(2, -1))
    before = torch.cat([active.new_tensor([len(sizes)]), active[:-1]])
    state = len(sizes) + torch.arange(total, device=sizes.device) - before.repeat_interleave(active)
    return Packing(atom, row, state, order, rank, list(zip(starts.tolist(), active.tolist(), strict=True)))


class BiGRU(nn.GRU):
    """One-layer bidirectional GRU; parameters, their names and initialisation are torch.nn.GRU's."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor, sizes: Tensor, h0: Tensor) -> Tensor:  # type: ignore[override]
        """States of all atoms, float [N, 2 hidden]: forward direction, then backward.

        x: float [N, input], molecules one after the other; sizes: int64 [B], their numbers of atoms;
        h0: float [B, hidden], the initial state of both directions.
        """
        weights = [getattr(self, name) for name in self._flat_weights_names]
        x, h0 = x.to(weights[0].dtype), h0.to(weights[0].dtype)  # autocast may have lowered them
        out: Tensor = _BiGRU.apply(packing(sizes), x, h0, *weights)
        return out


class _BiGRU(torch.autograd.Function):
    """Weights come as torch orders them: W, U, b, c forward, then the same backward; gates r, z, n."""

    @staticmethod
    def forward(ctx, p: Packing, x: Tensor, h0: Tensor, *weights: Tensor) -> Tensor:
        d, batch = h0.shape[1], len(h0)
        packed = x.index_select(0, p.atom.view(-1)).view(2, len(x), -1)
        gates = x.new_empty(2, len(x), 4 * d)  # r, z, U h + c of n, n
        for k, (W, _, b, c) in enumerate((weights[:4], weights[4:])):
            torch.addmm(b[: 2 * d] + c[: 2 * d], packed[k], W[: 2 * d].t(), out=gates[k, :, : 2 * d])
            gates[k, :, 2 * d : 3 * d] = c[2 * d :]
            torch.addmm(b[2 * d :], packed[k], W[2 * d :].t(), out=gates[k, :, 3 * d :])
        states = x.new_empty(2, batch + len(x), d)
        states[:, :batch] = h0.index_select(0, p.order)
        _run(p, gates, states, torch.stack([weights[1].t(), weights[5].t()]))
        ctx.packing = p
        ctx.save_for_backward(x, h0, *weights, packed, gates, states)
        return _by_atom(p, states[:, batch:]).view(len(x), 2 * d)

    @staticmethod
    def backward(ctx, grad):
        x, h0, *weights, packed, gates, states = ctx.saved_tensors
        p = ctx.packing
        if torch.is_grad_enabled():
            return None, *replay(lambda *inputs: _plain(p, *inputs), [x, h0, *weights], grad)
        d, batch = h0.shape[1], len(h0)
        start = states.index_select(1, p.state)
        slopes = _slopes(gates, start)
        carry = grad.new_zeros(2, batch + len(x), d)
        flat = 2 * p.atom + p.atom.new_tensor([[0], [1]])
        carry[:, batch:] = grad.reshape(-1, d).index_select(0, flat.view(-1)).view(2, len(x), d)
        _run_back(p, slopes, gates, carry, torch.stack([weights[1], weights[5]]))
        gx = torch.empty_like(packed)
        found: list[Tensor] = []
        for k, W in enumerate((weights[0], weights[4])):
            found += _weight_gradients(slopes[k], packed[k], start[k])
            torch.mm(slopes[k, :, : 2 * d], W[: 2 * d], out=gx[k])
            gx[k].addmm_(slopes[k, :, 3 * d :], W[2 * d :])
        gx = gx[0].index_select(0, p.row[0]) + gx[1].index_select(0, p.row[1])
        return None, gx, carry[:, :batch].sum(0).index_select(0, p.rank), *found


def _run(p: Packing, gates: Tensor, states: Tensor, U: Tensor) -> None:
    """The recurrence: completes `gates` (holding the input projections) and `states` in place. U: [2, d, 3d]."""
    d, batch, previous = states.shape[2], states.shape[1] - gates.shape[1], 0
    scratch = gates.new_empty(2 * batch * 3 * d)
    for first, active in p.steps:
        step = gates[:, first : first + active]
        h = states[:, previous : previous + active]
        # The batched product is fast for a contiguous result only.
        product = scratch[: 2 * active * 3 * d].view(2, active, 3 * d)
        torch.bmm(h, U, out=product)
        step[..., : 3 * d].add_(product)
        step[..., : 2 * d].sigmoid_()
        n = step[..., 3 * d :]
        n.addcmul_(step[..., :d], step[..., 2 * d : 3 * d])
        n.mul_(2).sigmoid_().mul_(2).sub_(1)  # tanh, several times faster than torch's on a CPU
        previous = batch + first
        torch.lerp(n, h, step[..., d : 2 * d], out=states[:, previous : previous + active])


def _slopes(gates: Tensor, start: Tensor) -> Tensor:
    """Derivatives of h' by the arguments of r and z, by U h + c of n, and by the argument of n, [2, N, 4d]."""
    r, z, hidden, n = gates.chunk(4, dim=2)
    slopes = torch.empty_like(gates)
    by_r, by_z, by_hidden, by_n = slopes.chunk(4, dim=2)
    rest = 1 - z
    torch.mul(n, n, out=by_n).neg_().add_(1).mul_(rest)
    torch.sub(start, n, out=by_z).mul_(z).mul_(rest)
    torch.mul(by_n, r, out=by_hidden)
    torch.sub(1, r, out=by_r).mul_(hidden).mul_(by_hidden)
    return slopes


def _run_back(p: Packing, slopes: Tensor, gates: Tensor, carry: Tensor, U: Tensor) -> None:
    """Backward in time: turns slopes into gradients, and carry (of the outputs) into those of all states."""
    d, batch = carry.shape[2], carry.shape[1] - gates.shape[1]
    scratch = carry.new_empty(2 * batch * d)
    for t in reversed(range(len(p.steps))):
        first, active = p.steps[t]
        previous = batch + p.steps[t - 1][0] if t else 0
        step = slopes[:, first : first + active]
        grad = carry[:, batch + first : batch + first + active]
        quarters = step.view(2, active, 4, d)
        torch.mul(grad.unsqueeze(2), quarters, out=quarters)
        product = scratch[: 2 * active * d].view(2, active, d)
        torch.bmm(step[..., : 3 * d], U, out=product)
        product.addcmul_(grad, gates[:, first : first + active, d : 2 * d])
        carry[:, previous : previous + active].add_(product)


def _weight_gradients(slopes: Tensor, x: Tensor, h: Tensor) -> list[Tensor]:
    """Gradients of one direction's W, U, b, c from its packed rows."""
    d = h.shape[1]
    gW = x.new_empty(3 * d, x.shape[1])
    torch.mm(slopes[:, : 2 * d].t(), x, out=gW[: 2 * d])
    torch.mm(slopes[:, 3 * d :].t(), x, out=gW[2 * d :])
    sums = slopes.sum(0)
    return [gW, slopes[:, : 3 * d].t() @ h, torch.cat([sums[: 2 * d], sums[3 * d :]]), sums[: 3 * d]]


def _by_atom(p: Packing, rows: Tensor) -> Tensor:
    """Packed rows [2, N, d] in the order of the atoms, [N, 2, d]."""
    return torch.stack([rows[k].index_select(0, p.row[k]) for k in range(2)], dim=1)


def _plain(p: Packing, x: Tensor, h0: Tensor, *weights: Tensor) -> Tensor:
    """The same function in differentiable steps."""
    d = h0.shape[1]
    W, U, b, c = (torch.stack(pair) for pair in zip(weights[:4], weights[4:], strict=True))
    inputs = torch.baddbmm(b.unsqueeze(1), x[p.atom], W.transpose(1, 2))
    h = h0.index_select(0, p.order).expand(2, -1, -1)
    states = []
    for first, active in p.steps:
        h = h[:, :active]
        gates, hidden = inputs[:, first : first + active], torch.baddbmm(c.unsqueeze(1), h, U.transpose(1, 2))
        r, z = (gates[..., : 2 * d] + hidden[..., : 2 * d]).sigmoid().chunk(2, dim=2)
        n = (gates[..., 2 * d :] + r * hidden[..., 2 * d :]).tanh()
        h = torch.lerp(n, h, z)
        states.append(h)
    return _by_atom(p, torch.cat(states, dim=1)).view(len(x), 2 * d)
