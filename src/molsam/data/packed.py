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
from molsam.data.states import BLOCK, BatchColours, Colours, Graph, Keep

FEW = 10
"""Mean number of atoms per distinct feature vector from which a table of distinct vectors is worthwhile."""


@dataclass
class PackedMolecules:
    """M molecules, A atoms, E directed bonds; J distinct atom feature vectors, K distinct bond feature vectors."""

    node_table: Tensor
    """float32 [J, node_dim], the distinct atom feature vectors; they take a hundredth of the memory of all vectors"""
    node_type: Tensor
    """int32 [A], each atom's row of `node_table`"""
    edge_table: Tensor
    """float32 [K, edge_dim], the distinct bond feature vectors"""
    edge_type: Tensor
    """int32 [E], each directed bond's row of `edge_table`"""
    src: Tensor
    """int32 [E], the atom that each bond leaves, numbered within its molecule"""
    dst: Tensor
    """int32 [E], the atom that each bond enters, numbered within its molecule"""
    node_offset: Tensor
    """int64 [M + 1], first atom of each molecule"""
    edge_offset: Tensor
    """int64 [M + 1], first directed bond of each molecule"""
    distances: Tensor | None = None
    """int16 [sum of n^2], row-major topological distances, or None"""
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
        return self.node_table.index_select(0, self.node_type)

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
        bond_rows = _ranges(self.edge_offset[index], bonds)
        pairs = None
        if self.distances is not None:
            pairs = self.distances[_ranges(self.pair_offset[index], sizes.square())]
        return replace(
            self,
            node_type=self.node_type[_ranges(self.node_offset[index], sizes)],
            edge_type=self.edge_type[bond_rows],
            src=self.src[bond_rows],
            dst=self.dst[bond_rows],
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
    def _neighbours(self) -> np.ndarray:
        """int32 [E], `src` in the order of `_by_dst`."""
        return self.src.numpy().take(self._by_dst[0])

    @cached_property
    def _by_dst(self) -> tuple[np.ndarray, np.ndarray]:
        """All bonds sorted by the atom that they enter, int32 [E]; and the number that enter each atom, int16 [A]."""
        dst = self._numbered(self.dst)
        counts = np.bincount(dst, minlength=len(self.node_type))
        return dst.argsort(kind="stable").astype(np.int32), counts.astype(np.int16)

    def _numbered(self, atoms: Tensor) -> np.ndarray:
        """Return atoms (int32 [E], numbered within their molecules) numbered through the dataset."""
        first = self.node_offset.to(torch.int32).numpy()[:-1]
        return atoms.numpy() + first.repeat(np.diff(self.edge_offset.numpy()))

    @cached_property
    def colours(self) -> Colours | None:
        """Colours of the atoms and bonds; None in graphs with self loops."""
        if self.self_loops:
            return None
        entering, counts = self._by_dst
        types = self.node_type.numpy(), self.edge_type.numpy()
        graph = Graph(*types, self._numbered(self.src), entering, _offsets_of(counts).astype(np.int32))
        return Colours(graph, self.keep)

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
        entering = _offsets_of(self._by_dst[1].take(atoms.places))
        molecule = (np.arange(len(rows)) - first.repeat(counts)).repeat(atoms.sizes)
        fields = zip(
            self._nodes(atoms.places, n_atoms),
            self._columns(bonds.places, within, n_bonds),
            _split(atoms.sizes, counts),
            _split(bonds.sizes, counts),
            _rebased(atoms.offsets, first, counts),
            [self._distances(part) for part in _parts(rows, counts)],
            _split(rows, counts),
            _split(self._neighbours.take(bonds.places) + within, n_bonds),
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
            columns=columns,
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
        self, places: np.ndarray, within: np.ndarray, counts: np.ndarray
    ) -> Iterable[Callable[[], tuple[Tensor, ...]]]:
        """Return for each batch of `counts` bonds its function `columns`; the first call computes all batches'."""

        @cache
        def cut() -> list[tuple[Tensor, ...]]:
            ends = self.src, self.dst, self.edge_type
            columns = np.stack([column.numpy().take(places) for column in ends]).astype(np.int64)
            columns[:2] += within
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
        out = torch.empty(int((ends - starts).sum()), dtype=self.distances.dtype)
        parts = [array[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        np.concatenate(parts, out=out.numpy())
        return out


def pack(molecules: Sequence[MolArrays], *, self_loops: bool = False) -> PackedMolecules:
    """Pack featurized molecules; raises ValueError on an empty sequence."""
    if not molecules:
        raise ValueError("there are no molecules to pack; give at least one")
    edge_table, edge_type = distinct(np.concatenate([m.edges for m in molecules]))
    node_table, node_type = _projected(np.concatenate([m.nodes for m in molecules]))
    distances = [m.distances.reshape(-1) for m in molecules if m.distances is not None]
    return PackedMolecules(
        node_table=torch.from_numpy(np.ascontiguousarray(node_table)),
        node_type=torch.from_numpy(node_type.astype(np.int32)),
        edge_table=torch.from_numpy(np.ascontiguousarray(edge_table)),
        edge_type=torch.from_numpy(edge_type.astype(np.int32)),
        src=torch.from_numpy(np.concatenate([m.src for m in molecules]).astype(np.int32)),
        dst=torch.from_numpy(np.concatenate([m.dst for m in molecules]).astype(np.int32)),
        node_offset=_offsets(torch.tensor([len(m.nodes) for m in molecules])),
        edge_offset=_offsets(torch.tensor([len(m.edges) for m in molecules])),
        distances=torch.from_numpy(np.concatenate(distances)) if distances else None,
        self_loops=self_loops,
    )


def join(parts: Sequence[PackedMolecules]) -> PackedMolecules:
    """Return the molecules of all parts (one or more), in their order."""
    if len(parts) == 1:
        return parts[0]

    def types(tables: list[Tensor], rows: list[Tensor], find: Callable[[np.ndarray], Lists]) -> tuple[Tensor, Tensor]:
        table, place = find(torch.cat(tables).numpy())
        starts = np.cumsum([0, *map(len, tables)])
        moved = [place[start:].take(own.numpy()) for start, own in zip(starts.tolist(), rows, strict=False)]
        return torch.from_numpy(table), torch.from_numpy(np.concatenate(moved).astype(np.int32))

    node_table, node_type = types([p.node_table for p in parts], [p.node_type for p in parts], _projected)
    edge_table, edge_type = types([p.edge_table for p in parts], [p.edge_type for p in parts], distinct)
    pairs = [p.distances for p in parts if p.distances is not None]
    return PackedMolecules(
        node_table=node_table,
        node_type=node_type,
        edge_table=edge_table,
        edge_type=edge_type,
        src=torch.cat([p.src for p in parts]),
        dst=torch.cat([p.dst for p in parts]),
        node_offset=_offsets(torch.cat([p.node_offset.diff() for p in parts])),
        edge_offset=_offsets(torch.cat([p.edge_offset.diff() for p in parts])),
        distances=torch.cat(pairs) if pairs else None,
        self_loops=parts[0].self_loops,
    )


Lists = tuple[np.ndarray, np.ndarray]


def distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows, sorted, and each row's index among them.

    The same as numpy's `unique` over axis 0, but faster if there are few distinct rows.
    """
    table, kind = _projected(rows)
    table, order = np.unique(table, axis=0, return_inverse=True)
    return table, order.reshape(-1)[kind]


def _projected(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct rows in any order, and each row's index among them.

    Rows are compared by their projection on a random line, which takes a hundredth of the time of comparing them whole.
    If different rows have the same projection, they are compared whole.
    """
    line = np.random.default_rng(0).normal(size=rows.shape[1])
    # Not a matrix product, which may round equal rows differently, depending on their position.
    blocks = range(0, len(rows), BLOCK)
    projected = np.concatenate([np.empty(0), *((rows[i : i + BLOCK] * line).sum(1) for i in blocks)])
    _, first, kind = np.unique(projected, return_index=True, return_inverse=True)
    table = rows[first]
    if not all(np.array_equal(table[kind[i : i + BLOCK]], rows[i : i + BLOCK]) for i in blocks):
        table, kind = np.unique(rows, axis=0, return_inverse=True)
    return table, kind.reshape(-1)


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


def _offsets_of(sizes: np.ndarray) -> np.ndarray:
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    sizes.cumsum(out=offsets[1:])
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
