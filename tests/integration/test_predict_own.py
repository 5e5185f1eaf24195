"""Predictions of a run on a table of one's own, where a column, a label or a task is not what one expects."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import molsam
from molsam.commands import main as cli
from molsam.config.compose import compose
from molsam.wiring.run import start

CHAINS = ["C" * size for size in range(1, 21)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Molecules are those of `Clean`; task b has no label in training; the last ten training rows have none at all."""
    folder = tmp_path_factory.mktemp("own")
    with open(folder / "own.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["smiles", "Clean", "a", "b", "part"])
        for row, smiles in enumerate(CHAINS):
            table.writerow([f"O{smiles}", smiles, row, "", "train"])
            table.writerow([f"O{smiles}", f"N{smiles}", "", "", "train"])
            table.writerow([f"O{smiles}", f"F{smiles}", row, row, "valid" if row % 2 else "test"])
    words = ["model=gcn", "dataset=csv", f"dataset.path={folder / 'own.csv'}", "dataset.smiles=Clean",
             "dataset.targets=[a,b]", "split=predefined", "split.column=part", "training.epochs=2",
             "training.threads=1"]  # fmt: skip
    start(compose(words), folder / "run", [])
    return folder


def predicted(run: Path, tmp_path: Path, text: str, *more: str) -> pd.DataFrame:
    (tmp_path / "in.csv").write_text(text)
    command = ["predict", str(run / "run"), str(tmp_path / "in.csv"), *more, "-o", str(tmp_path / "out.csv")]
    assert cli.main(command) == 0
    return pd.read_csv(tmp_path / "out.csv")


def test_a_task_that_was_not_learnt_is_not_predicted(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = predicted(run, tmp_path, "smiles\nCC\n", "--interval", "0.5")
    assert found.filter(regex="^a_").notna().all(None)
    assert found.filter(regex="^b_").shape == (1, 3)
    assert found.filter(regex="^b_").isna().all(None)
    assert found["error"].isna().all(), "the row has a prediction"
    assert "b: no labels in the training part; not predicted" in caplog.text
    assert np.isnan(molsam.load(run / "run").predict(["CC"])["b"]).all()


def test_molecules_are_those_of_the_column_that_was_learnt(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    value = {smiles: predicted(run, tmp_path, f"smiles\n{smiles}\n")["a_pred"][0] for smiles in ("CC", "OCCC")}
    assert value["CC"] != value["OCCC"]
    for header in ("smiles,Clean", "Smiles,clean"):
        caplog.clear()
        assert predicted(run, tmp_path, f"{header}\nOCCC,CC\n")["a_pred"][0] == value["CC"]
        assert "The molecules are those of column" in caplog.text
        assert "--smiles smiles" in caplog.text
    other = predicted(run, tmp_path, "smiles,Clean\nOCCC,CC\n", "--smiles", "smiles")["a_pred"][0]
    assert other == value["OCCC"]
    assert predicted(run, tmp_path, "id,Clean\n1,CC\n")["a_pred"][0] == value["CC"], "the file that was trained on"
    assert cli.main(["embed", str(run / "run"), str(tmp_path / "in.csv"), "-o", str(tmp_path / "v.csv")]) == 0
    assert pd.read_csv(tmp_path / "v.csv")["smiles"].tolist() == ["CC"]


def test_the_nearest_training_molecule_has_a_label(run: Path, tmp_path: Path) -> None:
    found = predicted(run, tmp_path, "smiles\nCCC\nNCCC\nFCCC\n", "--nearest")["nearest_tanimoto"]
    assert found[0] == 1
    assert (found[1:] < 1).all(), "the molecules without a label and those of the other parts were not learnt"
