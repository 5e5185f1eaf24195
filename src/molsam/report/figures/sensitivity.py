"""Figure 7: sensitivity to two of GraphSAM's settings, the initial rho and the epochs between its reductions."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes

from molsam.report.figures import paper, select, style
from molsam.report.figures.drawing import Drawing, MissingRuns, Request
from molsam.report.names import label
from molsam.report.stored import StoredRun

RHO = (0.05, 0.01, 0.005, 0.001)
LAMBDA = (1, 3, 5)


def initial_rho(request: Request) -> Drawing:
    """Draw Figure 7a: the test metric for each initial rho; lambda 1, gamma 0.5, beta 0.99."""
    fixed = {"rho_schedule__lam": 1, "rho_schedule__gamma": 0.5, "optimizer__beta": 0.99}
    return _draw(request, "optimizer.rho", RHO, fixed, r"initial $\rho$", 0.05)


def rho_lambda(request: Request) -> Drawing:
    """Draw Figure 7b: the test metric for each lambda; rho 0.05, gamma 0.5, beta 0.99.

    With the staircase schedule, and with equation 4 as printed if it was run.
    """
    fixed = {"optimizer__rho": 0.05, "rho_schedule__gamma": 0.5, "optimizer__beta": 0.99}
    return _draw(request, "rho_schedule.lam", LAMBDA, fixed, r"$\lambda$", 1)


def _draw(
    request: Request, key: str, grid: tuple[float, ...], fixed: dict[str, Any], axis: str, default: float
) -> Drawing:
    pairs = [(model, dataset) for dataset in request.datasets for model in request.models]
    figure, axes = style.panels(len(pairs), height=1.8)
    numbers: dict[str, Any] = {}
    for ax, (model, dataset) in zip(axes[:, 0], pairs, strict=True):
        runs = select.panel([run for run in request.runs if run.optimizer == "graphsam"], model, dataset)
        groups = {value: _series(runs, key, value, "staircase", fixed) for value in grid}
        missing = [f"{key}={value}" for value, group in groups.items() if not group]
        if missing:
            raise MissingRuns(f"GraphSAM with {label(model)} on {label(dataset)} lacks {', '.join(missing)}")
        entry: dict[str, Any] = {"staircase": {str(v): select.mean_std(r.test for r in g) for v, g in groups.items()}}
        # At lambda = 1 both schedules are the same.
        real = {v: groups[v] if v == 1 else _series(runs, key, v, "continuous", fixed) for v in grid}
        if key == "rho_schedule.lam" and all(real.values()):
            entry["continuous"] = {str(v): select.mean_std(r.test for r in g) for v, g in real.items()}
        entry["paper"] = paper.stated_score(model, "graphsam", dataset)
        _panel(ax, entry, grid, grid.index(default))
        ax.set_title(f"{label(model)} + GraphSAM, {label(dataset)}", loc="left")
        ax.set_ylabel(f"test {label(runs[0].result['metric'])}")
        numbers[f"{model}/{dataset}"] = entry
    axes[-1, 0].set_xlabel(axis)
    return Drawing(figure, numbers, "Mean and standard deviation over runs; dash: the paper's value at its default.")


def _series(runs: list[StoredRun], key: str, value: float, schedule: str, fixed: dict[str, Any]) -> list[StoredRun]:
    own = [run for run in runs if run.setting("choices.rho_schedule") == schedule]
    return select.series(own, "graphsam", **{key.replace(".", "__"): value}, **fixed)


def _panel(ax: Axes, entry: dict[str, Any], grid: tuple[float, ...], default: int) -> None:
    lines = (
        ("staircase", "-", "^", r"staircase $\lfloor e/\lambda\rfloor$"),
        ("continuous", "--", "o", r"real $e/\lambda$"),
    )
    for schedule, dash, marker, text in lines:
        if schedule not in entry:
            continue
        points = [entry[schedule][str(value)] for value in grid]
        ax.errorbar(range(len(grid)), [p["mean"] for p in points], yerr=[p["std"] or math.nan for p in points],
                    fmt=marker + dash, color=style.colour("graphsam" if schedule == "staircase" else "sam_k"),
                    capsize=2.5, markersize=4, label=text if "continuous" in entry else None)  # fmt: skip
    if entry["paper"] is not None:
        ax.plot(default, entry["paper"], **{**style.PAPER, "markersize": 14}, markeredgewidth=1.6)
    ax.set_xticks(range(len(grid)), [f"{value:g}" for value in grid])
    ax.margins(x=0.12)
    ax.grid(axis="y")
    if ax.get_legend_handles_labels()[0]:
        ax.legend()
