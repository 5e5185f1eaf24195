"""The plots of predictions show the values of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from molsam.report.dashboard import predictions

HEAD = "row,smiles,task,target,prediction\n"


def write(folder: Path, rows: list[tuple[int, str, object, float]]) -> Path:
    text = "".join(f'{row},"C,C",{task},{target},{value!r}\n' for row, task, target, value in rows)
    (folder / predictions.NAME).write_text(HEAD + text)
    return folder


def test_parity_keeps_the_worst_and_every_row_number(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [(7 * i, "logS", float(t), float(t + rng.normal(0, 0.1))) for i, t in enumerate(rng.normal(size=900))]
    rows[333] = (7 * 333, "logS", 0.0, 50.0)
    found = predictions.read(write(tmp_path, rows), "regression")["logS"]
    assert (found["of"], len(found["x"]), len(found["row"])) == (900, predictions.POINTS, predictions.POINTS)
    assert (found["row"][0], found["y"][0]) == (7 * 333, 50)
    by_row = {row: (target, value) for row, _, target, value in rows}
    for row, x, y in zip(found["row"], found["x"], found["y"], strict=True):
        assert (x, y) == pytest.approx(by_row[row], rel=1e-3, abs=1e-4)
    assert len(set(found["row"])) == predictions.POINTS


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_is_that_of_scikit_learn(tmp_path: Path, ties: bool) -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    target = rng.integers(0, 2, 300)
    score = target * 0.5 + rng.normal(size=300)
    score = score.round(1) if ties else score
    rows = [(i, "toxic", int(t), float(s)) for i, (t, s) in enumerate(zip(target, score, strict=True))]
    found = predictions.read(write(tmp_path, [*rows, (300, "toxic", "", 0.3)]), "classification")["toxic"]
    assert found["area"] == pytest.approx(roc_auc_score(target, score), abs=1e-4)
    assert (found["of"], found["positive"]) == (300, int(target.sum()))
    assert (found["x"][0], found["y"][0], found["x"][-1], found["y"][-1]) == (0, 0, 1, 1)
    assert found["x"] == sorted(found["x"])
    assert len(found["x"]) <= predictions.CORNERS


def test_one_class_has_no_curve(tmp_path: Path) -> None:
    found = predictions.read(write(tmp_path, [(0, "t", 1, 0.5), (1, "t", 1, 0.4)]), "classification")["t"]
    assert (found["area"], found["x"]) == (None, [])


def test_classes_are_counted(tmp_path: Path) -> None:
    rows: list[tuple[int, str, object, float]] = [(0, "t", 0, 0.0), (1, "t", 2, 1.0), (2, "t", 2, 2.0)]
    found = predictions.read(write(tmp_path, rows), "multiclass")["t"]
    assert found["counts"] == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize("text", ["", "row,task\n", HEAD + "0,C,t,high,0.5\n", HEAD + "0,C\n", "\udcff"])
def test_a_file_of_another_kind_is_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / predictions.NAME).write_text(text, errors="surrogateescape")
    assert predictions.read(tmp_path, "regression") == {}
    assert predictions.read(tmp_path / "absent", "regression") == {}
