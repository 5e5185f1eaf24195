"""Rows and ids in what a run writes are those of the file."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

from molsam.config.compose import compose
from molsam.wiring.trained import expand
from tests.integration.test_run import SMALL
from tests.trust.helpers import train

BASE = ["model=gcn", *SMALL["gcn"], "training.epochs=1", "training.threads=1", "dataset=csv"]


def awkward(path: Path) -> pd.DataFrame:
    """Blank lines, cells over several lines, rows that are no molecule, a byte order mark; as pandas reads it."""
    lines = ["\ufeffname,smiles,y,note"]
    for i in range(60):
        smiles = "not a molecule" if i % 11 == 5 else "C" * (i + 1) + "O"
        lines += [f'm{i},{smiles},{i / 10},"two\nlines, {i}"'] + ([""] if i % 7 == 0 else [])
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return pd.read_csv(path)


@pytest.mark.parametrize("more", [[], ["dataset.limit=40"], ["dataset.duplicates=drop", "dataset.max_atoms=50"]])
def test_a_row_points_at_its_molecule(tmp_path: Path, more: list[str]) -> None:
    frame = awkward(tmp_path / "assay.csv")
    named = ["dataset.id=name", "dataset.targets=[y]"]
    train(compose([*BASE, f"dataset.path={tmp_path / 'assay.csv'}", *named, *more]), tmp_path / "run")
    with open(tmp_path / "run" / "test_predictions.csv", newline="") as file:
        predicted = list(csv.DictReader(file))
    assert predicted
    for line in predicted:
        row = frame.iloc[int(line["row"])]
        assert (row["smiles"], row["name"], row["y"]) == (
            line["smiles"],
            line["id"],
            pytest.approx(float(line["target"])),
        )
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    for part in ("train", "valid", "test"):
        assert frame.iloc[split[part]]["name"].tolist() == split["ids"][part]
        assert "not a molecule" not in frame.iloc[split[part]]["smiles"].tolist()
    assert {int(line["row"]) for line in predicted} == set(split["test"])


def test_folds_that_an_earlier_run_left_predict_no_more(tmp_path: Path) -> None:
    """Three folds were trained in a folder, then two: the mean is of two."""
    for fold in range(3):
        weights = tmp_path / f"fold{fold}" / "best" / "model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.touch()
    assert [path.name for path in expand(tmp_path)] == ["fold0", "fold1", "fold2"]
    (tmp_path / "folds.json").write_text('{"folds": [{"fold": 0}, {"fold": 1}]}')
    assert [path.name for path in expand(tmp_path)] == ["fold0", "fold1"]
