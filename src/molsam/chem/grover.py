"""Atoms and bonds of GROVER (Rong et al., NeurIPS 2020), as its public code computes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import Atom, Mol
from rdkit.Chem.rdchem import HybridizationType

from molsam.chem.arrays import MolArrays
from molsam.chem.chemprop import BONDS, atom_properties, with_aromatic_and_mass
from molsam.chem.reading import Kinds, OneHot, atoms_of, bonds_of, with_other
from molsam.errors import InvalidMolecule

# The public code indexes a list of six with the charge. Negative indices count from the end, so -1 equals +5.
CHARGES = {charge: charge % 6 for charge in range(-6, 6)}
_H = HybridizationType
_ATOMS = OneHot(
    with_other(range(1, 101)),
    with_other(range(6)),
    (CHARGES, 6, None),
    with_other(range(4)),
    with_other(range(5)),
    with_other([_H.SP, _H.SP2, _H.SP3, _H.SP3D, _H.SP3D2]),
    2,
    with_other(range(7)),
    10,
)
_PROPERTIES = with_aromatic_and_mass(_ATOMS, 131)
RING_SIZES = range(3, 9)

# Hydrogen acceptor, hydrogen donor, acidic, basic: the published one-atom patterns, rewritten for speed. RDKit matches
# each recursive part against the whole molecule, so conditions on the atom itself stand outside of them. The parts are
# sorted by the atom's symbol (lower case: aromatic), so that only those that can match are tried.
PATTERNS = (
    {
        "O": "O&H1&v2&!$(O-*=[O,N,P,S]),O&H0&v2,O&-",
        "S": "S&H1&v2&!$(S-*=[O,N,P,S]),S&H0&v2,S&-",
        "N": "N&v3&!$(N-*=[O,N,P,S])",
        "n": "n&H0&+0",
        "o": "o&+0&!$(o:n)&!$(o:c:n)",
        "s": "s&+0&!$(s:n)&!$(s:c:n)",
    },
    {"N": "N&!H0&v3,N&!H0&v4&+1", "O": "O&H1&+0", "S": "S&H1&+0", "n": "n&H1&+0"},
    {"C": "$(C(=[O,S,P])-[O;H1,-1])", "S": "$(S(=[O,S,P])-[O;H1,-1])"},
    {
        "N": (
            "N&+,$([N;H2;+0][C,a;!$(*=O)]),$([N;H1;+0]([C,a;!$(*=O)])[C,a;!$(*=O)]),"
            "$([N;H0;+0]([C;!$(*=O)])([C;!$(*=O)])[C;!$(*=O)])"
        ),
        "n": "n&+",
    },
)
_SYMBOLS = {(6, False): "C", (7, False): "N", (8, False): "O", (16, False): "S"}
_SYMBOLS |= {(7, True): "n", (8, True): "o", (16, True): "s"}


_FLAGS = [1 << place for place in range(len(PATTERNS) + len(RING_SIZES))]
_RINGS = dict(zip(RING_SIZES, _FLAGS[len(PATTERNS) :], strict=True))


def _atom(properties: tuple[Any, ...]) -> np.ndarray:
    *known, flags = properties
    features = _PROPERTIES(tuple(known))
    features[-len(_FLAGS) :] = [bool(flags & flag) for flag in _FLAGS]
    return features


_KINDS = Kinds(_ATOMS.width, _atom)


@cache
def _queries(present: frozenset[tuple[int, bool]]) -> list[tuple[int, Mol]]:
    """Return (flag, pattern) for the patterns that these kinds of atoms (element, aromatic) can match."""
    symbols = [symbol for kind, symbol in _SYMBOLS.items() if kind in present]
    found = []
    for flag, parts in zip(_FLAGS, PATTERNS, strict=False):
        if fitting := [parts[symbol] for symbol in symbols if symbol in parts]:
            found.append((flag, Chem.MolFromSmarts(f"[{','.join(fitting)}]")))
    return found


class GroverFeaturizer:
    """151 atom columns, 14 bond columns; bonds in the order of atom pairs a1 < a2.

    Atom columns: chemprop's 133 with GROVER's own encoding of the charge, implicit valence, acceptor, donor, acidic,
    basic, in a ring of 3 to 8 atoms. A charge outside -6..5 raises InvalidMolecule; the public code fails on it.
    """

    VERSION = 2
    node_dim = 151
    edge_dim = 14
    pairs = False
    self_loops = False

    def __call__(self, mol: Mol) -> MolArrays:
        atoms, bonds = atoms_of(mol), bonds_of(mol, "pairs")
        *properties, aromatic, mass = atom_properties(atoms, bonds)
        _check_charges(atoms.charges)
        # In a sanitized molecule the number of implicit hydrogens equals the implicit valence.
        implicit = map(Atom.GetNumImplicitHs, atoms.items)
        flags = _flags(mol, zip(atoms.elements, aromatic, strict=True))
        nodes = _KINDS.features(zip(*properties, implicit, aromatic, mass, flags, strict=True))
        return MolArrays(nodes, *bonds.directed(BONDS))

    def settings(self) -> dict[str, Any]:
        return {}


def _flags(mol: Mol, kinds: Iterable[tuple[int, bool]]) -> list[int]:
    """Return the sum of each atom's flags. `kinds`: (element, aromatic) of every atom."""
    n = mol.GetNumAtoms()
    flags = [0] * n
    for flag, query in _queries(frozenset(kinds).intersection(_SYMBOLS)):
        for (atom,) in mol.GetSubstructMatches(query, maxMatches=n):
            flags[atom] |= flag
    for ring in mol.GetRingInfo().AtomRings():
        if flag := _RINGS.get(len(ring), 0):
            for atom in ring:
                flags[atom] |= flag
    return flags


def _check_charges(charges: Sequence[int]) -> None:
    for atom, charge in enumerate(charges):
        if charge not in CHARGES:
            raise InvalidMolecule(
                f"atom {atom} has charge {charge:+d}; GROVER's features cover {min(CHARGES)} to {max(CHARGES):+d}"
            )
