"""Reductions over the bonds that enter an atom, without scattering.

Atoms are sorted by decreasing number of bonds, and bonds by their number within the atom they enter (their
slot), then by atom. So the k-th bonds of all atoms that have one are consecutive rows, which belong to the first
atoms: a sum or maximum is a few operations on slices, one per slot.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from molsam import kernels
from molsam.data.batch import MoleculeBatch
from molsam.models.layers.fused import replay

NO_BOND = 255
"""the winning slot of a maximum that no bond gives"""


class Slots(NamedTuple):
    """The sorted order of N atoms and E directed bonds."""

    atom: Tensor
    """int64 [N], the atom at each place"""
    place: Tensor
    """int64 [N], the inverse"""
    bond: Tensor
    """int64 [E], the bond in each row"""
    src: Tensor
    """int64 [E], place of the atom that the bond in each row leaves"""
    rev: Tensor
    """int64 [E], row of the reverse bond"""
    first: Tensor
    """int64 [slots], the first row of each slot"""
    active: Tensor
    """int64 [slots], the number of atoms that have it"""

    @property
    def steps(self) -> list[tuple[int, int]]:
        """Per slot (first row, number of atoms that have it)."""
        return list(zip(self.first.tolist(), self.active.tolist(), strict=True))


def bond_slots(batch: MoleculeBatch) -> Slots:
    """The sorted order of a batch without self loops."""
    n_atoms, n_bonds, device = batch.n_atoms, len(batch.dst), batch.dst.device
    degree = torch.bincount(batch.dst, minlength=n_atoms)
    atom = torch.argsort(degree, descending=True, stable=True)
    place = _inverse(atom)
    by_atom = torch.argsort(batch.dst, stable=True)
    start = degree.cumsum(0) - degree
    slot = torch.arange(n_bonds, device=device)[_inverse(by_atom)] - start[batch.dst]
    active = torch.bincount(slot)
    first = active.cumsum(0) - active
    row = first[slot] + place[batch.dst]
    bond = _inverse(row)
    return Slots(atom, place, bond, place[batch.src[bond]], row[batch.rev[bond]], first, active)


def sum_times_max(hidden: Tensor, slots: Slots, *, padded: bool) -> Tensor:
    """Per atom, (sum of its bonds' rows) * (their element-wise maximum); zeros for an atom without bonds.

    hidden: float [E, d], in the order of `slots`; so is the result, [N, d]. padded: the maximum of an atom with
    fewer bonds than another atom of the batch includes 0.
    """
    function = _CompiledSumTimesMax if kernels.available(hidden) else _SumTimesMax
    out: Tensor = function.apply(hidden, slots, padded)
    return out


def turn(atoms: Tensor, bonds: Tensor, slots: Slots) -> Tensor:
    """atoms[source] - bonds[reverse], float [E, d]."""
    out: Tensor = _Turn.apply(atoms, bonds, slots)
    return out


def at_sources(atoms: Tensor, slots: Slots) -> Tensor:
    """atoms[source], float [E, d]."""
    out: Tensor = _AtSources.apply(atoms, slots)
    return out


class _CompiledSumTimesMax(torch.autograd.Function):
    """sum_times_max in C (c/bonds.c), atom by atom."""

    @staticmethod
    def forward(ctx, hidden: Tensor, slots: Slots, padded: bool) -> Tensor:
        hidden = hidden.contiguous()
        n, d = len(slots.atom), hidden.shape[1]
        total, most, out = hidden.new_empty(3, n, d)
        lists = n, d, len(slots.first), slots.first, slots.active
        kernels.call("sum_times_max", hidden.dtype, *lists, int(padded), hidden, total, most, out)
        ctx.slots, ctx.padded, ctx.lists = slots, padded, lists
        ctx.save_for_backward(hidden, total, most)
        return out

    @staticmethod
    def backward(ctx, grad):
        hidden, total, most = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *replay(lambda h: _plain_sum_times_max(h, ctx.slots, ctx.padded), (hidden,), grad), None, None
        by_hidden = torch.empty_like(hidden)
        given = hidden, total, most, grad.contiguous()
        kernels.call("sum_times_max_backward", hidden.dtype, *ctx.lists, *given, by_hidden)
        return by_hidden, None, None


class _SumTimesMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden: Tensor, slots: Slots, padded: bool) -> Tensor:
        total = hidden.new_zeros(len(slots.atom), hidden.shape[1])
        most = torch.zeros_like(total)
        winner = torch.full_like(total, NO_BOND, dtype=torch.uint8)
        for k, (first, active) in enumerate(slots.steps):
            rows = hidden[first : first + active]
            total[:active] += rows
            if k:
                better = rows > most[:active]
                torch.maximum(rows, most[:active], out=most[:active])
                winner[:active].masked_fill_(better, k)
            else:
                most[:active], winner[:active] = rows, 0
        if padded and slots.steps:
            rest = slice(slots.steps[-1][1], None)
            winner[rest].masked_fill_(most[rest] < 0, NO_BOND)
            most[rest].clamp_(min=0)
        ctx.slots, ctx.padded = slots, padded
        ctx.save_for_backward(hidden, total, most, winner)
        return total * most

    @staticmethod
    def backward(ctx, grad):
        hidden, total, most, winner = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *replay(lambda h: _plain_sum_times_max(h, ctx.slots, ctx.padded), (hidden,), grad), None, None
        by_total, by_most, by_hidden = grad * most, grad * total, torch.empty_like(hidden)
        for k, (first, active) in enumerate(ctx.slots.steps):
            rows = by_hidden[first : first + active]
            torch.mul(by_most[:active], winner[:active] == k, out=rows)
            rows += by_total[:active]
        return by_hidden, None, None


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, atoms: Tensor, bonds: Tensor, slots: Slots) -> Tensor:
        ctx.slots = slots
        ctx.save_for_backward(atoms, bonds)
        if kernels.available(atoms):
            out = torch.empty_like(bonds, memory_format=torch.contiguous_format)
            sides = atoms.contiguous(), bonds.contiguous()
            kernels.call("turn", atoms.dtype, *out.shape, slots.src, slots.rev, *sides, out)
            return out
        return atoms.index_select(0, slots.src).sub_(bonds.index_select(0, slots.rev))

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            return *replay(lambda a, b: a[ctx.slots.src] - b[ctx.slots.rev], ctx.saved_tensors, grad), None
        if kernels.available(grad):
            slots, (n, d) = ctx.slots, (len(ctx.slots.atom), grad.shape[1])
            by_atoms, by_bonds = grad.new_zeros(n, d), torch.empty_like(grad, memory_format=torch.contiguous_format)
            lists = n, d, len(slots.first), slots.first, slots.active, slots.rev
            kernels.call("turn_backward", grad.dtype, *lists, grad.contiguous(), by_atoms, by_bonds)
            return by_atoms, by_bonds, None
        back = grad.index_select(0, ctx.slots.rev)
        return _sum_rows(back, ctx.slots), back.neg_(), None


class _AtSources(torch.autograd.Function):
    @staticmethod
    def forward(ctx, atoms: Tensor, slots: Slots) -> Tensor:
        ctx.slots = slots
        ctx.save_for_backward(atoms)
        return atoms.index_select(0, slots.src)

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            return *replay(lambda a: a[ctx.slots.src], ctx.saved_tensors, grad), None
        return _sum_rows(grad.index_select(0, ctx.slots.rev), ctx.slots), None


def _sum_rows(rows: Tensor, slots: Slots) -> Tensor:
    total = rows.new_zeros(len(slots.atom), rows.shape[1])
    for first, active in slots.steps:
        total[:active] += rows[first : first + active]
    return total


def _plain_sum_times_max(hidden: Tensor, slots: Slots, padded: bool) -> Tensor:
    places = torch.cat([torch.arange(active, device=hidden.device) for _, active in slots.steps])
    total = hidden.new_zeros(len(slots.atom), hidden.shape[1])
    index = places.unsqueeze(1).expand_as(hidden)
    most = total.scatter_reduce(0, index, hidden, "amax", include_self=False)
    if padded:
        full = slots.steps[-1][1]
        most = torch.cat([most[:full], most[full:].clamp(min=0)])
    return total.index_add(0, places, hidden) * most


def _inverse(permutation: Tensor) -> Tensor:
    every = torch.arange(len(permutation), device=permutation.device)
    return torch.empty_like(permutation).index_copy_(0, permutation, every)
