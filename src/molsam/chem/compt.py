"""Atoms, bonds and distances of CoMPT (Chen et al., IJCAI 2021), as its public code computes them."""

from __future__ import annotations

from itertools import repeat
from math import isfinite
from typing import Any

import numpy as np
from rdkit.Chem import Atom, BondType, Mol
from rdkit.Chem.rdchem import BondStereo, HybridizationType
from rdkit.Chem.rdPartialCharges import ComputeGasteigerCharges

from molsam.chem.arrays import MolArrays
from molsam.chem.distances import topological_distances
from molsam.chem.reading import Bonds, Kinds, OneHot, atoms_of, bonds_of, choices, with_other

_H = HybridizationType
_S = BondStereo
_ATOMS = OneHot(
    with_other(range(1, 101)),
    with_other([_H.SP, _H.SP2, _H.SP3, _H.SP3D, _H.SP3D2]),
    9,
)
# The public code puts an unlisted type or stereo into the last column, so a dative bond counts as aromatic.
_BONDS = OneHot(
    (choices([BondType.SINGLE, BondType.DOUBLE, BondType.TRIPLE, BondType.AROMATIC]), 4, 3),
    (choices([_S.STEREOANY, _S.STEREOCIS, _S.STEREOE, _S.STEREONONE, _S.STEREOTRANS, _S.STEREOZ]), 6, 5),
    3,
)
_HYDROGEN = 1


def _atom(properties: tuple[Any, ...]) -> np.ndarray:
    element, hybridisation, hydrogens, degree, charge, valence, aromatic, ring = properties
    features = _ATOMS.write((element, hybridisation))
    features[107:111] = hydrogens / 8, degree / 4, charge / 8, valence / 8
    features[113:115] = aromatic, ring
    return features


def _bond(properties: tuple[Any, ...]) -> np.ndarray:
    kind, stereo, conjugated, ring = properties
    features = _BONDS.write((kind, stereo))
    features[10:] = conjugated, kind == BondType.AROMATIC, ring
    return features


_ATOM_KINDS, _BOND_KINDS = Kinds(_ATOMS.width, _atom), Kinds(_BONDS.width, _bond)


class ComptFeaturizer:
    """116 atom columns (the last is the atom's index + 1, for the position table), 13 bond columns, distances.

    Atom columns: element 1-100 or other, hybridisation, hydrogens / 8, degree / 4, charge / 8, valence / 8, Gasteiger
    charge and hydrogen charge (not finite: 0), aromatic, in a ring, index + 1.
    """

    VERSION = 1
    node_dim = 116
    edge_dim = 13
    pairs = True
    self_loops = False

    def __call__(self, mol: Mol) -> MolArrays:
        bonds = bonds_of(mol)
        edges, src, dst = bonds.directed(_BOND_KINDS)
        return MolArrays(_nodes(mol, bonds), edges, src, dst, topological_distances(mol, src, dst))

    def settings(self) -> dict[str, Any]:
        return {}


def _nodes(mol: Mol, bonds: Bonds) -> np.ndarray:
    atoms = atoms_of(mol)
    degree, aromatic, ring = bonds.around(len(atoms.items))
    bound, hydrogens = atoms.hydrogens, list(atoms.hydrogens)
    if _HYDROGEN in atoms.elements:  # hydrogens that are atoms of the graph count too
        for a, b in bonds.ends:
            hydrogens[a] += atoms.elements[b] == _HYDROGEN
            hydrogens[b] += atoms.elements[a] == _HYDROGEN
    valences = map(Atom.GetTotalValence, atoms.items)
    nodes = _ATOM_KINDS.features(
        zip(atoms.elements, atoms.hybrids, hydrogens, degree, atoms.charges, valences, aromatic, ring, strict=True)
    )
    ComputeGasteigerCharges(mol)
    get = Atom.GetDoubleProp
    charges = list(map(get, atoms.items, repeat("_GasteigerCharge")))
    of_hydrogens = [get(atom, "_GasteigerHCharge") if n else 0.0 for atom, n in zip(atoms.items, bound, strict=True)]
    nodes[:, 111], nodes[:, 112] = charges, of_hydrogens
    if not isfinite(sum(charges) + sum(of_hydrogens)):
        np.nan_to_num(nodes[:, 111:113], copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    nodes[:, 115] = np.arange(1, len(nodes) + 1)
    return nodes
