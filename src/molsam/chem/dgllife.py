"""Atoms and bonds of dgllife's two featurizers: canonical, and AttentiveFP (Xiong et al., J. Med. Chem. 2020)."""

from __future__ import annotations

from functools import partial
from itertools import repeat
from typing import Any, Literal

import numpy as np
from rdkit.Chem import Atom, BondType, GetPeriodicTable, Mol
from rdkit.Chem.rdchem import HybridizationType

from molsam.chem.arrays import MolArrays
from molsam.chem.reading import Atoms, Bonds, Kinds, OneHot, atoms_of, bonds_of, with_other, without_other

_H = HybridizationType
_HYBRIDS = [_H.SP, _H.SP2, _H.SP3, _H.SP3D, _H.SP3D2]
_ELEMENTS = {
    "canonical": "C N O S F Si P Cl Br Mg Na Ca Fe As Al I B V K Tl Yb Sb Sn Ag Pd Co Se Ti Zn H Li Ge Cu Au Ni Cd In "
    "Mn Zr Cr Pt Hg Pb",
    "attentivefp": "B C N O F Si P S Cl As Se Br Te I At",
}


def _numbers(symbols: str) -> list[int]:
    return [GetPeriodicTable().GetAtomicNumber(symbol) for symbol in symbols.split()]


# In a sanitized molecule the implicit valence equals the number of implicit hydrogens. The first gap (2 columns) is for
# charge and radical electrons, the next one (1 column) for aromatic.
_ATOMS = {
    "canonical": OneHot(
        without_other(_numbers(_ELEMENTS["canonical"])),
        without_other(range(11)),
        without_other(range(7)),
        2,
        without_other(_HYBRIDS),
        1,
        without_other(range(5)),
    ),
    "attentivefp": OneHot(
        with_other(_numbers(_ELEMENTS["attentivefp"])),
        without_other(range(6)),
        2,
        with_other(_HYBRIDS),
        1,
        without_other(range(5)),
        3,
    ),
}
_GAPS = {"canonical": [61, 62, 68], "attentivefp": [22, 23, 30]}
_TYPES = without_other([BondType.SINGLE, BondType.DOUBLE, BondType.TRIPLE, BondType.AROMATIC])
# RDKit's numbers 0-5 are NONE, ANY, Z, E, CIS, TRANS.
_BONDS = {
    "canonical": OneHot(_TYPES, 2, without_other(range(6))),
    "attentivefp": OneHot(_TYPES, 2, without_other(range(4))),
}


def _atom(name: str, properties: tuple[Any, ...]) -> np.ndarray:
    *codes, charge, radicals, aromatic, possible, cip = properties
    features = _ATOMS[name].write(codes)
    features[_GAPS[name]] = charge, radicals, aromatic
    if name == "attentivefp":
        features[36:] = possible, cip == "R", cip == "S"
    return features


def _bond(name: str, self_loop: bool, properties: tuple[Any, ...]) -> np.ndarray:
    features = np.zeros(_BONDS[name].width + self_loop, dtype=np.float32)
    features[: _BONDS[name].width] = _BONDS[name].write(properties[:2])
    features[4:6] = properties[2:]
    return features


_ATOM_KINDS = {name: Kinds(one_hot.width, partial(_atom, name)) for name, one_hot in _ATOMS.items()}
_BOND_KINDS = {
    (name, loop): Kinds(one_hot.width + loop, partial(_bond, name, loop))
    for name, one_hot in _BONDS.items()
    for loop in (False, True)
}


class DgllifeFeaturizer:
    """74 (canonical) or 39 (attentivefp) atom columns; 12 or 10 bond columns, and one more with self loops.

    canonical: element (43), degree, implicit valence, charge, radical electrons, hybridisation, aromatic, hydrogens.
    attentivefp: element (15 or other), degree, charge, radical electrons, hybridisation or other, aromatic, hydrogens,
    chirality possible, CIP code R, S. A value without a column of its own leaves its block all zero.
    Bonds: type (4), conjugated, in a ring, stereo. With `self_loop`, self loops come after all bonds, and a last column
    is 1 for them alone.
    """

    VERSION = 1
    pairs = False

    def __init__(self, atoms: Literal["canonical", "attentivefp"] = "canonical", self_loop: bool = True) -> None:
        if atoms not in _ELEMENTS:
            raise ValueError(f"atoms={atoms!r} is not known; use one of: {', '.join(_ELEMENTS)}")
        self.atoms, self.self_loops = atoms, self_loop
        self.node_dim = _ATOMS[atoms].width
        self.edge_dim = _BONDS[atoms].width + int(self_loop)

    def __call__(self, mol: Mol) -> MolArrays:
        atoms, bonds = atoms_of(mol), bonds_of(mol)
        edges, src, dst = bonds.directed(_BOND_KINDS[self.atoms, self.self_loops])
        if self.self_loops:
            n = mol.GetNumAtoms()
            loops = np.zeros((n, self.edge_dim), dtype=np.float32)
            loops[:, -1] = 1
            own = np.arange(n, dtype=np.int32)
            edges, src, dst = np.concatenate([edges, loops]), np.concatenate([src, own]), np.concatenate([dst, own])
        return MolArrays(self._nodes(atoms, bonds), edges, src, dst)

    def settings(self) -> dict[str, Any]:
        return {"atoms": self.atoms, "self_loop": self.self_loops}

    def _nodes(self, atoms: Atoms, bonds: Bonds) -> np.ndarray:
        items, n = atoms.items, len(atoms.items)
        degree, aromatic, _ = bonds.around(n)
        canonical = self.atoms == "canonical"
        properties = zip(
            atoms.elements,
            degree,
            *([map(Atom.GetNumImplicitHs, items)] if canonical else []),
            atoms.hybrids,
            atoms.hydrogens,
            atoms.charges,
            map(Atom.GetNumRadicalElectrons, items),
            aromatic,
            repeat(False, n) if canonical else map(_may_be_chiral, items),
            repeat("", n) if canonical else map(_cip, items),
            strict=True,
        )
        return _ATOM_KINDS[self.atoms].features(properties)


def _may_be_chiral(atom: Atom) -> bool:
    return bool(atom.HasProp("_ChiralityPossible"))


def _cip(atom: Atom) -> str:
    return str(atom.GetProp("_CIPCode")) if atom.HasProp("_CIPCode") else ""
