"""Which rows GROVER sums: neighbouring atoms, bonds that continue one another, bonds that enter an atom.

States of atoms (or bonds) with equal features, whose neighbours have equal features, and so on for as many steps as
messages are passed, are equal: the colours of Weisfeiler and Leman. They are computed once for each such class; of the
32 molecules of a batch of ESOL, 0.55 of the bonds and 0.76 of the atoms are left after 3 steps.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from molsam.data.batch import MoleculeBatch
from molsam.native import kernels


class Neighbours(NamedTuple):
    """A sum over lists of rows, y = S x, with the lists of S and of its transpose.

    y[t] = sum of x[rows[offsets[t] : offsets[t + 1]]] + missing[t] * x[-1].
    """

    rows: Tensor
    offsets: Tensor
    back: Tensor
    back_offsets: Tensor
    missing: Tensor | None = None
    """int64 [targets], how often the padding row (the last of x) is added; None without padding"""
    bounds: Tensor | None = None
    """int64 [chunks + 1], where each chunk of rows begins that sums over its own rows only; for C"""
    same: Tensor | None = None
    """int64 [steps, targets], of each row the first whose state is equal after one step, after two, ...; for C"""

    def after(self, steps: int) -> Neighbours:
        """The sums, when so many steps have been made before."""
        return self if self.same is None else self._replace(same=self.same[steps:])

    def sum(self, x: Tensor) -> Tensor:
        """Rows [n, ...] -> sums [targets, ...], differentiable any number of times."""
        total: Tensor = _Sum.apply(x, self, False)
        return total

    def gather(self, x: Tensor, transposed: bool = False) -> Tensor:
        """S x, or the transpose of S times x [targets, ...], without a graph."""
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
    """The sums that GROVER takes over a batch of N atoms and E directed bonds, of which it tells n and e classes apart.

    With padding there is one atom and one bond more, the last rows, and each row is a class. The reference lists as
    many neighbours for every atom as the largest degree D of the batch and fills up with the padding row, which itself
    has nothing but padding for neighbours: row i adds D - degree(i) times the padding row.
    """

    atoms: Neighbours
    """neighbouring atoms -> atom, classes both"""
    bonds: Neighbours
    """bonds that enter a bond's source, but for its own reverse -> bond, classes both"""
    around: Neighbours
    """classes of neighbouring atoms -> atom"""
    entering: Neighbours
    """classes of bonds that enter an atom -> atom"""
    atom_rows: Tensor | None = None
    """int64 [n], an atom of each class; None if each is a class"""
    bond_rows: Tensor | None = None
    """int64 [e]"""

    @classmethod
    def of(cls, batch: MoleculeBatch, padding: bool, steps: tuple[int, int] | None = None) -> Neighbourhood:
        """The lists of a batch; those of bonds by way of the line graph without backtracking.

        steps: of messages between atoms and between bonds, by which classes are told apart if there is a C compiler;
        with None each row is a class.
        """
        if steps and not padding and batch.src.is_cpu and kernels.in_use() == "compiled":
            return cls._in_classes(batch, *steps)
        src, dst, rev = batch.src, batch.dst, batch.rev
        every_bond = torch.arange(len(src) + 1, device=src.device)
        entering_dst, entering = dst.sort()
        offsets = torch.searchsorted(entering_dst, torch.arange(batch.n_atoms + 1, device=src.device))
        neighbour = src.index_select(0, entering)
        # Bonds that continue bond b: the lists of S at b, and those of its transpose at the reverse of b.
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
            # The padding bond leaves the padding atom and is its own reverse, which is subtracted once.
            missing_bonds = torch.cat([missing[src], missing[-1:] - 1])
        atoms = Neighbours(neighbour, offsets, neighbour, offsets, missing)
        bonds = Neighbours(before, before_offsets, rev[after], after_offsets, missing_bonds)
        return cls(atoms, bonds, atoms, Neighbours(entering, offsets, dst, every_bond, missing))

    @classmethod
    def _in_classes(cls, batch: MoleculeBatch, atom_steps: int, bond_steps: int) -> Neighbourhood:
        """The same in C (c/line_graph.c), in classes."""
        if batch.self_loops:
            raise ValueError("reverse bonds are undefined in a graph with self loops")
        src, n, e, molecules = batch.src.contiguous(), batch.n_atoms, batch.src.shape[0], len(batch)
        found, offsets, entering = src.new_empty(1), src.new_empty(n + 1), torch.empty_like(src)
        kernels.call("entering_bonds", torch.float32, n, e, src, batch.dst.contiguous(), entering, offsets, found)
        pairs, atom_steps, bond_steps = int(found), max(atom_steps, 1), max(bond_steps, 1)
        most = (10 + bond_steps) * e + (6 + atom_steps) * n + 2 * (pairs + molecules) + 10
        out, lengths = src.new_empty(most), src.new_empty(22)
        features = (one.contiguous() for one in (batch.node_type, batch.edge_type))
        given = batch.sizes.contiguous(), batch.bonds.contiguous(), src, entering, offsets, *features
        sizes = n, e, pairs, molecules
        kernels.call("neighbourhood", torch.float32, *sizes, *given, atom_steps, bond_steps, out, lengths)
        parts = [out[a:b] for a, b in pairwise(accumulate(lengths.tolist(), initial=0))]

        def of_classes(lists: list[Tensor], bounds: Tensor, same: Tensor, rows: Tensor) -> Neighbours:
            same = same.view(-1, rows.shape[0]) if rows.shape[0] else same[None]
            return Neighbours(*lists)._replace(bounds=bounds, same=same)

        return cls(
            of_classes(parts[:4], *parts[4:7]),
            of_classes(parts[7:11], *parts[11:14]),
            Neighbours(*parts[14:18]),
            Neighbours(*parts[18:]),
            parts[6],
            parts[13],
        )


def _others(entering: Tensor, offsets: Tensor, at: Tensor, *, but: Tensor) -> tuple[Tensor, Tensor]:
    """For each i, the bonds that enter atom at[i] other than but[i], as one list and its offsets."""
    count = offsets.diff()[at]
    target = torch.arange(len(at), device=at.device).repeat_interleave(count)
    start = (offsets[:-1][at] - count.cumsum(0) + count).repeat_interleave(count)
    found = entering[start + torch.arange(len(target), device=at.device)]
    kept = found[found != but[target]]
    return kept, torch.cat([offsets[:1], (count - 1).cumsum(0)])
