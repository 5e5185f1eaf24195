"""The baseline uses the rows, split, labels and metrics of a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import root_mean_squared_error

from molsam.chem.fingerprints import Morgan
from molsam.chem.molecule import parse
from molsam.commands import main as cli
from molsam.config.compose import compose
from molsam.models.forest import MorganForest
from molsam.report import baselines
from molsam.report.dashboard import collect
from molsam.runs import result
from molsam.wiring.run import start

SMILES = ["C" * n + tail for n in range(1, 11) for tail in ("O", "N", "Cl", "C(=O)O", "c1ccccc1", "F")]


def table(path: Path, **columns: list[Any]) -> list[str]:
    pd.DataFrame({"smiles": SMILES, **columns}).to_csv(path, index=False)
    return ["dataset=csv", f"dataset.path={path}", "split.fractions=[0.6,0.2,0.2]"]


def fitted(folder: Path, settings: list[str], *options: str) -> dict[str, Any]:
    assert (
        cli.main(["baseline", *settings, f"hydra.run.dir={folder}", "pictures=false", "--trees", "20", *options]) == 0
    )
    found = result.read(folder)
    assert found is not None
    return found


def lines(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_split_rows_and_metrics_are_those_of_a_run(tmp_path: Path) -> None:
    """Also with an invalid row, ids, and a label that is missing."""
    values = [float(len(text)) for text in SMILES]
    settings = table(tmp_path / "in.csv", y=values, name=[f"m{i}" for i in range(len(SMILES))])
    text = (tmp_path / "in.csv").read_text() + "not a molecule,3,bad\nCCOC,,m60\n"
    (tmp_path / "in.csv").write_text(text)
    settings += ["dataset.targets=[y]", "dataset.id=name", "seed=3"]
    found = fitted(tmp_path / "forest", settings)
    start(compose([*settings, "model=gcn", "model.hidden_sizes=[4]", "training.epochs=1"]), tmp_path / "run", [])
    run = result.read(tmp_path / "run")
    assert run is not None
    for key in ("split", "data", "task", "metric", "direction"):
        assert found[key] == run[key]
    assert {name for name in run["test"] if name != "loss"} == set(found["test"])
    ours, theirs = (lines(tmp_path / place / "test_predictions.csv") for place in ("forest", "run"))
    assert [(row["row"], row["id"], row["target"]) for row in ours] == [
        (row["row"], row["id"], row["target"]) for row in theirs
    ]
    pairs = np.array([[float(row["target"]), float(row["prediction"])] for row in ours if row["target"]])
    assert found["test"]["rmse"] == pytest.approx(root_mean_squared_error(*pairs.T))


def test_several_tasks_with_missing_labels_are_learnt_apart(tmp_path: Path) -> None:
    """A task is fitted on its own labels alone: what other tasks are does not move it; one without labels is told."""
    ring, acid = ([int(mark in text) for text in SMILES] for mark in ("c1", "O"))
    some = [label if place % 5 else None for place, label in enumerate(acid)]
    parts = [("train", "train", "train", "valid", "test")[place // 6 % 5] for place in range(len(SMILES))]
    settings = table(tmp_path / "in.csv", ring=ring, acid=some, part=parts)[:2]
    settings += ["split=predefined", "split.column=part"]
    found = fitted(tmp_path / "both", [*settings, "dataset.targets=[ring,acid]"])
    assert found["task"] == "classification"
    assert found["test_per_task"] == {"ring": 1.0, "acid": 1.0}
    alone = fitted(tmp_path / "ring", [*settings, "dataset.targets=[ring]"])
    predicted = [[row["prediction"] for row in lines(tmp_path / p / "test_predictions.csv") if row["task"] == "ring"]
                 for p in ("both", "ring")]  # fmt: skip
    assert alone["test"]["roc_auc"] == 1.0
    assert predicted[0] == predicted[1]
    none = table(tmp_path / "none.csv", ring=ring, never=[None] * 59 + [1], part=parts)[:2]
    none += ["dataset.targets=[ring,never]", *settings[2:]]
    assert fitted(tmp_path / "none", none)["tasks_unlearnt"] == ["never"]


def test_several_classes_and_folds(tmp_path: Path) -> None:
    kinds = ["ring" if "c1" in text else "acid" if "=O" in text else "other" for text in SMILES]
    settings = [*table(tmp_path / "in.csv", kind=kinds)[:2], "dataset.targets=[kind]", "dataset.task=multiclass"]
    fitted_folds = ["split=kfold", "split.folds=3"]
    assert cli.main(["baseline", *settings, *fitted_folds, f"hydra.run.dir={tmp_path / 'run'}", "--trees", "20"]) == 0
    summary = json.loads((tmp_path / "run" / "folds.json").read_text())
    assert summary["test"]["n"] == 3
    assert summary["test"]["mean"] > 0.9
    rows = [row["row"] for fold in range(3) for row in lines(tmp_path / "run" / f"fold{fold}" / "test_predictions.csv")]
    assert sorted(map(int, rows)) == list(range(len(SMILES)))


def test_a_second_call_fits_nothing_and_other_settings_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*table(tmp_path / "in.csv", y=[float(len(text)) for text in SMILES]), "dataset.targets=[y]"]
    before = fitted(tmp_path / "run", settings)
    assert fitted(tmp_path / "run", settings)["finished"] == before["finished"]
    assert cli.main(["baseline", *settings, "seed=1", f"hydra.run.dir={tmp_path / 'run'}", "--trees", "20"]) == 2
    assert "seed was 0, is 1" in capsys.readouterr().err
    assert cli.main(["baseline", *settings, "model=dmpnn"]) == 2
    assert "model=dmpnn is no setting of a baseline" in capsys.readouterr().err
    assert cli.main(["baseline", "dataset=cifar10"]) == 2
    assert "dataset=cifar10 has no SMILES, which a baseline reads" in capsys.readouterr().err
    assert cli.main(["predict", str(tmp_path / "run"), str(tmp_path / "in.csv")]) == 2
    assert "holds a baseline" in capsys.readouterr().err
    assert cli.main(["rerun", str(tmp_path / "run")]) == 0
    assert "agree to the bit" in capsys.readouterr().out


def test_weights_and_classes_without_labels() -> None:
    features = Morgan().array([parse(text) for text in SMILES]).astype(np.float32)
    ring = np.array([[float("c1" in text)] for text in SMILES])
    forest = MorganForest(trees=10, threads=1)
    forest.fit(features, ring, None, classes=3, seed=0)
    found = forest.predict(features)
    assert found.shape == (len(SMILES), 1, 3)
    assert np.all(found[..., 2] == 0)
    assert np.array_equal(found[:, 0].argmax(1), ring[:, 0])
    ignored = np.where(ring == 1, 0.0, 1.0)
    forest.fit(features, ring, ignored, classes=2, seed=0)
    assert np.all(forest.predict(features) < 0.5)
    forest.fit(features, np.full((len(SMILES), 1), np.nan), None, classes=0, seed=0)
    assert np.isnan(forest.predict(features)).all()


def test_a_baseline_stands_beside_runs_of_any_number_of_epochs(tmp_path: Path) -> None:
    """In the dashboard, and as a line under a table whose cells have its splits."""
    settings = [*table(tmp_path / "in.csv", y=[float(len(text)) for text in SMILES]), "dataset.targets=[y]"]
    fitted(tmp_path / "a", settings)
    tiny = ["model=gcn", "model.hidden_sizes=[4]", "training.epochs=2"]
    start(compose([*settings, *tiny]), tmp_path / "b", [])
    data = collect.Collector([tmp_path], collect.relative_link(tmp_path)).collect()
    assert sorted(group["model"] for group in data["groups"]) == ["forest", "gcn"]
    assert len(data["benchmarks"]) == 1
    cells = pd.DataFrame({"dataset": ["csv"], "metric": ["rmse"], "split": ["x y"]})
    forests = cells.assign(model="forest", score=0.5)
    (said,) = baselines.remarks(cells, forests)
    assert "csv RMSE 0.500 (1 of 1 splits)" in said
    assert not baselines.remarks(cells, forests.assign(split="x z"))
    assert not baselines.remarks(cells, forests.assign(model="gcn"))
    assert not baselines.remarks(cells, forests.assign(metric="mae"))


def test_the_persons_own_configuration_is_used(tmp_path: Path) -> None:
    _, path, split = table(tmp_path / "in.csv", y=[float(len(text)) for text in SMILES])
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    own = f"defaults: [csv@_here_, _self_]\npath: {path.partition('=')[2]}\ntargets: [y]\n"
    (tmp_path / "conf" / "dataset" / "assay.yaml").write_text(own)
    found = fitted(tmp_path / "forest", ["dataset=assay", split], "--config-dir", str(tmp_path / "conf"))
    assert found["dataset"] == "assay"
