"""Descriptors and scaffolds."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit.Chem import Descriptors

from molsam.chem import descriptors
from molsam.chem.descriptors import descriptor_functions, provenance, rdkit_2d, rdkit_2d_normalized
from molsam.chem.molecule import parse
from molsam.chem.scaffold import scaffold
from molsam.errors import ConfigError


def test_descriptors_are_signed_logarithms() -> None:
    mol = parse("CC(=O)Oc1ccccc1C(=O)O")
    values = dict(zip([name for name, _ in descriptor_functions()], rdkit_2d(mol), strict=True))
    assert len(values) > 200
    assert values["MolWt"] == np.float32(np.log1p(Descriptors.MolWt(mol)))
    lowest = Descriptors.MinPartialCharge(mol)
    assert lowest < 0
    assert values["MinPartialCharge"] == np.float32(-np.log1p(-lowest))


def test_what_cannot_be_computed_is_zero() -> None:
    for smiles in ("[Og]", "*", "[Na+].[Cl-]"):
        values = rdkit_2d(parse(smiles))
        assert values.dtype == np.float32
        assert np.isfinite(values).all()


def test_normalized_descriptors_are_grovers() -> None:
    """By the package's own call on a SMILES, as GROVER makes it."""
    pytest.importorskip("descriptastorus", reason="molsam[descriptors] is not installed")
    from descriptastorus.descriptors.rdNormalizedDescriptors import RDKit2DNormalized

    for smiles in ("CC(=O)Oc1ccccc1C(=O)O", "[Na+].[Cl-]", "*"):
        values = rdkit_2d_normalized(parse(smiles))
        expected = np.array(RDKit2DNormalized().process(smiles)[1:], dtype=np.float64)
        assert values.shape == (200,)
        assert np.array_equal(values, np.nan_to_num(expected, nan=0, posinf=0, neginf=0).astype(np.float32))
    assert 0 < values.max() <= 1


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "NORMALIZED", "no-such-package")
    with pytest.raises(ConfigError, match=r"needs the package no-such-package; install it with"):
        provenance("rdkit_2d_normalized")


def test_scaffolds() -> None:
    assert scaffold(parse("Cc1ccccc1CCC1CC1")) == scaffold(parse("c1ccccc1CCC1CC1C")) == "c1ccc(CCC2CC2)cc1"
    assert scaffold(parse("CCO")) == ""
    handed = parse("C1C[C@H]2CCC[C@H]2C1")
    assert scaffold(handed) == "C1CC2CCCC2C1" != scaffold(handed, chirality=True)
