"""A run's predictions reduced to a few points: measured against predicted, a ROC curve, or a confusion matrix."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

NAME = "test_predictions.csv"
BOUND = "bound"
COLUMNS = ("row", "task", "target", "prediction")
TASKS = 12
"""Largest number of tasks that are kept."""
POINTS = 150
"""Largest number of molecules of a task that are drawn."""
CORNERS = 40
"""Largest number of points of a ROC curve."""
LARGEST = 20_000_000
"""Largest file in bytes that is read."""


def read(folder: Path, task: str) -> dict[str, dict[str, Any]]:
    """Return what is drawn for each task of a run; empty without predictions. `task`: the dataset's task type."""
    path = folder / NAME
    try:
        if path.stat().st_size > LARGEST:
            return {}
        with open(path, newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            head = next(lines)
            row, name, target, value = (head.index(column) for column in COLUMNS)
            bound = head.index(BOUND) if BOUND in head else None
            by_task: dict[str, list[tuple[int, float, float]]] = {}
            for line in lines:
                if line[target] != "" and not (bound is not None and line[bound]):  # a bound is no measured value
                    one = int(line[row]), float(line[target]), float(line[value])
                    by_task.setdefault(line[name], []).append(one)
    except (OSError, ValueError, IndexError, StopIteration, csv.Error):
        return {}  # absent, or not written by molsam; the page then says that there are none
    kinds = {"regression": parity, "classification": roc}
    draw = kinds.get(task, classes)
    return {name: draw(*map(np.array, zip(*own, strict=True))) for name, own in list(by_task.items())[:TASKS]}


def parity(rows: np.ndarray, target: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    """Return at most POINTS molecules: the worst ones, and a fixed random choice of the others."""
    order = np.argsort(-np.abs(target - prediction), kind="stable")
    worst, rest = order[: POINTS // 10], order[POINTS // 10 :]
    kept = np.concatenate([worst, np.random.default_rng(0).permutation(rest)[: POINTS - len(worst)]])
    return {
        "kind": "parity", "of": len(rows), "row": rows[kept].astype(int).tolist(), "x": _short(target[kept]),
        "y": _short(prediction[kept]),
    }  # fmt: skip


def roc(rows: np.ndarray, target: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    """Return at most CORNERS points of the ROC curve, and the area under it."""
    # Not by scikit-learn, whose argument checks take fifty times as long, for each task of each run.
    true = target == 1
    positive, negative = int(true.sum()), int((~true).sum())
    if not positive or not negative:
        return {"kind": "roc", "of": len(target), "positive": positive, "x": [], "y": [], "area": None}
    order = np.argsort(-prediction, kind="stable")
    last = np.append(np.diff(prediction[order]) != 0, True)  # molecules of equal score form one step
    y = np.concatenate([[0.0], np.cumsum(true[order])[last] / positive])
    x = np.concatenate([[0.0], np.cumsum(~true[order])[last] / negative])
    area = float(((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2).sum())
    kept = np.unique(np.linspace(0, len(x) - 1, min(CORNERS, len(x))).round().astype(int))
    return {
        "kind": "roc", "of": len(target), "positive": positive, "x": _short(x[kept]), "y": _short(y[kept]),
        "area": round(area, 4),
    }  # fmt: skip


def classes(rows: np.ndarray, target: np.ndarray, prediction: np.ndarray) -> dict[str, Any]:
    """Return the confusion matrix: how often each class was predicted as each."""
    size = int(max(target.max(), prediction.max())) + 1
    counts = np.zeros((size, size), dtype=int)
    np.add.at(counts, (target.astype(int), prediction.round().astype(int)), 1)
    return {"kind": "classes", "of": len(target), "counts": counts.tolist()}


def _short(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values]
