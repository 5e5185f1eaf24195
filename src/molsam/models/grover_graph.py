"""Which rows GROVER sums: neighbouring atoms, bonds that continue one another, bonds that enter an atom."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from molsam.data.batch import MoleculeBatch


class Neighbours(NamedTuple):
    """A sum over lists of rows, y = S x, with the lists of S and of its transpose.

    y[t] = sum of x[rows[offsets[t] : offsets[t + 1]]] + missing[t] * x[-1].
    """

    rows: Tensor
    offsets: Tensor
    back: Tensor
    back_offsets: Tensor
    missing: Tensor | None
    """int64 [targets], how often the padding row (the last of x) is added; None without padding"""

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
    """The three sums that GROVER takes over a batch of N atoms and E directed bonds.

    With padding there is one atom and one bond more, the last rows. The reference lists as many neighbours for
    every atom as the largest degree D of the batch and fills up with the padding row, which itself has nothing
    but padding for neighbours: row i adds D - degree(i) times the padding row.
    """

    atoms: Neighbours
    """neighbouring atoms -> atom"""
    bonds: Neighbours
    """bonds that enter a bond's source, but for its own reverse -> bond"""
    entering: Neighbours
    """bonds that enter an atom -> atom"""

    @classmethod
    def of(cls, batch: MoleculeBatch, padding: bool) -> Neighbourhood:
        """The lists of a batch; those of bonds by way of the line graph without backtracking."""
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
        return cls(
            Neighbours(neighbour, offsets, neighbour, offsets, missing),
            Neighbours(before, before_offsets, rev[after], after_offsets, missing_bonds),
            Neighbours(entering, offsets, dst, every_bond, missing),
        )


def _others(entering: Tensor, offsets: Tensor, at: Tensor, *, but: Tensor) -> tuple[Tensor, Tensor]:
    """For each i, the bonds that enter atom at[i] other than but[i], as one list and its offsets."""
    count = offsets.diff()[at]
    target = torch.arange(len(at), device=at.device).repeat_interleave(count)
    start = (offsets[:-1][at] - count.cumsum(0) + count).repeat_interleave(count)
    found = entering[start + torch.arange(len(target), device=at.device)]
    kept = found[found != but[target]]
    return kept, torch.cat([offsets[:1], (count - 1).cumsum(0)])
