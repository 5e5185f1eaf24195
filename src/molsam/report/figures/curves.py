"""Figure 5: training and test loss by epoch under Adam, SAM and GraphSAM."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from molsam.report.figures import select, style
from molsam.report.figures.drawing import Drawing, MissingRuns, Request
from molsam.report.names import label
from molsam.report.stored import StoredRun

OPTIMIZERS = ("adam", "sam", "graphsam")


def losses(request: Request) -> Drawing:
    """Draw one panel per model and dataset; solid: test, dashed: training, bands: standard deviation over runs."""
    pairs = [(model, dataset) for dataset in request.datasets for model in request.models]
    figure, axes = style.panels(len(pairs), height=1.7)
    numbers: dict[str, Any] = {}
    for ax, (model, dataset) in zip(axes[:, 0], pairs, strict=True):
        told = [run for run in request.runs if run.setting("training.test_each_epoch") and _has_losses(run)]
        runs = select.panel(told, model, dataset)
        entry = {}
        for name in OPTIMIZERS:
            group = select.series(runs, name)
            if not group:
                raise MissingRuns(f"{label(model)} on {label(dataset)} lacks {style.a(name)} run with test losses")
            entry[name] = _curves(ax, name, group)
        ax.set_title(f"{label(model)}, {label(dataset)}", loc="left")
        ax.set_ylabel("loss")
        ax.grid(axis="y")
        numbers[f"{model}/{dataset}"] = entry
    axes[-1, 0].set_xlabel("epoch")
    _legend(axes[0, 0], figure)
    return Drawing(
        figure, numbers, "Mean loss over runs; full: test, dashed: training (clean pass where there is one)."
    )


def _has_losses(run: StoredRun) -> bool:
    """Return whether a run has losses; older packed runs have none."""
    rows = run.epochs()
    return bool(rows) and all(row.get(key) is not None for row in rows for key in ("test/loss", "train/loss"))


def _curves(ax: Axes, name: str, group: list[StoredRun]) -> dict[str, Any]:
    test, train = mean_curve(group, ("test/loss",)), mean_curve(group, ("train/loss",))
    # A line of one point would be invisible.
    marker = "." if len(test["epoch"]) == 1 else None
    ax.plot(test["epoch"], test["mean"], color=style.colour(name), marker=marker)
    ax.plot(train["epoch"], train["mean"], color=style.colour(name), marker=marker, linestyle="--")
    if len(group) > 1:
        mean, std = np.array(test["mean"]), np.array(test["std"])
        ax.fill_between(test["epoch"], mean - std, mean + std, color=style.colour(name), alpha=0.18, linewidth=0)
    return {"runs": len(group), "test": test, "train": train}


def mean_curve(group: list[StoredRun], keys: tuple[str, ...]) -> dict[str, list[float]]:
    """Return mean and standard deviation (ddof 1; 0 for one run) at each epoch that all runs have.

    `keys`: the first one that an epoch line has is used.
    """
    lines = [[next(row[k] for k in keys if row.get(k) is not None) for row in run.epochs()] for run in group]
    length = min(map(len, lines))
    values = np.array([line[:length] for line in lines], dtype=float)
    std = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(length)
    return {
        "epoch": list(range(1, length + 1)),
        "mean": [float(v) for v in values.mean(axis=0)],
        "std": [float(v) for v in std],
    }


def _legend(ax: Axes, figure: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=style.colour(name), label=label(name)) for name in OPTIMIZERS]
    handles += [Line2D([], [], color="0.3", label="test"), Line2D([], [], color="0.3", linestyle="--", label="train")]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, handlelength=1.5, columnspacing=0.9)
