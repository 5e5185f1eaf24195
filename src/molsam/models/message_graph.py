"""The atoms and bonds that CMPNN and DMPNN compute in each message step, and the sums over bonds.

After t messages the state of a bond (or atom) depends only on what lies within t bonds of it. Many bonds of a batch
have equal surroundings, so each distinct state is computed once. In 50 molecules of ESOL that leaves 34 % of the bonds
after the first message, 62 % after the second, and 75 % of the atoms at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from molsam.data.batch import LOOPS, MoleculeBatch
from molsam.data.states import BatchColours, ranges, to_device
from molsam.errors import DataError
from molsam.models.layers import segment
from molsam.models.layers.fused import replay
from molsam.native import kernels


class Atoms(NamedTuple):
    """The n atoms of a step."""

    before: Tensor
    """int64 [n], their row a step earlier; in the first step, their row in the batch's table of atoms"""
    rows: Tensor
    """int64, the entering bonds of each atom, one atom after the other"""
    offsets: Tensor
    """int64 [n + 1], where each atom's entries of `rows` begin"""
    owner: Tensor
    """int64, the atom of each entry of `rows`"""


class Bonds(NamedTuple):
    """The e bonds of a step."""

    src: Tensor
    """int64 [e], row of the source among the step's atoms"""
    rev: Tensor
    """int64 [e], row of the reverse among the bonds a step earlier"""
    start: Tensor
    """int64 [e], row among the first bonds"""


class MessageGraph(NamedTuple):
    """The atoms and bonds of each message step, and the atoms after the last message."""

    source: Tensor
    """int64, of each first bond the row of its source in the batch's table of atoms"""
    type: Tensor
    """int64, of each first bond its row in the batch's table of bonds"""
    atoms: list[Atoms]
    bonds: list[Bonds]
    kind: Tensor
    """int64 [n], of each last atom its row in the batch's table of atoms"""
    place: Tensor
    """int64 [N], of each atom of the batch its row among the last atoms"""
    also: tuple[Tensor, ...] = ()
    """the arrays given as `also`, on the batch's device"""

    @classmethod
    def of(
        cls,
        batch: MoleculeBatch,
        messages: int,
        *,
        apart: bool = False,
        merged: bool = True,
        also: Sequence[np.ndarray] = (),
    ) -> MessageGraph:
        """Return the steps of a batch without self loops.

        Args:
            batch: a batch; without colours, no states are merged.
            messages: number of messages.
            apart: do not merge states after the first message (dropout makes them differ).
            merged: False: merge no states at all; rows are then the batch's own.
            also: arrays int64 [.] to be sent to the device in the same copy.

        Raises DataError for a batch with self loops.
        """
        if batch.self_loops:
            raise DataError(LOOPS)
        if merged and batch.colours is not None:
            return cls._merged(batch.colours, messages, apart, batch.src.device, also)
        every_atom, every_bond = (torch.arange(n, device=batch.src.device) for n in (batch.n_atoms, len(batch.src)))
        entered, order = batch.dst.sort(stable=True)
        lists = order, batch.neighbour_offsets, entered
        atoms = [Atoms(every_atom if step else batch.node_type, *lists) for step in range(messages + 1)]
        bonds = [Bonds(batch.src, batch.rev, every_bond)] * messages
        sent = tuple(to_device(list(also), batch.src.device)) if also else ()
        return cls(batch.node_type[batch.src], batch.edge_type, atoms, bonds, batch.node_type, every_atom, sent)

    @classmethod
    def _merged(
        cls, colours: BatchColours, messages: int, apart: bool, device: torch.device, also: Sequence[np.ndarray]
    ) -> MessageGraph:
        src, _, types, entering = (column.numpy() for column in colours.columns())
        starts, node_type = colours.offsets, colours.node_type
        counts = np.diff(starts)
        every_atom, every_bond = np.arange(len(counts)), np.arange(len(src))
        chosen, bond = colours.classes(colours.of_bonds("messages", 0))
        """a bond of each state, and of every bond the row of its state"""
        first, place, made = bond, node_type, [node_type[src[chosen]], types[chosen]]
        for step in range(messages + 1):
            before, together = place, step == 0 or not apart
            chosen, place = every_atom, every_atom
            if together:
                chosen, place = colours.classes(colours.of_atoms("messages", step + 1))
            lists, offsets = ranges(starts.take(chosen), counts.take(chosen))
            owner = np.arange(len(chosen)).repeat(counts.take(chosen))
            made += [before.take(chosen), bond.take(entering.take(lists)), offsets, owner]
            if step < messages:
                kept, new = every_bond, every_bond
                if not apart:
                    kept, new = colours.classes(colours.of_bonds("messages", step + 1))
                made += [place.take(src.take(kept)), bond.take(kept ^ 1), first.take(kept)]
                bond = new
        tensors = to_device([*made, node_type.take(chosen), place, *also], device)
        source, kinds, *steps, kind, last = tensors[: len(tensors) - len(also)]
        atoms = [Atoms(*steps[start : start + 4]) for start in range(0, len(steps), 7)]
        bonds = [Bonds(*steps[start + 4 : start + 7]) for start in range(0, len(steps) - 4, 7)]
        return cls(source, kinds, atoms, bonds, kind, last, tuple(tensors[len(tensors) - len(also) :]))


def sum_times_max(hidden: Tensor, atoms: Atoms, full: int, x: Tensor | None = None) -> Tensor:
    """Return, per atom, (sum of its bonds' rows) * (their element-wise maximum) plus its row of x; float [n, d].

    hidden: float [bonds, d]; x: the atoms a step earlier, float [n', d], or None. The product is 0 for an atom without
    bonds. For an atom with fewer than `full` bonds the maximum includes 0.
    """
    if kernels.available(hidden):
        out: Tensor = _SumTimesMax.apply(hidden, x, atoms, full)
        return out
    return _plain_sum_times_max(hidden, x, atoms, full)


def sum_entering(hidden: Tensor, atoms: Atoms) -> Tensor:
    """Return the sum of each atom's bonds' rows, [n, d]; hidden: float [bonds, d]."""
    if kernels.available(hidden):
        out: Tensor = _Sum.apply(hidden, atoms)
        return out
    return _plain_sum(hidden, atoms)


def turn(atoms: Tensor, bonds: Tensor, step: Bonds) -> Tensor:
    """Return atoms[source] - bonds[reverse], float [e, d]."""
    if kernels.available(atoms):
        out: Tensor = _Turn.apply(atoms, bonds, step)
        return out
    return _plain_turn(atoms, bonds, step)


def take(x: Tensor, rows: Tensor) -> Tensor:
    """Return x[rows], float [n, d]; a row may be taken more than once."""
    if kernels.available(x):
        out: Tensor = _Take.apply(x, rows)
        return out
    return segment.take(x, rows)


class _SumTimesMax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, x: Tensor | None, atoms: Atoms, full: int) -> Tensor:
        n, d = len(atoms.before), hidden.shape[1]
        hidden = hidden.contiguous()
        total, most, out = hidden.new_empty(3, n, d)
        added = {"before": None, "x": None} if x is None else {"before": atoms.before, "x": x.contiguous()}
        lists = {"n": n, "d": d, "full": full, "rows": atoms.rows, "offsets": atoms.offsets, "hidden": hidden}
        kernels.call("sum_times_max", hidden.dtype, **lists, **added, total=total, most=most, out=out)
        ctx.atoms, ctx.full = atoms, full
        ctx.save_for_backward(hidden, x, total, most)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        hidden, x, total, most = ctx.saved_tensors
        atoms = ctx.atoms
        if torch.is_grad_enabled():
            found = replay(lambda h, y: _plain_sum_times_max(h, y, atoms, ctx.full), (hidden, x), grad)
            return *found, None, None
        by_hidden, by_x = (
            torch.zeros_like(hidden, **_CONTIGUOUS),
            None if x is None else torch.zeros_like(x, **_CONTIGUOUS),
        )
        n, d = grad.shape
        lists = {
            "n": n,
            "d": d,
            "rows": atoms.rows,
            "offsets": atoms.offsets,
            "before": None if x is None else atoms.before,
        }
        given = {"hidden": hidden, "total": total, "most": most, "grad": grad.contiguous()}
        kernels.call("sum_times_max_backward", grad.dtype, **lists, **given, by_hidden=by_hidden, by_x=by_x)
        return by_hidden, by_x, None, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, atoms: Atoms) -> Tensor:
        ctx.atoms = atoms
        ctx.save_for_backward(hidden)
        out = hidden.new_empty(len(atoms.before), hidden.shape[1])
        kernels.call("sum_entering", out.dtype, *out.shape, atoms.rows, atoms.offsets, hidden.contiguous(), out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (hidden,), atoms = ctx.saved_tensors, ctx.atoms
        if torch.is_grad_enabled():
            return *replay(lambda h: _plain_sum(h, atoms), (hidden,), grad), None
        by_hidden = torch.zeros_like(hidden, **_CONTIGUOUS)
        lists = atoms.rows, atoms.offsets
        kernels.call("sum_entering_backward", grad.dtype, *grad.shape, *lists, grad.contiguous(), by_hidden)
        return by_hidden, None


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, atoms: Tensor, bonds: Tensor, step: Bonds) -> Tensor:
        ctx.step = step
        ctx.save_for_backward(atoms, bonds)
        out = atoms.new_empty(len(step.src), atoms.shape[1])
        kernels.call("turn", out.dtype, *out.shape, step.src, step.rev, atoms.contiguous(), bonds.contiguous(), out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        atoms, bonds = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *replay(lambda a, b: _plain_turn(a, b, ctx.step), (atoms, bonds), grad), None
        found = torch.zeros_like(atoms, **_CONTIGUOUS), torch.zeros_like(bonds, **_CONTIGUOUS)
        kernels.call("turn_backward", grad.dtype, *grad.shape, ctx.step.src, ctx.step.rev, grad.contiguous(), *found)
        return *found, None


class _Take(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(x, rows)
        return x.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, rows = ctx.saved_tensors
        if torch.is_grad_enabled():
            return *replay(lambda y: y[rows], (x,), grad), None
        by_x = torch.zeros_like(x, **_CONTIGUOUS)
        kernels.call("add_rows", grad.dtype, *grad.shape, rows, grad.contiguous(), by_x)
        return by_x, None


_CONTIGUOUS: dict[str, Any] = {"memory_format": torch.contiguous_format}


def _plain_turn(atoms: Tensor, bonds: Tensor, step: Bonds) -> Tensor:
    return segment.take(atoms, step.src) - segment.take(bonds, step.rev)


def _plain_sum(hidden: Tensor, atoms: Atoms) -> Tensor:
    return segment.segment_sum(segment.take(hidden, atoms.rows), atoms.owner, len(atoms.before))


def _plain_sum_times_max(hidden: Tensor, x: Tensor | None, atoms: Atoms, full: int) -> Tensor:
    rows, n = segment.take(hidden, atoms.rows), len(atoms.before)
    most = segment.segment_max(rows, atoms.owner, n)
    if full:
        most = torch.where((atoms.offsets.diff() < full).unsqueeze(1), most.clamp(min=0), most)
    out = segment.segment_sum(rows, atoms.owner, n) * most
    return out if x is None else out + segment.take(x, atoms.before)
