"""Several classes, from the file to the predicted table: every model, ensembles, sets, explanations, Python."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import molsam
from molsam.commands import main as cli
from molsam.config.compose import compose
from molsam.errors import ConfigError
from molsam.models.api import ModelOutput
from molsam.runs import result
from molsam.training.metrics import fitting
from molsam.training.objective import Objective
from molsam.wiring.explain import attention, explain
from molsam.wiring.run import start
from molsam.wiring.trained import Trained
from tests.wiring.test_initial import SMALL

SMILES = ["C" * n + tail for n in range(1, 9) for tail in ("O", "N", "Cl", "C(=O)O", "c1ccccc1", "F")]
KINDS = ["ring" if "c1" in text else "acid" if "=O" in text else "other" for text in SMILES]


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of three and of two classes, with labels missing, and names."""
    path = tmp_path_factory.mktemp("classes") / "in.csv"
    size = [None if place % 7 == 0 else ("big" if len(text) > 7 else "small") for place, text in enumerate(SMILES)]
    names = [f"m{place}" for place in range(len(SMILES))]
    pd.DataFrame({"smiles": SMILES, "kind": KINDS, "size": size, "name": names}).to_csv(path, index=False)
    return path


def train(table: Path, folder: Path, model: str, *more: str) -> Path:
    words = ["dataset=csv", f"dataset.path={table}", "dataset.task=multiclass", "dataset.targets=[kind,size]"]
    words += [
        "dataset.id=name",
        f"model={model}",
        *SMALL[model],
        "training.epochs=2",
        "training.threads=1",
        "split=kfold",
    ]
    start(compose([*words, "split.folds=3", *(more or ("split.fold=0",))]), folder, [])
    return folder


@pytest.mark.parametrize("model", SMALL)
def test_every_model_learns_classes_and_gives_their_probabilities(model: str, table: Path, tmp_path: Path) -> None:
    run = train(table, tmp_path / "run", model)
    found = result.read(run)
    assert found is not None
    assert found["classes"] == [["acid", "other", "ring"], ["big", "small"]]
    assert {one.name for one in fitting("multiclass")} <= set(found["test"])
    assert cli.main(["predict", str(run), str(table), "--interval", "0.5", "-o", str(tmp_path / "out.csv")]) == 0
    stored = {(row["row"], row["task"]): row for row in read(run / "test_predictions.csv")}
    for place, row in enumerate(read(tmp_path / "out.csv")):
        assert row["name"] == f"m{place}"
        shares = {one: float(row[f"kind_prob_{one}"]) for one in ("acid", "other", "ring")}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
        assert row["kind_pred"] == max(shares, key=lambda one: shares[one])
        if (line := stored.get((str(place), "kind"))) is not None:
            assert float(line["probability_of_target"]) == pytest.approx(shares[KINDS[place]], rel=1e-4)
            assert ["acid", "other", "ring"][int(float(line["prediction"]))] == row["kind_pred"]
            assert (line["target_class"], line["predicted_class"]) == (KINDS[place], row["kind_pred"])


def test_several_runs_are_averaged_class_by_class(table: Path, tmp_path: Path) -> None:
    """By the folder of folds, by each fold's own folder, and in Python: all the same."""
    run = train(table, tmp_path / "run", "gcn", "seed=1")
    folds = sorted(run.glob("fold*"))  # as a shell does it: folds.json is one of them
    assert cli.main(["predict", str(run), str(table), "-o", str(tmp_path / "all.csv")]) == 0
    assert cli.main(["predict", *map(str, folds), str(table), "-o", str(tmp_path / "each.csv")]) == 0
    rows = read(tmp_path / "all.csv")
    assert rows == read(tmp_path / "each.csv")
    frames = [molsam.load(fold).predict(SMILES) for fold in folds if fold.is_dir()]
    together = molsam.load(run).predict([*SMILES, "no molecule"])
    for called in ("acid", "other", "ring"):
        single = np.array([frame[f"kind_{called}"] for frame in frames])
        column = [float(row[f"kind_prob_{called}"]) for row in rows]
        assert column == pytest.approx(single.mean(0))
        assert together[f"kind_{called}"][:-1].tolist() == pytest.approx(single.mean(0))
        spread = [float(row[f"kind_prob_{called}_std"]) for row in rows]
        assert spread == pytest.approx(single.std(0, ddof=1))
    assert together["kind"][:-1].tolist() == [row["kind_pred"] for row in rows]
    assert pd.isna(together["kind"].iloc[-1])


def test_sets_hold_the_truth_as_often_as_asked(table: Path, tmp_path: Path) -> None:
    """A set of classes grows with the coverage; the likeliest class is in any that is not empty."""
    run = train(table, tmp_path / "run", "gcn", "split.fold=0", "split.valid=0.4")
    sizes = []
    for coverage in ("0.3", "0.8"):
        assert cli.main(["predict", str(run), str(table), "--interval", coverage, "-o", str(tmp_path / "out.csv")]) == 0
        rows = read(tmp_path / "out.csv")
        held = [set(filter(None, row["kind_set"].split("|"))) for row in rows]
        assert all(not one or row["kind_pred"] in one for one, row in zip(held, rows, strict=True))
        sizes.append(sum(map(len, held)))
    assert sizes[0] < sizes[1]
    valid = read(run / "valid_predictions.csv")
    scores = [1 - float(row["probability_of_target"]) for row in valid if row["task"] == "kind"]
    radius = sorted(scores)[int(np.ceil((len(scores) + 1) * 0.8)) - 1]
    for one, row in zip(held, rows, strict=True):
        assert one == {k for k in ("acid", "other", "ring") if 1 - float(row[f"kind_prob_{k}"]) <= radius}


def test_a_class_that_a_task_does_not_have_has_no_probability() -> None:
    """Nor a slope; with as many classes as any other task nothing is left out."""
    logits = torch.randn(2, 5, 6, requires_grad=True)
    output, mask = ModelOutput(logits), torch.ones(5, 2, dtype=torch.bool)
    target = torch.tensor([[2.0, 1.0]] * 5)
    objective = Objective("multiclass", classes=3, names=[["a", "b", "c"], ["x", "y"]])
    shares = objective.predict(output)
    assert torch.all(shares[:, 1, 2] == 0)
    torch.testing.assert_close(shares.sum(2), torch.ones(5, 2))
    objective(output, target, mask).backward()
    assert logits.grad is not None
    assert torch.all(logits.grad[..., 5] == 0)
    assert torch.all(logits.grad[..., :5] != 0)
    alone = Objective("multiclass", classes=3)(output, target, mask)
    same = Objective("multiclass", classes=3, names=[["a", "b", "c"]] * 2)(output, target, mask)
    assert torch.equal(alone, same)


@pytest.mark.parametrize("model", ["gcn", "compt", "grover"])
def test_the_likeliest_class_is_explained(model: str, table: Path, tmp_path: Path) -> None:
    """Its logit is split among the atoms; attention, where a model has it, is 1 in sum."""
    more = ["model.readout=self_attention"] if model == "grover" else []
    run = Trained(train(table, tmp_path / "run", model, "split.fold=0", *more))
    found = explain(run, "CCCO")
    frame = molsam.load(run.folder).predict(["CCCO"])
    for task in ("kind", "size"):
        assert found.classes[task] == frame[task][0]
        assert found.values[task] == pytest.approx(frame[f"{task}_{found.classes[task]}"][0], rel=1e-4)
        assert found.atoms[task].shape == (4,)
    if model == "gcn":
        with pytest.raises(ConfigError, match="GCN has no attention"):
            attention(run, "CCCO")
        return
    looked = attention(run, "CCCO").atoms["kind"]
    assert looked.sum() == pytest.approx(1, rel=1e-5)
    assert np.all(looked > 0)


def test_attention_is_a_mean_over_layers_heads_and_atoms(tmp_path: Path) -> None:
    """CoMPT's, of each molecule of a batch by itself; GROVER without an attentive readout says so."""
    common = ["dataset=freesolv", "dataset.limit=30", "training.epochs=1", "training.threads=1"]
    start(compose([*common, "model=compt", *SMALL["compt"]]), tmp_path / "compt", [])
    run = Trained(tmp_path / "compt")
    from molsam.data.featurize import featurized

    rows = list(featurized(["CCO", "c1ccccc1O"], run.work))
    both = run.model.atom_attention(run.batch(rows))  # type: ignore[operator]
    single = torch.cat([run.model.atom_attention(run.batch([row])) for row in rows])  # type: ignore[operator]
    torch.testing.assert_close(both, single)
    layers = run.model.attention(run.batch(rows[:1]))  # type: ignore[operator]
    maps = [layer[0] / layer[0].sum(-1, keepdim=True) for layer in layers]
    torch.testing.assert_close(both[:3], torch.stack(maps).mean((0, 1)).mean(0))
    start(compose([*common, "model=grover", *SMALL["grover"]]), tmp_path / "grover", [])
    with pytest.raises(ConfigError, match="attends between heads, not between atoms"):
        attention(Trained(tmp_path / "grover"), "CCO")


def test_vectors_keep_the_names_of_the_run(table: Path, tmp_path: Path) -> None:
    run = train(table, tmp_path / "run", "gcn")
    assert cli.main(["embed", str(run), str(table), "-o", str(tmp_path / "v.parquet")]) == 0
    frame = pd.read_parquet(tmp_path / "v.parquet")
    assert frame["id"].tolist() == [f"m{place}" for place in range(len(SMILES))]
