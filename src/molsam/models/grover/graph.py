"""The sums that GROVER takes: over neighbouring atoms, over bonds that lead to a bond, and over bonds that enter an
atom.

Equal states (molsam.data.states) are computed once. In a batch of 32 molecules of ESOL that leaves 55 % of the bonds
and 76 % of the atoms after 3 steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from molsam.data.batch import MoleculeBatch
from molsam.data.states import BatchColours, ranges, to_device
from molsam.models.layers.segment import take
from molsam.native import kernels


class Neighbours(NamedTuple):
    """Sums over lists of rows, y = S x, with the lists of S and of its transpose.

    y[t] = sum of x[rows[offsets[t] : offsets[t + 1]]] + missing[t] * x[-1].
    """

    rows: Tensor
    offsets: Tensor
    back: Tensor
    back_offsets: Tensor
    missing: Tensor | None = None
    """int64 [targets], how often the padding row (the last of x) is added; None without padding"""
    bounds: Tensor | None = None
    """int64 [chunks + 1], where each chunk of rows begins; a chunk sums only over its own rows; for C"""
    same: Tensor | None = None
    """int64 [steps, targets], for each row the first row with an equal state after one step, after two, ...; for C"""

    def after(self, steps: int) -> Neighbours:
        """Return the same sums for the steps that follow the first `steps`."""
        return self if self.same is None else self._replace(same=self.same[steps:])

    def sum(self, x: Tensor) -> Tensor:
        """Return the sums [targets, ...] of rows x [n, ...], differentiable any number of times."""
        total: Tensor = _Sum.apply(x, self, False)
        return total

    def gather(self, x: Tensor, transposed: bool = False) -> Tensor:
        """Return S x, or the transpose of S times x [targets, ...]; autograd does not record it."""
        rows, offsets = (self.back, self.back_offsets) if transposed else (self.rows, self.offsets)
        flat = x.flatten(1)
        total = torch.embedding_bag(flat, rows, offsets, include_last_offset=True)[0]
        if self.missing is not None:
            missing = self.missing.to(x.dtype)
            if transposed:
                total[-1] += missing @ flat
            else:
                total.addcmul_(missing.unsqueeze(1), flat[-1])
        return total.view(len(total), *x.shape[1:])


class LineSums(NamedTuple):
    """The sums over bonds that lead to a bond as differences: those that enter its source, less its reverse.

    The number of bonds fixes all sizes. With lists they would depend on the degrees of the atoms.
    """

    entering: Neighbours
    """from bonds to the atom that they enter"""
    source: Tensor
    """int64 [E], the atom that each bond leaves"""
    reverse: Tensor
    """int64 [E]"""

    def sum(self, x: Tensor) -> Tensor:
        """Return the sums [E, ...] of rows x [E, ...], differentiable any number of times."""
        rows = x.flatten(1)
        entering = take(self.entering.sum(rows), self.source)
        return (entering - take(rows, self.reverse)).view(x.shape)


class _Sum(torch.autograd.Function):
    """The backward pass is the sum over the transposed lists, so it can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, neighbours: Neighbours, transposed: bool) -> Tensor:
        ctx.neighbours, ctx.transposed = neighbours, transposed
        return neighbours.gather(x, transposed)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _Sum.apply(grads[0].contiguous(), ctx.neighbours, not ctx.transposed), None, None


class Neighbourhood(NamedTuple):
    """The sums that GROVER takes over a batch of N atoms and E directed bonds.

    Atoms (or bonds) with equal states form a class; there are n classes of atoms and e classes of bonds.

    With padding, each atom and bond is its own class, and there is one more atom and one more bond, the last rows. The
    reference gives every atom as many neighbours as the largest degree D of the batch and fills up with the padding
    row: row i adds D - degree(i) times the padding row. The padding row has only padding as neighbours.
    """

    atoms: Neighbours
    """from classes of neighbouring atoms to each class of atoms"""
    bonds: Neighbours
    """from classes of bonds that enter a bond's source, except its own reverse, to each class of bonds"""
    around: Neighbours
    """from classes of neighbouring atoms to each atom"""
    entering: Neighbours
    """from classes of bonds that enter an atom to each atom"""
    kinds: tuple[Tensor, Tensor, Tensor]
    """int64 [n], [e], [e]: rows of the batch's tables for each class: of its atom, of its bond's source, of its bond"""
    atom_rows: Tensor | None = None
    """int64 [n], an atom of each class; None if each atom is its own class"""
    bond_rows: Tensor | None = None
    """int64 [e], a bond of each class; None if each bond is its own class"""
    also: tuple[Tensor, ...] = ()
    """the arrays given as `also`, on the batch's device"""

    @classmethod
    def of(
        cls,
        batch: MoleculeBatch,
        padding: bool,
        steps: tuple[int, int] | None = None,
        also: Sequence[np.ndarray] = (),
    ) -> Neighbourhood:
        """Return the sums of a batch; those between bonds follow the line graph without backtracking.

        Args:
            batch: a batch; without colours, each row is its own class.
            padding: add the reference's padding row.
            steps: number of message steps between atoms and between bonds, after which the states of a class must
                still be equal; None: each row is its own class.
            also: arrays int64 [.] to be sent to the device in the same copy.
        """
        if steps and not padding and batch.colours is not None:
            return _in_classes(batch, batch.colours, max(steps[0], 1), max(steps[1], 1), also)
        src, dst, rev = batch.src, batch.dst, batch.rev
        every_bond = torch.arange(len(src) + 1, device=src.device)
        entering_dst, entering = dst.sort()
        offsets = torch.searchsorted(entering_dst, torch.arange(batch.n_atoms + 1, device=src.device))
        neighbour = src.index_select(0, entering)
        # For bond b: the lists of S at b, and those of its transpose at the reverse of b.
        lists, starts = _others(entering, offsets, torch.cat([src, dst]), but=torch.cat([rev, every_bond[:-1]]))
        before_offsets, after_offsets = starts[: len(src) + 1], starts[len(src) :] - starts[len(src)]
        before, after = lists.tensor_split([int(starts[len(src)])])
        missing = missing_bonds = None
        if padding:
            offsets, before_offsets, after_offsets, every_bond = (
                torch.cat([o, o[-1:]]) for o in (offsets, before_offsets, after_offsets, every_bond)
            )
            degree = offsets.diff()
            missing = degree.max().clamp(min=1) - degree
            # The padding bond starts at the padding atom and is its own reverse, so it is subtracted once.
            missing_bonds = torch.cat([missing[src], missing[-1:] - 1])
        atoms = Neighbours(neighbour, offsets, neighbour, offsets, missing)
        bonds = Neighbours(before, before_offsets, rev[after], after_offsets, missing_bonds)
        into_atoms = Neighbours(entering, offsets, dst, every_bond, missing)
        kinds = batch.node_type, batch.node_type.index_select(0, src), batch.edge_type
        sent = tuple(to_device(list(also), src.device)) if also else ()
        return cls(atoms, bonds, atoms, into_atoms, kinds, also=sent)


class FixedSums(NamedTuple):
    """The sums over the atoms and bonds of a captured batch; its numbers of atoms and bonds fix all sizes."""

    atoms: Neighbours
    """from neighbouring atoms to each atom"""
    bonds: LineSums
    entering: Neighbours
    """from bonds that enter an atom to each atom"""

    @classmethod
    def of(cls, batch: MoleculeBatch) -> FixedSums:
        """Return the sums of a batch without self loops."""
        every_bond = torch.arange(len(batch.src) + 1, device=batch.src.device)
        offsets, order = batch.neighbour_offsets, batch.dst.sort(stable=True)[1]
        entering = Neighbours(order, offsets, batch.dst, every_bond)
        atoms = Neighbours(batch.neighbours, offsets, batch.neighbours, offsets)
        return cls(atoms, LineSums(entering, batch.src, batch.rev), entering)


Lists = tuple[np.ndarray, np.ndarray]
"""rows, and where each list of rows begins"""


def _in_classes(
    batch: MoleculeBatch, colours: BatchColours, atom_steps: int, bond_steps: int, also: Sequence[np.ndarray]
) -> Neighbourhood:
    """Return the sums over classes.

    C takes a chunk of whole molecules at a time, so there each chunk has its own classes.
    """
    src, _, types, entering = (column.numpy() for column in colours.columns())
    starts = colours.offsets
    sizes: tuple[list[int] | None, list[int] | None] = None, None
    if batch.src.is_cpu and kernels.in_use() == "compiled":
        sizes = batch.sizes.tolist(), batch.bonds.tolist()
    counts = starts[1:] - starts[:-1]
    atoms = _Classes(colours, [colours.of_atoms("neighbours", t + 1) for t in range(atom_steps)], sizes[0])
    bonds = _Classes(colours, [colours.of_bonds("neighbours", t + 1) for t in range(bond_steps)], sizes[1])
    places, around = ranges(starts.take(atoms.chosen), counts.take(atoms.chosen))
    source = src.take(bonds.chosen)
    found, before = ranges(starts.take(source), counts.take(source))
    into = entering.take(found)
    into = into[into != (bonds.chosen ^ 1).repeat(before[1:] - before[:-1])]
    before -= np.arange(len(before))  # each list is shorter by the reverse
    neighbour = src.take(entering)
    parts = [
        *_with_transpose((atoms.place.take(neighbour.take(places)), around), len(atoms.chosen)),
        *_with_transpose((bonds.place.take(into), before), len(bonds.chosen)),
        *_with_transpose((atoms.place.take(neighbour), starts), len(atoms.chosen)),
        *_with_transpose((bonds.place.take(entering), starts), len(bonds.chosen)),
        atoms.chosen,
        bonds.chosen,
        colours.node_type.take(atoms.chosen),
        colours.node_type.take(source),
        types.take(bonds.chosen),
        *also,
    ]
    tensors = to_device(parts, batch.src.device)
    return Neighbourhood(
        atoms.for_c(Neighbours(*tensors[:4])),
        bonds.for_c(Neighbours(*tensors[4:8])),
        Neighbours(*tensors[8:12]),
        Neighbours(*tensors[12:16]),
        (tensors[18], tensors[19], tensors[20]),
        tensors[16],
        tensors[17],
        tuple(tensors[21:]),
    )


class _Classes:
    """The classes of a batch's atoms (or bonds), from their colours after each step.

    sizes: number of atoms (or bonds) of each molecule if C computes, so that each chunk of molecules has its own
    classes; else None.
    """

    def __init__(self, colours: BatchColours, steps: list[np.ndarray], sizes: list[int] | None) -> None:
        self.colours, self.steps = colours, steps
        self.bounds = None if sizes is None else chunks(sizes, torch.get_num_threads())
        self.chosen, self.place = colours.classes(steps[-1], self.bounds)
        """one row of each class, and the class of each row"""

    def for_c(self, lists: Neighbours) -> Neighbours:
        """Return the lists with the fields that the C function of a block needs in addition."""
        if self.bounds is None:
            return lists
        bounds = np.searchsorted(self.chosen, self.bounds)
        same = [self.colours.whole.first_of(step.take(self.chosen), bounds.tolist()) for step in self.steps]
        return lists._replace(bounds=torch.from_numpy(bounds), same=torch.from_numpy(np.stack(same)))


CHUNK = 640
"""most rows of a chunk, so that its data fit in a core's cache; a single molecule may have more"""


def chunks(sizes: list[int], threads: int) -> list[int]:
    """Return where chunks of whole molecules begin, and the end: equally many for each thread, of similar size."""
    total = sum(sizes)
    wanted = -(-total // (threads * CHUNK)) * threads
    bounds, rows = [0], 0
    for size, following in zip(sizes, [*sizes[1:], 0], strict=True):
        rows += size
        # End the chunk if adding the next molecule would take it further from its share.
        goal = total * len(bounds) // max(wanted, 1)
        if 2 * (goal - rows) <= following:
            bounds.append(rows)
    if bounds[-1] != rows:
        bounds.append(rows)
    return bounds


def _with_transpose(lists: Lists, n: int) -> list[np.ndarray]:
    """Return lists of numbers below n, and for each number the lists that contain it, with repetition."""
    rows, offsets = lists
    owner = np.arange(len(offsets) - 1).repeat(offsets[1:] - offsets[:-1])
    keys = (
        rows.astype(np.int16) if n < 1 << 15 else rows
    )  # numpy has a radix sort for short integers, three times as fast
    back = np.zeros(n + 1, np.int64)
    np.bincount(rows, minlength=n).cumsum(out=back[1:])
    return [rows, offsets, owner.take(keys.argsort(kind="stable")), back]


def _others(entering: Tensor, offsets: Tensor, at: Tensor, *, but: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each i the bonds that enter atom at[i] except but[i], as one list and its offsets."""
    count = offsets.diff()[at]
    target = torch.arange(len(at), device=at.device).repeat_interleave(count)
    start = (offsets[:-1][at] - count.cumsum(0) + count).repeat_interleave(count)
    found = entering[start + torch.arange(len(target), device=at.device)]
    kept = found[found != but[target]]
    return kept, torch.cat([offsets[:1], (count - 1).cumsum(0)])
