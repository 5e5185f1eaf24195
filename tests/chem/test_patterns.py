"""GROVER's flags: our patterns against the published ones from which they were rearranged."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem

from molsam.chem.grover import GroverFeaturizer
from molsam.chem.molecule import parse
from molsam.data.sources import EMBEDDED
from molsam.data.table import read_table

PUBLISHED = (
    (
        "[$([O,S;H1;v2;!$(*-*=[O,N,P,S])]),$([O,S;H0;v2]),$([O,S;-]),$([N;v3;!$(N-*=[O,N,P,S])]),"
        "n&H0&+0,$([o,s;+0;!$([o,s]:n);!$([o,s]:c:n)])]"
    ),
    "[$([N;!H0;v3,v4&+1]),$([O,S;H1;+0]),n&H1&+0]",
    "[$([C,S](=[O,S,P])-[O;H1,-1])]",
    (
        "[#7;+,$([N;H2&+0][$([C,a]);!$([C,a](=O))]),$([N;H1&+0]([$([C,a]);!$([C,a](=O))])[$([C,a]);!$([C,a](=O))]),"
        "$([N;H0&+0]([C;!$(C(=O))])([C;!$(C(=O))])[C;!$(C(=O))])]"
    ),
)
EXTRA = [
    "O=S(O)O", "CS(=O)(=O)O", "OC(=S)S", "C[NH3+]", "C[N+](C)(C)C", "[NH4+]", "n1cc[nH]c1", "c1ccoc1", "c1cnoc1",
    "c1ocnc1", "c1cscn1", "c1ccsc1", "C[S-]", "[O-]C=O", "CN(C)C=O", "CNC(=O)C", "NC(=N)N", "CNc1ccccc1", "Nc1ccccc1",
    "CN(C)c1ccccc1", "N#N", "CN=C", "C=NO", "NP(=O)(O)O", "CSC", "CSSC", "C[S+](C)C", "O=[N+]([O-])C", "[nH+]1ccccc1",
    "C[n+]1ccccc1", "NO", "NN", "CNN(C)C", "O", "S", "N", "[OH-]", "[SH-]", "COC", "CC(=O)OC", "NC=S", "NS(=O)(=O)C",
    "OB(O)C", "OP(O)O",
]  # fmt: skip


@pytest.mark.parametrize("place", range(4), ids=["acceptor", "donor", "acidic", "basic"])
def test_the_rearranged_patterns_match_the_same_atoms(place: int) -> None:
    theirs = Chem.MolFromSmarts(PUBLISHED[place])
    embedded = [
        s for name in ("esol.csv", "lipophilicity.csv") for s in read_table(EMBEDDED / name).column("smiles")[::4]
    ]
    matched = 0
    for smiles in EXTRA + embedded:
        mol = parse(smiles)
        expected = {atom for (atom,) in mol.GetSubstructMatches(theirs)}
        assert set(np.flatnonzero(GroverFeaturizer()(mol).nodes[:, 141 + place]).tolist()) == expected, smiles
        matched += len(expected)
    assert matched > 50


def test_every_atom_of_a_large_molecule_is_matched() -> None:
    """RDKit stops at a thousand matches unless told otherwise."""
    mol = parse("O" + "CO" * 1100)
    assert GroverFeaturizer()(mol).nodes[:, 141].sum() == 1101
