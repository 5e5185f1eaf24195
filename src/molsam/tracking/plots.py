"""Small plots of one run: parity or ROC curves, and the learning curve."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

PREDICTIONS = "test_predictions.csv"
BOUND = "bound"
"""Its column that marks labels which are bounds, if the dataset has any."""
# At its first start matplotlib logs which fonts it found.
logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)


def result_plots(folder: Path, result: dict[str, Any], curve: list[dict[str, Any]]) -> dict[str, Any]:
    """Return matplotlib figures by name, from test_predictions.csv and the epochs' records."""
    figures = {"learning_curve": _learning_curve(result, curve)}
    target, prediction = read_predictions(folder)
    if len(target):
        if result["task"] == "regression":
            figures["parity"] = _parity(result, target, prediction)
        elif result["task"] == "classification":
            figures["confusion"] = _confusion(result, target, prediction)
    if (result["gradients"] or {}).get("cos_next_mean") is not None:
        figures["gradient_cosines"] = _cosines(folder)
    return figures


def pixels(figure: Any) -> np.ndarray:
    """Return a figure as uint8 [height, width, 4], without touching matplotlib's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def read_predictions(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return targets and predictions of all known values of the test part, task by task; bounds are no values."""
    with open(folder / PREDICTIONS, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pairs = [(row["target"], row["prediction"]) for row in rows if row["target"] != "" and not row.get(BOUND)]
    values = np.array(pairs, dtype=float).reshape(-1, 2)
    return values[:, 0], values[:, 1]


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4, 3.2), dpi=120, layout="constrained")
    return figure, figure.subplots()


def _learning_curve(result: dict[str, Any], curve: list[dict[str, Any]]) -> Any:
    figure, axes = _figure()
    epochs = [row["epoch"] + 1 for row in curve]
    axes.plot(epochs, [row["train/loss"] for row in curve], label="train loss")
    axes.plot(epochs, [row["valid/loss"] for row in curve], label="valid loss")
    axes.axvline(result["best_epoch"] + 1, color="0.6", linestyle=":", label="best epoch")
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend(frameon=False)
    return figure


def _parity(result: dict[str, Any], target: np.ndarray, prediction: np.ndarray) -> Any:
    figure, axes = _figure()
    low, high = min(target.min(), prediction.min()), max(target.max(), prediction.max())
    axes.plot([low, high], [low, high], color="0.6", linewidth=1)
    axes.scatter(target, prediction, s=8, alpha=0.6)
    metric = result["metric"]
    axes.set(xlabel="measured", ylabel="predicted", title=f"test {metric} {result['test'][metric]:.3f}")
    return figure


def _confusion(result: dict[str, Any], target: np.ndarray, prediction: np.ndarray) -> Any:
    figure, axes = _figure()
    counts = np.zeros((2, 2), dtype=int)
    np.add.at(counts, (target.astype(int), (prediction >= 0.5).astype(int)), 1)
    axes.imshow(counts, cmap="Blues")
    for row, column in np.ndindex(2, 2):
        shade = "white" if counts[row, column] > counts.max() / 2 else "black"
        axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=shade)
    axes.set(xlabel="predicted (threshold 0.5)", ylabel="measured", xticks=[0, 1], yticks=[0, 1])
    value = result["test"][result["metric"]]
    axes.set_title(f"test {result['metric']} " + ("-" if value is None or value != value else f"{value:.3f}"))
    return figure


def _cosines(folder: Path) -> Any:
    with open(folder / "gradients.jsonl", encoding="utf-8") as file:
        values = [row["cos_next"] for row in map(json.loads, file) if row.get("cos_next") is not None]
    figure, axes = _figure()
    axes.hist(values, bins=40, range=(-1, 1))
    axes.axvline(0, color="0.4", linewidth=1)
    axes.set(xlabel="cos(eps t+1, omega t)", ylabel="steps")
    return figure
