"""Reading the atoms and bonds of an RDKit molecule, and computing the features of each kind of them once.

A call to RDKit costs about 0.4 microseconds, so no call asks for what already follows from other values. A call to
numpy costs 1 to 3 microseconds, more than the arithmetic on so few atoms, so features are looked up (`Kinds`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from rdkit.Chem import (
    Atom,
    Bond,
    BondStereo,
    BondType,
    ChiralType,
    CompositeQueryType,
    GetPeriodicTable,
    HybridizationType,
    Mol,
    MolFromSmarts,
    RWMol,
    rdqueries,
)

LOW, HIGH = -128, 255
"""Range of the integers that `OneHot` distinguishes (an RDKit charge has 8 bits); larger ones count as HIGH."""

Block = tuple[Mapping[int, int], int, int | None]


class OneHot:
    """One-hot blocks side by side, one per integer property, with gaps for columns that are filled elsewhere.

    A block is (choices, size, other). `choices` maps a value to its column in the block. Every other value goes to
    column `other`, or nowhere if that is None. A gap is given as its number of columns.
    """

    def __init__(self, *layout: Block | int) -> None:
        blocks = [block for block in layout if not isinstance(block, int)]
        self.width = sum(block if isinstance(block, int) else block[1] for block in layout)
        # Values without a column go to one extra column, which `write` cuts off.
        self._columns = np.full((len(blocks), HIGH - LOW + 1), self.width)
        self._rows = np.arange(len(blocks))
        start, row = 0, 0
        for block in layout:
            if isinstance(block, int):
                start += block
                continue
            places, size, other = block
            if other is not None:
                self._columns[row] = start + other
            for value, place in places.items():
                self._columns[row, value - LOW] = start + place
            start, row = start + size, row + 1

    def write(self, codes: Sequence[int]) -> np.ndarray:
        """Return float32 [width] from one integer per block; gaps are 0."""
        out = np.zeros(self.width + 1, dtype=np.float32)
        out[self._columns[self._rows, np.minimum(codes, HIGH) - LOW]] = 1
        return out[:-1]


def choices(values: Iterable[int]) -> dict[int, int]:
    """Return a dict of each value to its position in the list."""
    return {int(value): place for place, value in enumerate(values)}


def with_other(values: Iterable[int]) -> tuple[dict[int, int], int, int]:
    """Return a block whose last column is for all other values."""
    listed = choices(values)
    return listed, len(listed) + 1, len(listed)


def without_other(values: Iterable[int]) -> tuple[dict[int, int], int, None]:
    """Return a block in which other values are all zero."""
    listed = choices(values)
    return listed, len(listed), None


class Kinds(dict[tuple[Any, ...], int]):
    """Feature vectors of the atoms (or bonds) seen so far, one for each distinct tuple of properties.

    A dataset has a few hundred of them.

    Args:
        width: length of a feature vector.
        encode: computes the feature vector from the properties.
    """

    def __init__(self, width: int, encode: Callable[[tuple[Any, ...]], Any]) -> None:
        super().__init__()
        self._table = np.empty((64, width), dtype=np.float32)
        self._encode = encode

    def __missing__(self, properties: tuple[Any, ...]) -> int:
        place = len(self)
        if place == len(self._table):
            self._table = np.concatenate([self._table, np.empty_like(self._table)])
        self._table[place] = self._encode(properties)
        self[properties] = place
        return place

    def features(self, properties: Iterable[tuple[Any, ...]], times: int = 1) -> np.ndarray:
        """Return float32 [times * n, width], the vectors of n atoms or bonds, each repeated `times` times in a row."""
        places = np.array(list(map(self.__getitem__, properties)), dtype=np.int64)
        return self._table.take(places if times == 1 else places.repeat(times), axis=0)


class Atoms(NamedTuple):
    """Properties of the n atoms of a molecule that featurizers use."""

    items: list[Atom]
    elements: list[int]
    hydrogens: list[int]
    """number of hydrogens on each atom that are not atoms of the graph"""
    hybrids: list[HybridizationType]
    charges: list[int]
    tags: list[ChiralType]
    masses: list[float]


def atoms_of(mol: Mol) -> Atoms:
    """Return the atoms in index order.

    Charge, chiral tag and mass are read only for the few atoms that a substructure query finds unusual.
    """
    get, n = mol.GetAtomWithIdx, mol.GetNumAtoms()
    items = [get(i) for i in range(n)]  # twice as fast as RDKit's iterator
    elements = list(map(Atom.GetAtomicNum, items))
    hybrids, charges, tags = [HybridizationType.SP3] * n, [0] * n, [ChiralType.CHI_UNSPECIFIED] * n
    masses = list(map(_MASSES.__getitem__, elements))
    for (i,) in mol.GetSubstructMatches(_SP2, maxMatches=n):
        hybrids[i] = HybridizationType.SP2
    for (i,) in mol.GetSubstructMatches(_UNUSUAL, maxMatches=n):
        atom = items[i]
        hybrids[i], charges[i], tags[i] = atom.GetHybridization(), atom.GetFormalCharge(), atom.GetChiralTag()
        masses[i] = atom.GetMass()
    return Atoms(items, elements, list(map(Atom.GetTotalNumHs, items)), hybrids, charges, tags, masses)


_MASSES = [GetPeriodicTable().GetAtomicWeight(element) for element in range(119)]


def _pattern(query: Any, *others: Any) -> Mol:
    """Return a pattern of one atom that matches any of the queries."""
    for other in others:
        query.ExpandQuery(other, CompositeQueryType.COMPOSITE_OR)
    pattern = RWMol()
    pattern.AddAtom(query)
    return pattern.GetMol()


def _rarely_hybridized() -> Any:
    query = rdqueries.HybridizationEqualsQueryAtom(HybridizationType.SP2, True)
    query.ExpandQuery(rdqueries.HybridizationEqualsQueryAtom(HybridizationType.SP3, True))
    return query


_SP2 = _pattern(rdqueries.HybridizationEqualsQueryAtom(HybridizationType.SP2))
_UNUSUAL = _pattern(
    _rarely_hybridized(),
    rdqueries.FormalChargeEqualsQueryAtom(0, True),
    rdqueries.IsotopeEqualsQueryAtom(0, True),
    rdqueries.HasChiralTagQueryAtom(),
)


class Bonds(NamedTuple):
    """The m bonds of a molecule."""

    ends: list[tuple[int, int]]
    kinds: list[tuple[Any, ...]]
    """type, stereo, conjugated, in a ring"""

    def around(self, atoms: int) -> tuple[list[int], list[bool], list[bool]]:
        """Return for each of so many atoms its number of bonds, whether it is aromatic, and whether it is in a ring."""
        degree, aromatic, in_ring = [0] * atoms, [False] * atoms, [False] * atoms
        for (a, b), (kind, _, _, ring) in zip(self.ends, self.kinds, strict=True):
            degree[a] += 1
            degree[b] += 1
            if ring:
                in_ring[a] = in_ring[b] = True
                if kind == BondType.AROMATIC:
                    aromatic[a] = aromatic[b] = True
        return degree, aromatic, in_ring

    def directed(self, kinds: Kinds) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return every bond in both directions: edges float32 [2m, d], src int32 [2m], dst int32 [2m]."""
        src = np.fromiter(chain.from_iterable(self.ends), np.int32, 2 * len(self.ends))
        return kinds.features(self.kinds, times=2), src, src.reshape(-1, 2)[:, ::-1].ravel()


def bonds_of(mol: Mol, order: str = "rdkit") -> Bonds:
    """Return the bonds of a molecule.

    order: "rdkit" keeps RDKit's order and directions; "pairs" sorts by atom pairs a1 < a2.
    """
    get = mol.GetBondWithIdx
    bonds = [get(i) for i in range(mol.GetNumBonds())]
    # In a molecule read from SMILES all aromatic bonds are alike, and of the others only double bonds have stereo.
    aromatic, double, none = BondType.AROMATIC, BondType.DOUBLE, BondStereo.STEREONONE
    kinds = [
        _AROMATIC
        if kind == aromatic
        else (kind, bond.GetStereo() if kind == double else none, bond.GetIsConjugated(), bond.IsInRing())
        for kind, bond in zip(_types(mol, bonds), bonds, strict=True)
    ]
    ends = list(zip(map(Bond.GetBeginAtomIdx, bonds), map(Bond.GetEndAtomIdx, bonds), strict=True))
    if order == "pairs":
        ends = [(a, b) if a < b else (b, a) for a, b in ends]
        places = sorted(range(len(ends)), key=ends.__getitem__)
        ends, kinds = [ends[i] for i in places], [kinds[i] for i in places]
    return Bonds(ends, kinds)


def _types(mol: Mol, bonds: list[Bond]) -> list[BondType]:
    """Return the bond types, from the bond orders, which RDKit returns three times as fast.

    In a molecule read from SMILES only dative bonds share their order with another type.
    """
    types: list[Any] = list(map(_ORDERS.get, map(Bond.GetBondTypeAsDouble, bonds)))
    if None in types or mol.HasSubstructMatch(_DATIVE):
        return list(map(Bond.GetBondType, bonds))
    return types


_AROMATIC = (BondType.AROMATIC, BondStereo.STEREONONE, True, True)
_ORDERS = {1.0: BondType.SINGLE, 1.5: BondType.AROMATIC, 2.0: BondType.DOUBLE, 3.0: BondType.TRIPLE}
_DATIVE = MolFromSmarts("*->*")
