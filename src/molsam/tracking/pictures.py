"""Pictures of a finished run in its folder: the learning curve, and each task's predictions on the test part."""

from __future__ import annotations

import csv
import json
import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from molsam.config.metrics import display
from molsam.files import write_atomic
from molsam.tracking.plots import BOUND, PREDICTIONS

log = logging.getLogger(__name__)
FOLDER = "pictures"
MOST_TASKS = 30
"""Largest number of tasks that are drawn; all predictions are in test_predictions.csv."""
MOST_NAMED = 12
"""Largest number of classes of a confusion matrix that are named and counted."""
COLUMN = 3.4
"""Width of a paper's column in inches."""
STYLE: Any = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.6"
"""Colours that can be distinguished without colour vision."""


def draw(folder: Path, outcome: dict[str, Any]) -> list[Path]:
    """Draw the pictures of a finished run into its folder, and return their paths. A failure causes only a warning."""
    import matplotlib as mpl

    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        with mpl.rc_context(STYLE):
            curve = {"learning_curve": _learning_curve(folder, outcome)} if outcome["steps"] else {}
            figures = {**curve, **_tasks(folder, outcome)}
            return [_save(figure, folder / FOLDER / f"{name}.png") for name, figure in figures.items()]
    except Exception as error:  # a run must not fail because of its pictures
        log.warning("%s: the pictures cannot be drawn (%s).", folder, " ".join(str(error).split())[:200])
        return []


def _save(figure: Any, path: Path) -> Path:
    import io

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    write_atomic(path, buffer.getvalue())
    return path


def _figure(height: float = 2.7, columns: int = 1) -> tuple[Any, Any]:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(COLUMN, height), layout=ConstrainedLayoutEngine(w_pad=0.08))
    return figure, figure.subplots(1, columns)


def _learning_curve(folder: Path, outcome: dict[str, Any]) -> Any:
    """Return a figure with the losses on the left axis and the validation metric on the right one."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    curve = [row for row in map(json.loads, lines) if row.get("kind") == "epoch"]
    figure, axes = _figure()
    epochs, metric = [row["epoch"] + 1 for row in curve], outcome["metric"]
    mark = "." if len(epochs) < 12 else ""
    axes.plot(epochs, _column(curve, "train/loss"), color=BLUE, marker=mark, label="training loss")
    axes.plot(epochs, _column(curve, "valid/loss"), color=BLUE, marker=mark, linestyle="--", label="validation loss")
    axes.set(xlabel="epoch", ylabel="loss")
    if len(epochs) == 1:
        axes.set_xticks(epochs)
    else:
        axes.xaxis.get_major_locator().set_params(integer=True)
    other = axes.twinx()
    other.spines["right"].set_visible(True)
    other.plot(
        epochs, _column(curve, f"valid/{metric}"), color=ORANGE, marker=mark, label=f"validation {display(metric)}"
    )
    other.set_ylabel(display(metric), color=ORANGE)
    axes.axvline(outcome["best_epoch"] + 1, color=GREY, linestyle=":", label="epoch kept")
    handles = [*axes.get_legend_handles_labels()[0], *other.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _column(curve: list[dict[str, Any]], name: str) -> list[float]:
    return [np.nan if row.get(name) is None else row[name] for row in curve]


def _tasks(folder: Path, outcome: dict[str, Any]) -> dict[str, Any]:
    """Return a figure for each task, named by the task's number and name."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with open(folder / PREDICTIONS, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            own = found[row["task"]]  # also of a task without labels: a figure has the number of its task
            if row["target"] != "" and not row.get(BOUND):
                own.append((float(row["target"]), float(row["prediction"])))
    if len(found) > MOST_TASKS:
        log.info("Only the first %d of %d tasks are drawn.", MOST_TASKS, len(found))
    figures = {}
    names = outcome.get("classes") or []
    for place, (task, pairs) in enumerate(list(found.items())[:MOST_TASKS], 1):
        if not pairs:
            continue
        target, prediction = np.array(pairs).T
        kind, make = {
            "regression": ("parity", _parity),
            "classification": ("roc_pr", _roc_and_pr),
        }.get(outcome["task"], ("confusion", partial(_confusion, names=dict(enumerate(names, 1)).get(place))))
        values = {
            name: by_task.get(task) for name, by_task in (outcome.get("per_task") or {"test": {}})["test"].items()
        }
        prefix = f"{place:02d}-" if len(found) > 1 else ""
        figures[f"{kind}-{prefix}{re.sub(r'[^A-Za-z0-9._-]+', '_', task)[:60] or 'task'}"] = make(
            _plain(task), target, prediction, values
        )
    return figures


def _plain(text: str) -> str:
    """Return a name that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def _said(values: dict[str, Any], *names: str) -> str:
    return ", ".join(f"{display(name)} {values[name]:.3f}" for name in names if values.get(name) is not None)


def _parity(task: str, target: np.ndarray, prediction: np.ndarray, values: dict[str, Any]) -> Any:
    figure, axes = _figure(height=3.2)
    low, high = min(target.min(), prediction.min()), max(target.max(), prediction.max())
    axes.plot([low, high], [low, high], color=GREY, linewidth=1)
    axes.scatter(target, prediction, s=8, alpha=0.6, color=BLUE, linewidths=0, rasterized=True)
    axes.set(xlabel=f"measured {task}", ylabel=f"predicted {task}", aspect="equal")
    axes.set_title(f"test: n {len(target)}, {_said(values, 'rmse', 'r2')}", fontsize=8)
    return figure


def _roc_and_pr(task: str, target: np.ndarray, prediction: np.ndarray, values: dict[str, Any]) -> Any:
    """Return a figure with both curves side by side; empty if the test part has only one class."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    figure, (left, right) = _figure(height=2.2, columns=2)
    positive = int(target.sum())
    if 0 < positive < len(target):
        false, true, _ = roc_curve(target, prediction)
        precision, recall, _ = precision_recall_curve(target, prediction)
        left.plot(false, true, color=BLUE)
        right.step(recall, precision, where="post", color=BLUE)
    else:
        left.text(0.5, 0.5, "one class only", ha="center", color=GREY)
    left.plot([0, 1], [0, 1], color=GREY, linewidth=1)
    right.axhline(positive / len(target), color=GREY, linewidth=1)
    left.set(xlabel="false positive rate", ylabel="true positive rate", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    right.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    left.set_title(_said(values, "roc_auc"), fontsize=8)
    right.set_title(_said(values, "pr_auc"), fontsize=8)
    figure.suptitle(f"{task}, test: {positive} positive of {len(target)}", fontsize=8)
    return figure


def _confusion(
    task: str, target: np.ndarray, prediction: np.ndarray, values: dict[str, Any], names: Sequence[str] | None = None
) -> Any:
    """Counts of measured and predicted classes, called by their `names`, or by their numbers if there are none."""
    figure, axes = _figure(height=3.2)
    count = max(int(max(target.max(), prediction.max())) + 1, len(names or ()))
    counts = np.zeros((count, count), dtype=int)
    np.add.at(counts, (target.astype(int), prediction.astype(int)), 1)
    axes.imshow(counts, cmap="Blues")
    for row, column in np.ndindex(*counts.shape) if count <= MOST_NAMED else ():
        shade = "white" if counts[row, column] > counts.max() / 2 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade)
    labels = [_plain(name[:14]) for name in names or map(str, range(count))]
    if count <= MOST_NAMED:
        axes.set_xticks(range(count), labels, rotation=90 if max(map(len, labels)) > 4 else 0)
        axes.set_yticks(range(count), labels)
    axes.set(xlabel="predicted class", ylabel="measured class")
    axes.set_title(f"{task}, test: {_said(values, 'accuracy', 'mcc')}", fontsize=8)
    return figure
