"""Atoms and bonds of chemprop (Yang et al., J. Chem. Inf. Model. 2019) and of CMPNN (Song et al., IJCAI 2020)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from rdkit.Chem import BondType, Mol
from rdkit.Chem.rdchem import HybridizationType

from molsam.chem.arrays import MolArrays
from molsam.chem.reading import Atoms, Bonds, Kinds, OneHot, atoms_of, bonds_of, with_other, without_other

_H = HybridizationType
_TAIL = (with_other(range(6)), with_other([-1, -2, 1, 2, 0]), with_other(range(4)), with_other(range(5)))
_ATOMS = {
    "v1": OneHot(with_other(range(1, 101)), *_TAIL, with_other([_H.SP, _H.SP2, _H.SP3, _H.SP3D, _H.SP3D2]), 2),
    "v2": OneHot(
        with_other([*range(1, 37), 53]),
        *_TAIL,
        with_other([_H.S, _H.SP, _H.SP2, _H.SP2D, _H.SP3, _H.SP3D, _H.SP3D2]),
        2,
    ),
}
_TYPES = without_other([BondType.SINGLE, BondType.DOUBLE, BondType.TRIPLE, BondType.AROMATIC])
_BOND = OneHot(1, _TYPES, 2, with_other(range(6)))


def _bond(properties: tuple[Any, ...]) -> np.ndarray:
    """[14]: no bond (always 0), type (4), conjugated, in a ring, stereo 0-5 or other."""
    features = _BOND.write(properties[:2])
    features[5:7] = properties[2:]
    return features


def with_aromatic_and_mass(one_hot: OneHot, first: int) -> Callable[[tuple[Any, ...]], np.ndarray]:
    """Return an encoder for the properties of `one_hot`, then aromatic (0 or 1) and mass.

    Aromatic goes to column `first`, mass / 100 to the column after it.
    """

    def encode(properties: tuple[Any, ...]) -> np.ndarray:
        *codes, aromatic, mass = properties
        features = one_hot.write(codes)
        features[first : first + 2] = aromatic, 0.01 * mass
        return features

    return encode


BONDS = Kinds(_BOND.width, _bond)
_KINDS = {
    name: Kinds(one_hot.width, with_aromatic_and_mass(one_hot, one_hot.width - 2)) for name, one_hot in _ATOMS.items()
}


def atom_properties(atoms: Atoms, bonds: Bonds) -> list[Sequence[Any]]:
    """Return one sequence over the atoms for each property.

    Element, degree with hydrogens, charge, chiral tag, hydrogens, hybridisation, aromatic, mass.
    """
    degree, aromatic, _ = bonds.around(len(atoms.items))
    degree = list(map(operator.add, degree, atoms.hydrogens))
    return [atoms.elements, degree, atoms.charges, atoms.tags, atoms.hydrogens, atoms.hybrids, aromatic, atoms.masses]


class ChempropFeaturizer:
    """133 (v1) or 72 (v2) atom columns, 14 bond columns.

    Atom columns: element, degree with hydrogens, charge (-1, -2, +1, +2, 0), chiral tag, hydrogens, hybridisation, each
    with one more column for other values; aromatic; mass / 100. v2 has fewer elements and more hybridisations.
    bond_order: "rdkit" as in chemprop, "pairs" (by atom pairs a1 < a2) as in CMPNN.
    """

    VERSION = 1
    edge_dim = 14
    pairs = False
    self_loops = False

    def __init__(self, atoms: Literal["v1", "v2"] = "v1", bond_order: Literal["rdkit", "pairs"] = "rdkit") -> None:
        _check("atoms", atoms, ("v1", "v2"))
        _check("bond_order", bond_order, ("rdkit", "pairs"))
        self.atoms, self.bond_order = atoms, bond_order
        self.node_dim = _ATOMS[atoms].width

    def __call__(self, mol: Mol) -> MolArrays:
        atoms, bonds = atoms_of(mol), bonds_of(mol, self.bond_order)
        properties = zip(*atom_properties(atoms, bonds), strict=True)
        return MolArrays(_KINDS[self.atoms].features(properties), *bonds.directed(BONDS))

    def settings(self) -> dict[str, Any]:
        return {"atoms": self.atoms, "bond_order": self.bond_order}


def _check(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is not known; use one of: {', '.join(allowed)}")
