"""Data that a worker sends arrive unchanged."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from molsam.chem.compt import ComptFeaturizer
from molsam.chem.dgllife import DgllifeFeaturizer
from molsam.data.featurize import Work, bundled, featurized, unbundled

SMILES = ["C", "no molecule", "CCO", "[Na+].[Cl-]", "", "c1ccccc1O"]


@pytest.mark.parametrize("featurizer", [DgllifeFeaturizer(), ComptFeaturizer()])
@pytest.mark.parametrize("smiles", [SMILES, ["x", "y"], []])
def test_rows_arrive_as_they_were(featurizer: DgllifeFeaturizer | ComptFeaturizer, smiles: list[str]) -> None:
    """Also those that have no arrays, and fields that a featurizer leaves out."""
    rows = list(featurized(smiles, Work(featurizer, None)))
    found = unbundled(pickle.loads(pickle.dumps(bundled(rows))))  # noqa: S301 - our own bytes
    assert [row._replace(arrays=None) for row in found] == [row._replace(arrays=None) for row in rows]
    for a, b in zip(found, rows, strict=True):
        assert (a.arrays is None) == (b.arrays is None)
        for x, y in zip(a.arrays or (), b.arrays or (), strict=True):
            assert (x is None) == (y is None)
            if x is not None and y is not None:
                assert x.dtype == y.dtype
                assert np.array_equal(x, y)
