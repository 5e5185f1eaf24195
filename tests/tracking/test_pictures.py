"""The pictures in a finished run's folder: the learning curve, and the predictions of each task."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from molsam.config.compose import compose
from molsam.config.identity import NEUTRAL
from molsam.tracking import pictures


def finished(folder: Path, task: str, names: list[str]) -> dict[str, Any]:
    """A run's files: three epochs and twenty predictions of each task."""
    rng = np.random.default_rng(0)
    lines = [
        {"kind": "epoch", "epoch": e, "train/loss": 3.0 - e, "valid/loss": 3.5 - e, "valid/rmse": None}
        for e in range(3)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, [{"kind": "step"}, *lines])))
    rows = ["row,smiles,task,target,prediction"]
    for name in names:
        for row in range(20):
            values = {
                "regression": rng.normal(size=2),
                "classification": (row % 2, rng.random()),
                "multiclass": rng.integers(0, 3, 2),
            }
            target, prediction = values[task]
            rows.append(f'{row},C,"{name}",{"" if row == 3 else target},{prediction}')
    (folder / "test_predictions.csv").write_text("\n".join(rows) + "\n")
    per_task = {"rmse": dict.fromkeys(names, 1.0), "roc_auc": dict.fromkeys(names), "mcc": dict.fromkeys(names, 0.5)}
    return {"task": task, "metric": "rmse", "best_epoch": 1, "steps": 3, "per_task": {"test": per_task}}


@pytest.mark.parametrize(
    ("task", "kind"), [("regression", "parity"), ("classification", "roc_pr"), ("multiclass", "confusion")]
)
def test_each_task_has_its_picture(tmp_path: Path, task: str, kind: str) -> None:
    names = ["log(k')", "$x_", "a/b"]
    made = pictures.draw(tmp_path, finished(tmp_path, task, names))
    assert [path.name for path in made] == [
        "learning_curve.png", f"{kind}-01-log_k_.png", f"{kind}-02-_x_.png", f"{kind}-03-a_b.png",
    ]  # fmt: skip
    for path in made:
        image = Image.open(path)
        assert image.width == 680, "a column at 200 dots an inch"
        assert np.asarray(image.convert("L")).std() > 5, "something is drawn"


def test_a_picture_has_the_number_and_the_classes_of_its_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an earlier task has no label in the test part."""
    outcome = finished(tmp_path, "multiclass", ["a", "b"]) | {"classes": [["x", "y", "z"], ["low", "mid", "top"]]}
    path = tmp_path / "test_predictions.csv"
    kept = [re.sub(r'("a"),[^,]*,', r"\1,,", line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(kept) + "\n")
    named: list[Any] = []
    whole = pictures._confusion

    def confusion(*given: Any, names: Any) -> Any:
        named.append(names)
        return whole(*given, names=names)

    monkeypatch.setattr(pictures, "_confusion", confusion)
    assert [made.name for made in pictures.draw(tmp_path, outcome)] == ["learning_curve.png", "confusion-02-b.png"]
    assert named == [["low", "mid", "top"]]


def test_one_class_only_is_said(tmp_path: Path) -> None:
    outcome = finished(tmp_path, "classification", ["y"])
    text = (tmp_path / "test_predictions.csv").read_text()
    (tmp_path / "test_predictions.csv").write_text(text.replace(",1,", ",0,"))
    assert [path.name for path in pictures.draw(tmp_path, outcome)] == ["learning_curve.png", "roc_pr-y.png"]


def test_a_picture_never_ends_a_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    outcome = finished(tmp_path, "regression", ["y"])
    (tmp_path / "test_predictions.csv").unlink()
    with caplog.at_level(logging.WARNING, logger="molsam"):
        assert pictures.draw(tmp_path, outcome) == []
    assert "the pictures cannot be drawn" in caplog.text


def test_pictures_change_no_number() -> None:
    assert "pictures" in NEUTRAL
    assert "pictures" in compose()


def test_classes_are_called_by_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(pictures, "_save", lambda figure, path: drawn.setdefault(path.stem, figure))
    outcome = finished(tmp_path, "multiclass", ["a", "b"])
    pictures.draw(tmp_path, {**outcome, "classes": [["low", "$mid", "high"], ["1", "2", "3"]]})
    for name, labels in [("confusion-01-a", ["low", r"\$mid", "high"]), ("confusion-02-b", ["1", "2", "3"])]:
        axes = drawn[name].axes[0]
        assert [tick.get_text() for tick in axes.get_xticklabels()] == labels
        assert [tick.get_text() for tick in axes.get_yticklabels()] == labels


def test_an_epoch_is_a_whole_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(pictures, "_save", lambda figure, path: drawn.setdefault(path.stem, figure))
    outcome = finished(tmp_path, "regression", ["y"])
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    for count in (2, 3, len(lines)):  # the first line is a step
        drawn.clear()
        (tmp_path / "metrics.jsonl").write_text("".join(lines[:count]))
        pictures.draw(tmp_path, outcome)
        axes = drawn["learning_curve"].axes[0]
        inside = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
        assert inside
        assert all(float(tick).is_integer() for tick in inside)
