"""A whole dataset of molecule graphs in flat tensors with offsets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from molsam.chem.arrays import MolArrays
from molsam.data.batch import MoleculeBatch
from molsam.data.distinct import distinct, projected
from molsam.data.states import BatchColours, Colours, Graph, Keep, ListsOf, ranges, smallest

FEW = 10
"""Mean number of atoms per distinct feature vector from which a table of distinct vectors is worthwhile."""


@dataclass
class PackedMolecules:
    """M molecules, A atoms, E directed bonds; J distinct atom feature vectors, K distinct bond feature vectors.

    Integers of atoms and bonds have the smallest of the types int8, int16 and int32 that holds all of them.
    """

    node_table: Tensor
    """float32 [J, node_dim], the distinct atom feature vectors; they take a hundredth of the memory of all vectors"""
    node_type: Tensor
    """int [A], each atom's row of `node_table`"""
    edge_table: Tensor
    """float32 [K, edge_dim], the distinct bond feature vectors"""
    edge_type: Tensor
    """int [E], each directed bond's row of `edge_table`"""
    src: Tensor
    """int [E], the atom that each bond leaves, numbered within its molecule"""
    dst: Tensor
    """int [E], the atom that each bond enters, numbered within its molecule"""
    entering: Tensor
    """int [E], the bonds that enter a molecule's first atom, then its second, ..., numbered within the molecule"""
    neighbours: Tensor
    """int [E], the atoms that these bonds leave, numbered within their molecule"""
    degree: Tensor
    """int [A], number of bonds that enter each atom"""
    node_offset: Tensor
    """int64 [M + 1], first atom of each molecule"""
    edge_offset: Tensor
    """int64 [M + 1], first directed bond of each molecule"""
    distances: Tensor | None = None
    """int [sum of n^2], row-major topological distances, or None"""
    self_loops: bool = False
    keep: Keep | None = None
    """cache for the colours (molsam.data.states), if the dataset is cached"""

    def __post_init__(self) -> None:
        # Copied into torch's own memory, because the rounding of matrix products depends on the alignment of their
        # operands. A memory-mapped file is aligned differently, so a cached dataset would change the last bits of a
        # run.
        self.edge_table = self.edge_table.clone()
        if self.few_kinds:
            self.node_table = self.node_table.clone()

    def __len__(self) -> int:
        return len(self.node_offset) - 1

    @property
    def few_kinds(self) -> bool:
        """Whether batches share the table of distinct atom feature vectors; else each has a row for every atom."""
        return len(self.node_table) <= len(self.node_type) / FEW

    @property
    def nodes(self) -> Tensor:
        """float32 [A, node_dim], the feature vector of every atom; a new tensor."""
        return self.node_table.index_select(0, self.node_type.int())

    @property
    def max_atoms(self) -> int:
        """Number of atoms of the largest molecule."""
        return int(self.node_offset.diff().max()) if len(self) else 0

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by field name, for the cache."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def select(self, index: Tensor) -> PackedMolecules:
        """Return some of the molecules (int64 [m]) as a new packed dataset."""
        sizes, bonds = self.node_offset.diff()[index], self.edge_offset.diff()[index]
        atom_rows, bond_rows = _ranges(self.node_offset[index], sizes), _ranges(self.edge_offset[index], bonds)
        pairs = None
        if self.distances is not None:
            pairs = self.distances[_ranges(self.pair_offset[index], sizes.square())]
        return replace(
            self,
            node_type=self.node_type[atom_rows],
            edge_type=self.edge_type[bond_rows],
            src=self.src[bond_rows],
            dst=self.dst[bond_rows],
            entering=self.entering[bond_rows],
            neighbours=self.neighbours[bond_rows],
            degree=self.degree[atom_rows],
            node_offset=_offsets(sizes),
            edge_offset=_offsets(bonds),
            distances=pairs,
            keep=None,
        )

    @cached_property
    def pair_offset(self) -> Tensor:
        """int64 [M + 1], first atom pair of each molecule in `distances`."""
        return _offsets(self.node_offset.diff().square())

    @cached_property
    def colours(self) -> Colours | None:
        """Colours of the atoms and bonds; None in graphs with self loops."""
        if self.self_loops:
            return None
        return Colours(Graph(self.node_type.numpy(), self.edge_type.numpy(), self._sources, self._lists), self.keep)

    def _sources(self, bonds: np.ndarray) -> np.ndarray:
        """Return the atoms that bonds leave, both numbered through the dataset, int64 [n]."""
        molecules = self.edge_offset.numpy().searchsorted(bonds, "right") - 1
        return self.node_offset.numpy().take(molecules) + self.src.numpy().take(bonds)

    def _lists(self) -> ListsOf:
        """Return the function of atoms that returns the bonds that enter them; numbered through the dataset."""
        offsets = _offsets_of(self.degree.numpy(), np.int32)

        def lists(atoms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            counts = self.degree.numpy().take(atoms)
            molecules = self.node_offset.numpy().searchsorted(atoms, "right") - 1
            first = self.edge_offset.numpy().take(molecules)
            places = ranges(offsets.take(atoms), counts)[0]
            return self.entering.numpy().take(places) + first.repeat(counts), counts

        return lists

    def batch(self, index: Tensor | Sequence[int] | np.ndarray) -> MoleculeBatch:
        """Return the molecules of `index` (int64 [B], B > 0) as one batch, in that order."""
        return self.batches(index, len(index))[0]

    def batches(self, index: Tensor | Sequence[int] | np.ndarray, size: int) -> list[MoleculeBatch]:
        """Return the molecules of `index` (int64 [M], M > 0) in batches of `size`, in that order; the last may be
        smaller.

        All batches are assembled together. A batch has few atoms, so calls to numpy cost more than the work they do,
        and calls to torch ten times as much. Their number is independent of the number of molecules and, apart from a
        few views, of the number of batches.
        """
        rows = np.asarray(index, dtype=np.int64)
        first = np.arange(0, len(rows), size)
        """first molecule of each batch"""
        counts = np.diff(first, append=len(rows))
        atoms, bonds = _Cut(self.node_offset, rows), _Cut(self.edge_offset, rows)
        start = atoms.offsets[first]
        """first atom of each batch"""
        n_atoms, n_bonds = np.diff(start, append=atoms.total), np.diff(bonds.offsets[first], append=bonds.total)
        within = (atoms.offsets[:-1] - start.repeat(counts)).repeat(bonds.sizes)
        """first atom of each bond's molecule in its batch"""
        entering = _offsets_of(self.degree.numpy().take(atoms.places))
        molecule = (np.arange(len(rows)) - first.repeat(counts)).repeat(atoms.sizes)
        fields = zip(
            self._nodes(atoms.places, n_atoms),
            self._columns(bonds, within, first, n_bonds),
            _split(atoms.sizes, counts),
            _split(bonds.sizes, counts),
            _rebased(atoms.offsets, first, counts),
            [self._distances(part) for part in _parts(rows, counts)],
            _split(rows, counts),
            _split(self.neighbours.numpy().take(bonds.places) + within, n_bonds),
            _rebased(entering, start, n_atoms),
            _split(molecule, n_atoms),
            np.maximum.reduceat(atoms.sizes, first).tolist(),
            _parts(atoms.places, n_atoms),
            _parts(bonds.places, n_bonds),
            strict=True,
        )
        return [self._batch(*one) for one in fields]

    def _batch(
        self,
        nodes: tuple[Tensor, Tensor],
        columns: Callable[[], tuple[Tensor, ...]],
        sizes: Tensor,
        bonds: Tensor,
        offsets: Tensor,
        distances: Tensor | None,
        index: Tensor,
        neighbours: Tensor,
        neighbour_offsets: Tensor,
        molecule: Tensor,
        largest: int,
        atom_places: np.ndarray,
        bond_places: np.ndarray,
    ) -> MoleculeBatch:
        colours = None
        if self.colours is not None:
            starts = neighbour_offsets.numpy()
            colours = BatchColours(self.colours, atom_places, bond_places, nodes[1].numpy(), columns, starts)
        return MoleculeBatch(
            node_table=nodes[0],
            node_type=nodes[1],
            edge_table=self.edge_table,
            columns=lambda: columns()[:3],
            sizes=sizes,
            bonds=bonds,
            offsets=offsets,
            distances=distances,
            self_loops=self.self_loops,
            index=index,
            neighbours=neighbours,
            neighbour_offsets=neighbour_offsets,
            molecule=molecule,
            max_size=largest,
            colours=colours,
        )

    def _nodes(self, places: np.ndarray, counts: np.ndarray) -> Iterable[tuple[Tensor, Tensor]]:
        """Return for each batch of `counts` atoms a table of feature vectors, and each atom's row of it."""
        parts = _parts(self.node_type.numpy().take(places).astype(np.int64), counts)
        if self.few_kinds:
            return [(self.node_table, torch.from_numpy(part)) for part in parts]
        return [(_take(self.node_table, part), torch.arange(len(part))) for part in parts]

    def _columns(
        self, bonds: _Cut, within: np.ndarray, first: np.ndarray, counts: np.ndarray
    ) -> Iterable[Callable[[], tuple[Tensor, ...]]]:
        """Return for each batch of `counts` bonds a function that returns src, dst, edge_type and entering.

        `first` is the first molecule of each batch. The first call computes the columns of all batches.
        """

        @cache
        def cut() -> list[tuple[Tensor, ...]]:
            sources = self.src, self.dst, self.edge_type, self.entering
            columns = np.stack([column.numpy().take(bonds.places) for column in sources]).astype(np.int64)
            columns[:2] += within
            start = bonds.offsets[:-1] - bonds.offsets[first].repeat(np.diff(first, append=len(bonds.sizes)))
            columns[3] += start.repeat(bonds.sizes)
            return [part.unbind() for part in _split(columns, counts)]

        def of(batch: int) -> Callable[[], tuple[Tensor, ...]]:
            return lambda: cut()[batch]

        return map(of, range(len(counts)))

    def _distances(self, rows: np.ndarray) -> Tensor | None:
        """Return the distances of some molecules. Copying whole blocks is faster than indexing that many numbers."""
        if self.distances is None:
            return None
        array, bounds = self.distances.numpy(), self.pair_offset.numpy()
        starts, ends = bounds[rows], bounds[rows + 1]
        out = torch.empty(int((ends - starts).sum()), dtype=torch.int16)
        parts = [array[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        np.concatenate(parts, out=out.numpy())
        return out


def pack(molecules: Sequence[MolArrays], *, self_loops: bool = False) -> PackedMolecules:
    """Pack featurized molecules; raises ValueError on an empty sequence."""
    if not molecules:
        raise ValueError("there are no molecules to pack; give at least one")
    edge_table, edge_type = distinct(np.concatenate([m.edges for m in molecules]))
    node_table, node_type = projected(np.concatenate([m.nodes for m in molecules]))
    distances = [m.distances.reshape(-1) for m in molecules if m.distances is not None]
    src, dst = (np.concatenate(ends) for ends in zip(*((m.src, m.dst) for m in molecules), strict=True))
    atoms, bonds = (np.array([len(rows) for rows in own]) for own in zip(*(m[:2] for m in molecules), strict=True))
    node_offset, edge_offset = _offsets_of(atoms), _offsets_of(bonds)
    entered = dst + node_offset[:-1].repeat(bonds)
    order = entered.argsort(kind="stable")
    return PackedMolecules(
        node_table=torch.from_numpy(np.ascontiguousarray(node_table)),
        node_type=_small(node_type),
        edge_table=torch.from_numpy(np.ascontiguousarray(edge_table)),
        edge_type=_small(edge_type),
        src=_small(src),
        dst=_small(dst),
        entering=_small(order - edge_offset[:-1].repeat(bonds)),
        neighbours=_small(src[order]),
        degree=_small(np.bincount(entered, minlength=int(node_offset[-1]))),
        node_offset=torch.from_numpy(node_offset),
        edge_offset=torch.from_numpy(edge_offset),
        distances=_small(np.concatenate(distances)) if distances else None,
        self_loops=self_loops,
    )


def join(parts: Sequence[PackedMolecules]) -> PackedMolecules:
    """Return the molecules of all parts (one or more), in their order."""
    if len(parts) == 1:
        return parts[0]

    def types(
        tables: list[Tensor], rows: list[Tensor], find: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    ) -> tuple[Tensor, Tensor]:
        table, place = find(torch.cat(tables).numpy())
        starts = np.cumsum([0, *map(len, tables)])
        moved = [place[start:].take(own.numpy()) for start, own in zip(starts.tolist(), rows, strict=False)]
        return torch.from_numpy(table), _small(np.concatenate(moved))

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    node_table, node_type = types([p.node_table for p in parts], [p.node_type for p in parts], projected)
    edge_table, edge_type = types([p.edge_table for p in parts], [p.edge_type for p in parts], distinct)
    pairs = [p.distances for p in parts if p.distances is not None]
    return PackedMolecules(
        node_table=node_table,
        node_type=node_type,
        edge_table=edge_table,
        edge_type=edge_type,
        node_offset=_offsets(torch.cat([p.node_offset.diff() for p in parts])),
        edge_offset=_offsets(torch.cat([p.edge_offset.diff() for p in parts])),
        src=joined("src"),
        dst=joined("dst"),
        entering=joined("entering"),
        neighbours=joined("neighbours"),
        degree=joined("degree"),
        distances=torch.cat(pairs) if pairs else None,
        self_loops=parts[0].self_loops,
    )


def _small(numbers: np.ndarray) -> Tensor:
    return torch.from_numpy(numbers.astype(smallest(int(numbers.max(initial=0))), copy=False))


def _offsets(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _ranges(starts: Tensor, lengths: Tensor) -> Tensor:
    """Return [s0, s0+1, ..., s0+l0-1, s1, ...] for starts s and lengths l."""
    ends = lengths.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    return torch.arange(total) + (starts - ends + lengths).repeat_interleave(lengths)


class _Cut:
    """Indices of the items (atoms or bonds) of some molecules, one molecule after the other."""

    def __init__(self, offsets: Tensor, rows: np.ndarray) -> None:
        bounds = offsets.numpy()
        starts = bounds[rows]
        self.sizes = bounds[rows + 1] - starts
        """int64 [B], items of each molecule"""
        self.offsets = _offsets_of(self.sizes)
        """int64 [B + 1], first item of each molecule among all of them"""
        self.total = int(self.offsets[-1])
        self.places = (starts - self.offsets[:-1]).repeat(self.sizes)
        """int64 [total], each item's index in the dataset"""
        self.places += np.arange(self.total)


def _offsets_of(sizes: np.ndarray, dtype: type[np.integer] = np.int64) -> np.ndarray:
    offsets = np.zeros(len(sizes) + 1, dtype)
    sizes.cumsum(dtype=dtype, out=offsets[1:])
    return offsets


def _split(array: np.ndarray, counts: np.ndarray) -> tuple[Tensor, ...]:
    """Return views of `counts` items each, along the last axis."""
    return torch.from_numpy(array).split(counts.tolist(), dim=-1)


def _parts(array: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Return views of `counts` items each, along the first axis."""
    ends = counts.cumsum().tolist()
    return [array[start:end] for start, end in zip([0, *ends], ends)]  # noqa: B905 - one start more


def _rebased(offsets: np.ndarray, first: np.ndarray, counts: np.ndarray) -> tuple[Tensor, ...]:
    """Return for each batch of `counts` items their offsets and the last one's end, relative to the first offset."""
    batch = np.arange(len(counts)).repeat(counts + 1)
    return _split(offsets[np.arange(len(batch)) - batch] - offsets[first][batch], counts + 1)


def _take(values: Tensor, places: np.ndarray) -> Tensor:
    """Return some rows in memory allocated by torch (see `PackedMolecules.__post_init__` for why)."""
    out = torch.empty(len(places), *values.shape[1:], dtype=values.dtype)
    values.numpy().take(places, axis=0, out=out.numpy(), mode="clip")
    return out
