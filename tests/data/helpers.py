"""Helpers of the tests of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from molsam.chem.chemprop import ChempropFeaturizer
from molsam.data.dataset import MoleculeDataset, load
from molsam.data.labels import labels, read_columns
from molsam.data.table import Table


def write(path: Path, rows: Sequence[Sequence[Any]], header: str = "smiles,y") -> Path:
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n", encoding="utf-8")
    return path


def numbers_of(table: Table, names: Sequence[str], *, first: bool = False) -> np.ndarray:
    """float64 [rows, names]: the cells of columns as the labels of a regression."""
    return labels(table, read_columns(table, names, first=first), {"task": "regression"}).values


def load_rows(
    tmp_path: Path,
    rows: Sequence[Sequence[Any]],
    header: str = "smiles,y",
    split: Mapping[str, Any] | None = None,
    **settings: Any,
) -> MoleculeDataset:
    """A dataset of a user's own file with these rows; nothing cached outside `tmp_path`."""
    path = write(tmp_path / "data.csv", rows, header)
    own = {"path": str(path), "smiles": "smiles", "targets": None, **settings}
    return load(own, ChempropFeaturizer(), str(tmp_path / "cache"), split)
