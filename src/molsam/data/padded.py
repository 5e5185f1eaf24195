"""Batches that filler molecules complete, so that the sizes of a training's batches are few (training.graphs).

Molecules of a batch do not see each other, and a molecule without labels has no loss. So filler changes the losses and
gradients of the others by rounding alone. Its atoms and bonds have the features of the dataset's first kinds, or zeros.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.data.batch import MoleculeBatch
from molsam.data.packed import PackedMolecules

SAMPLES, ORDERS = 1000, 64
"""most batches, and most orders of the training set, from which the sizes are found"""
SHARES = (0.5, 0.9, 1.0)
"""shares of the sampled batches that the smaller sizes are made for"""


class Size(NamedTuple):
    """Size of a padded batch, filler included."""

    molecules: int
    atoms: int
    bonds: int
    """directed bonds"""
    largest: int
    """atoms of the largest molecule, or more"""

    def fits(self, molecules: int, atoms: int, bonds: int, largest: int) -> bool:
        """Return whether filler can complete a batch of these numbers to this size."""
        free, more = self.molecules - molecules, self.bonds - bonds
        left = self.atoms - atoms
        if free < 1 or more < 0 or largest > self.largest or not free <= left <= free * self.largest:
            return False
        return more <= _room(left, free, self.largest)


def _room(atoms: int, fillers: int, largest: int) -> int:
    """Return the most directed bonds between the atoms of some fillers, of which as many as possible are large."""
    full, rest = _full(atoms, fillers, largest)
    return full * largest * (largest - 1) + (rest + 1) * rest


def _full(atoms: int, fillers: int, largest: int) -> tuple[int, int]:
    """Return how many fillers have the largest size, and how many atoms more than one the next has."""
    return divmod(atoms - fillers, largest - 1) if largest > 1 else (0, 0)


class Padding:
    """Completes the batches of a training to few sizes.

    Args:
        packed: the dataset.
        rows: int64 [M], the molecules of the training set.
        batch_size: molecules of a batch; the last batch of an epoch may have fewer.
    """

    def __init__(self, packed: PackedMolecules, rows: np.ndarray, batch_size: int) -> None:
        self.few_kinds = packed.few_kinds
        index = torch.from_numpy(np.asarray(rows, np.int64))
        counts = [packed.node_offset.diff()[index].numpy(), packed.edge_offset.diff()[index].numpy()]
        self.sizes = sizes(counts[0], counts[1], min(batch_size, len(index)))
        """ascending"""

    def __call__(self, batch: MoleculeBatch) -> MoleculeBatch:
        """Return the batch, which is on the CPU, with filler to the smallest size that it fits."""
        own = len(batch), batch.n_atoms, len(batch.src), batch.max_size
        return padded(batch, next(size for size in self.sizes if size.fits(*own)), self.few_kinds)


def sizes(atoms: np.ndarray, bonds: np.ndarray, batch_size: int) -> list[Size]:
    """Return at most five sizes, one of which fits any batch of up to `batch_size` of M molecules.

    Args:
        atoms: int64 [M], atoms of each molecule.
        bonds: int64 [M], its directed bonds.
        batch_size: at most M.
    """
    rest = len(atoms) % batch_size
    found = [_size(batch_size, part) for part in _samples(atoms, bonds, batch_size)]
    found += [_size(rest, part) for part in _samples(atoms, bonds, rest)[-1:]] if rest else []
    most = np.sort(atoms)[-batch_size:].sum(), np.sort(bonds)[-batch_size:].sum()
    extremes = [(most[0], 0), most, (batch_size, 0)]
    found.append(_size(batch_size, np.array([(*two, atoms.max()) for two in extremes])))
    return sorted(set(found), key=lambda size: (size.atoms, size.bonds, size.molecules))


def _samples(atoms: np.ndarray, bonds: np.ndarray, size: int) -> list[np.ndarray]:
    """Return atoms, directed bonds and the largest molecule of random batches, int64 [n, 3], for each of `SHARES`."""
    random, batches = np.random.default_rng(0), len(atoms) // size
    orders = [random.permutation(len(atoms)) for _ in range(min(-(-SAMPLES // batches), ORDERS))]
    rows = np.concatenate([order[: batches * size].reshape(-1, size) for order in orders])[:SAMPLES]
    found = np.stack([atoms[rows].sum(1), bonds[rows].sum(1), atoms[rows].max(1)], axis=1)
    limits = [np.quantile(found, share ** (1 / 2), axis=0) for share in SHARES]
    return [found[(found <= limit).all(1)] for limit in limits]


def _size(molecules: int, batches: np.ndarray) -> Size:
    """Return a size that fits these batches of as many molecules: atoms, bonds and largest molecule, int64 [n, 3]."""
    most, largest = batches.max(0), int(batches[:, 2].max())
    bonds, fillers, atoms = int(most[1]) + int(most[1]) % 2, 1, int(most[0]) + 1
    while True:
        size = Size(molecules + fillers, atoms, bonds, largest)
        if atoms - int(batches[:, 0].min()) > fillers * largest:
            fillers, atoms = fillers + 1, atoms + 1
        elif all(size.fits(molecules, *map(int, batch)) for batch in batches):
            return size
        elif largest == 1 or atoms - int(most[0]) == fillers * largest:
            fillers, atoms = fillers + 1, atoms + 1
        else:
            atoms += 1


@lru_cache
def _pairs(atoms: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs of a molecule's atoms, the nearest in their order first; int64 [pairs] each."""
    first, second = np.triu_indices(atoms, 1)
    order = np.lexsort((first, second - first))
    return first[order], second[order]


def padded(batch: MoleculeBatch, size: Size, few_kinds: bool) -> MoleculeBatch:
    """Return a batch on the CPU with filler molecules after its own; they have no labels, and distances of 0.

    few_kinds: whether the table of atoms is the dataset's; else it has a row for each atom.
    """
    free, more = size.molecules - len(batch), size.bonds - len(batch.src)
    counts = np.ones(free, np.int64)
    full, rest = _full(size.atoms - batch.n_atoms, free, size.largest)
    counts[:full] = size.largest
    if rest:
        counts[full] += rest
    starts = batch.n_atoms + counts.cumsum() - counts
    src, dst, bonds = _bonds(counts, starts, more)
    order = dst.argsort(kind="stable")
    entering = np.bincount(dst - batch.n_atoms, minlength=int(counts.sum())).cumsum()
    atoms, sizes, every = len(batch.src), torch.from_numpy(counts), int(counts.sum())
    zeros = torch.zeros(every, dtype=torch.int64)
    columns = _joined(batch.src, src), _joined(batch.dst, dst), F.pad(batch.edge_type, (0, more))

    def rows(values: Tensor | None, number: int = free) -> Tensor | None:
        return None if values is None else torch.cat([values, values.new_zeros(number, *values.shape[1:])])

    table, kind = batch.node_table, torch.cat([batch.node_type, zeros])
    if not few_kinds:
        table, kind = torch.cat([table, table.new_zeros(every, table.shape[1])]), torch.arange(size.atoms)
    of_filler = torch.arange(len(batch), size.molecules)
    return replace(
        batch,
        node_table=table,
        node_type=kind,
        columns=lambda: columns,
        sizes=torch.cat([batch.sizes, sizes]),
        bonds=_joined(batch.bonds, bonds),
        offsets=_joined(batch.offsets, batch.n_atoms + counts.cumsum()),
        distances=rows(batch.distances, int(np.square(counts).sum())),
        index=F.pad(batch.index, (0, free)),
        neighbours=_joined(batch.neighbours, src[order]),
        neighbour_offsets=_joined(batch.neighbour_offsets, atoms + entering),
        molecule=torch.cat([batch.molecule, of_filler.repeat_interleave(sizes)]),
        max_size=size.largest,
        colours=None,
        descriptors=rows(batch.descriptors),
        targets=rows(batch.targets),
        mask=rows(batch.mask),
        bounds=rows(batch.bounds),
        real=F.pad(batch.node_table.new_ones(len(batch)), (0, free)),
        kept={},
    )


def _bonds(counts: np.ndarray, starts: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return src and dst of directed bonds within fillers, int64 [number], and how many each filler has, int64 [free].

    A bond's reverse follows it. An odd one is a self loop, in a dataset that has them.
    """
    ends: list[np.ndarray] = []
    bonds = np.zeros(len(counts), np.int64)
    left = number // 2
    for filler in np.flatnonzero(counts > 1).tolist():
        pairs = np.stack(_pairs(int(counts[filler])))[:, :left] + starts[filler]
        ends.append(pairs.T.reshape(-1))
        bonds[filler], left = 2 * pairs.shape[1], left - pairs.shape[1]
    src = np.concatenate([np.empty(0, np.int64), *ends])
    dst = src[np.arange(len(src)) ^ 1]
    if number % 2:
        bonds[-1] += 1
        src, dst = (np.append(end, starts[-1]) for end in (src, dst))
    return src, dst, bonds


def _joined(values: Tensor, others: np.ndarray) -> Tensor:
    return torch.cat([values, torch.from_numpy(others)])
