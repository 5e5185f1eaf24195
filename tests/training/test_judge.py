"""How the epoch is chosen, which labels are scored, and with which weights."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from molsam.config.compose import compose
from molsam.data.dataset import MoleculeDataset
from molsam.data.split import Split
from molsam.data.weights import label_weights
from molsam.errors import ConfigError
from molsam.models.api import ModelOutput
from molsam.training.judge import Judge
from molsam.training.objective import Objective, one_sided
from tests.data.helpers import load_rows
from tests.integration.test_run import SMALL
from tests.trust.helpers import train

CHAIN = ["C" * n for n in range(1, 13)]


def split(*parts: list[int]) -> Split:
    train, valid, test = (np.array(part) for part in parts)
    return Split("test", train, valid, test, 0)


def data(tmp_path: Path, columns: list[list[Any]], **settings: Any) -> MoleculeDataset:
    names = "abcd"[: len(columns)]
    rows = [(CHAIN[i], *values) for i, values in enumerate(zip(*columns, strict=True))]
    return load_rows(tmp_path, rows, f"smiles,{','.join(names)}", **{"targets": list(names), **settings})


def test_a_task_that_was_not_learnt_is_not_scored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = data(tmp_path, [[1.5, 2, 3, 4, 5, 6], ["", "", "", "", 100, 200]])
    judge = Judge(dataset, split([0, 1, 2], [3, 4], [5]))
    with caplog.at_level(logging.WARNING, logger="molsam"):
        judge.warn()
    assert "b: no labels in the training part; left out of the metrics and of the selection" in caplog.text
    scores = judge.score(np.array([[5.0, 0.0]]), np.array([5]))
    assert scores.per_task == [1.0, None]
    assert judge.chooses == "rmse"


def test_one_class_in_validation_leaves_the_choice_to_the_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = data(tmp_path, [[1, 0, 1, 1, 1, 0]])
    assert Judge(dataset, split([0, 1, 2], [4, 5], [3])).chooses == "roc_auc"
    judge = Judge(dataset, split([0, 1, 2], [3, 4], [5]))
    with caplog.at_level(logging.WARNING, logger="molsam"):
        judge.warn()
    assert judge.chooses == "loss"
    assert "roc_auc is undefined on the validation part" in caplog.text


def test_without_labels_in_validation_the_last_epoch_is_kept(tmp_path: Path) -> None:
    """Neither the first one, of which all others are no better, nor an end by patience."""
    lines = [f"{'C' * (n + 1)}O,{'' if n >= 20 else n / 10},{('train', 'valid')[n >= 20]}" for n in range(24)]
    lines += [f"{'C' * (n + 1)}N,{n / 10},test" for n in range(4)]
    (tmp_path / "assay.csv").write_text("\n".join(["smiles,y,part", *lines]) + "\n")
    settings = [f"dataset.path={tmp_path / 'assay.csv'}", "dataset.targets=[y]", "split=predefined",
                "split.column=part", "training.patience=1", "training.epochs=3"]  # fmt: skip
    train(compose(["model=gcn", *SMALL["gcn"], "dataset=csv", "training.threads=1", *settings]), tmp_path / "run")
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (found["chosen_by"], found["best_epoch"], found["epochs"]) == ("last", 2, 3)


def test_a_task_that_was_not_learnt_is_no_label_of_validation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset = data(tmp_path, [[1.5, 2, 3, "", "", 6], ["", "", "", 4, 5, 6]])
    judge = Judge(dataset, split([0, 1, 2], [3, 4], [5]))
    with caplog.at_level(logging.WARNING, logger="molsam"):
        judge.warn()
    assert judge.chooses == "last"
    assert "No molecule of the validation part has a label, so the last epoch is kept" in caplog.text
    bounds = data(tmp_path, [[1.5, 2, 3, ">4", ">5", 6]], censored="bound")
    assert Judge(bounds, split([0, 1, 2], [3, 4], [5])).chooses == "loss", "a bound has a loss"


def test_bounds_are_not_scored(tmp_path: Path) -> None:
    dataset = data(tmp_path, [[1.5, ">2", 3, 4, "<5", 6]], censored="bound")
    judge = Judge(dataset, split([0, 1], [2, 3], [4, 5]))
    assert judge.score(np.array([[99.0], [7.0]]), np.array([4, 5])).mean == 1


def test_the_loss_of_a_bound_is_one_sided() -> None:
    """Beyond the bound neither loss nor gradient; short of it those of the plain loss."""
    target, bounds = torch.tensor([[1.0], [1.0], [1.0]]), torch.tensor([[1], [-1], [0]], dtype=torch.int8)
    for name in ("mse", "mae", "huber", "rmse"):
        for value, counts in ((3.0, [False, True, True]), (-1.0, [True, False, True])):
            logits = torch.full((1, 3, 1), value, requires_grad=True)
            loss = Objective("regression", name)
            element = loss.elements(ModelOutput(one_sided(logits, target, bounds)), target)
            element.sum().backward()
            plain = loss.elements(ModelOutput(torch.full((1, 3, 1), value)), target)
            assert element.detach().flatten().tolist() == [
                p if c else 0 for p, c in zip(plain.flatten().tolist(), counts, strict=True)
            ]
            assert logits.grad is not None
            assert [bool(g) for g in logits.grad.flatten()] == counts


def test_weights_of_molecules(tmp_path: Path) -> None:
    rows = [(CHAIN[i], i * 1.5 % 4, w) for i, w in enumerate([1, 0, 3, 2, 8, 1])]
    dataset = load_rows(tmp_path, rows, "smiles,y,w", weights="w")
    assert dataset.task_names == ["y"]
    weights = label_weights(dataset, np.arange(4), None)
    assert weights is not None
    np.testing.assert_allclose(weights[:, 0], np.array([1, 0, 3, 2, 8, 1]) / 1.5)
    dataset.label_weights = weights
    batch = dataset.batch([0, 1, 2])
    output = ModelOutput(torch.tensor([[[0.5], [7.0], [1.0]]]))
    assert batch.targets is not None
    assert batch.mask is not None
    squares = (output.logits[0] - batch.targets).square().flatten()
    expected = float((squares * torch.tensor([1.0, 0.0, 3.0])).sum() / 1.5 / 2)
    assert float(Objective("regression")(output, batch.targets, batch.mask)) == pytest.approx(expected, rel=1e-6)
    assert label_weights(load_rows(tmp_path, rows, "smiles,y,w", targets=["y"]), np.arange(4), None) is None


def test_balanced_classes_count_alike(tmp_path: Path) -> None:
    dataset = data(tmp_path, [[1, 0, 0, 0, 1, ""], [0, 0, 1, "", "", 1]])
    train = np.arange(4)
    weights = label_weights(dataset, train, "balanced")
    assert weights is not None
    for t in range(2):
        known, y = weights[train, t], dataset.targets[train, t]
        assert known[y == 1].sum() == pytest.approx(known[y == 0].sum())
    told = label_weights(dataset, train, [1, 5])
    assert told is not None
    assert told[0, 0] == pytest.approx(5 * told[1, 0])
    assert told[train][~np.isnan(dataset.targets[train])].mean() == pytest.approx(1)
    with pytest.raises(ConfigError, match=r"class_weight=\[1, 2, 3\] has 3 numbers for 2 classes"):
        label_weights(dataset, train, [1, 2, 3])
    with pytest.raises(ConfigError, match="needs classes, and this dataset is a regression"):
        label_weights(data(tmp_path, [[1.5, 2, 3]]), np.arange(3), "balanced")


def test_several_tasks_of_several_classes() -> None:
    """Softmax within each task: the loss is the mean of cross-entropies, by scikit-learn."""
    from sklearn.metrics import log_loss

    rng = np.random.default_rng(3)
    logits = torch.from_numpy(rng.normal(size=(1, 8, 6)))
    target = rng.integers(0, 3, (8, 2)).astype(float)
    objective = Objective("multiclass", classes=3)
    probabilities = objective.predict(ModelOutput(logits)).numpy()
    assert probabilities.shape == (8, 2, 3)
    np.testing.assert_allclose(probabilities.sum(2), 1)
    ours = objective(ModelOutput(logits), torch.from_numpy(target), torch.ones(8, 2, dtype=torch.bool))
    expected = np.mean([log_loss(target[:, t], probabilities[:, t], labels=[0, 1, 2]) for t in range(2)])
    assert float(ours) == pytest.approx(expected, rel=1e-12)
    extra = ModelOutput(logits, torch.ones(8, 6, dtype=torch.float64))
    with_extra = objective(extra, torch.from_numpy(target), torch.ones(8, 2, dtype=torch.bool))
    assert float(with_extra - ours) == pytest.approx(1)
