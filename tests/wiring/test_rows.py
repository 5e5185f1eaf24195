"""Rows and ids in what a run writes are those of the file."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

from molsam.config.compose import compose
from molsam.report.dashboard import predictions
from molsam.tracking import plots
from molsam.wiring import conformal
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


@pytest.mark.parametrize(
    ("bare", "words"), [(0, ""), (1, "1 molecule without any label"), (7, "7 molecules without any")]
)
def test_molecules_without_any_label_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bare: int, words: str
) -> None:
    lines = [f"{'C' * (i + 1)}O,{'' if i < bare else i / 10},{'' if i % 2 or i < bare else 1.5}" for i in range(30)]
    (tmp_path / "assay.csv").write_text("\n".join(["smiles,y,z", *lines]) + "\n")
    train(compose([*BASE, f"dataset.path={tmp_path / 'assay.csv'}", "dataset.targets=[y,z]"]), tmp_path / "run")
    told = [line for line in capsys.readouterr().err.splitlines() if "without any label" in line]
    assert [line.startswith(f"note: {words}") for line in told] == [True] * bool(bare)


def test_bounds_are_marked_and_count_nowhere_as_values(tmp_path: Path) -> None:
    """The metric is that of the written rows without a mark; pictures, dashboard and intervals leave bounds out too."""
    signs = ["", "", ">", "", "<"]
    lines = [f"{'C' * (i % 20 + 1)}{'ON'[i % 2]},{signs[i % 5]}{i / 10}" for i in range(40)]
    (tmp_path / "assay.csv").write_text("\n".join(["smiles,y", *lines]) + "\n")
    run, named = tmp_path / "run", ["dataset.targets=[y]", "dataset.censored=bound", "split.fractions=[0.5,0.25,0.25]"]
    train(compose([*BASE, f"dataset.path={tmp_path / 'assay.csv'}", *named]), run)
    frames = {part: pd.read_csv(run / f"{part}_predictions.csv", dtype={"bound": str}) for part in ("test", "valid")}
    for frame in frames.values():
        marks = frame["bound"].fillna("").tolist()
        assert marks == [signs[row % 5] for row in frame["row"]]
        assert {"", "<", ">"} == set(marks)
    values = {part: frame[frame["bound"].isna()] for part, frame in frames.items()}
    test, valid = values["test"], values["valid"]
    result = json.loads((run / "result.json").read_text())["test"]
    assert ((test["target"] - test["prediction"]) ** 2).mean() ** 0.5 == pytest.approx(result["rmse"])
    assert plots.read_predictions(run)[0].tolist() == test["target"].tolist()
    assert predictions.read(run, "regression")["y"]["of"] == len(test)
    (errors,) = conformal.scores([run], "regression", ["y"])
    assert errors == pytest.approx((valid["target"] - valid["prediction"]).abs().to_numpy())


def test_folds_that_an_earlier_run_left_predict_no_more(tmp_path: Path) -> None:
    """Three folds were trained in a folder, then two: the mean is of two."""
    for fold in range(3):
        weights = tmp_path / f"fold{fold}" / "best" / "model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.touch()
    assert [path.name for path in expand(tmp_path)] == ["fold0", "fold1", "fold2"]
    (tmp_path / "folds.json").write_text('{"folds": [{"fold": 0}, {"fold": 1}]}')
    assert [path.name for path in expand(tmp_path)] == ["fold0", "fold1"]
