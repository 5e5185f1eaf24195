"""Figures 3a, 8 and 9: norms of SAM's two gradients and of their changes, step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from molsam.report.figures import paper, select, style
from molsam.report.figures.drawing import Drawing, MissingRuns, Request
from molsam.report.names import label
from molsam.report.stored import StoredRun

EPS, OMEGA = "#56B4E9", "#D55E00"
RELEASE = "graphsam_release"


def changes(request: Request) -> Drawing:
    """Draw Figures 3a and 8: norms of the differences of eps and omega between successive steps of a SAM run."""
    figure, pairs = _figure(request)
    numbers = {}
    for ax, (model, dataset) in pairs:
        runs = _runs(request, "sam", model, dataset)
        rows = runs[0].gradients()
        _line(ax, rows, "eps_change", EPS, "-", r"$\Vert\epsilon_{t+1}-\epsilon_t\Vert$")
        _line(ax, rows, "omega_change", OMEGA, "--", r"$\Vert\omega_{t+1}-\omega_t\Vert$")
        numbers[f"{model}/{dataset}"] = {
            "run": runs[0].folder.name,
            "runs": len(runs),
            "eps_change_median": _over_runs(runs, "eps_change"),
            "omega_change_median": _over_runs(runs, "omega_change"),
        }
    _legend(figure, pairs)
    return Drawing(
        figure,
        numbers,
        "One SAM run a panel, full gradients, train mode, log scale; dark lines: running median of 25 steps.",
    )


def norms(request: Request) -> Drawing:
    """Draw Figure 9: norms of eps and omega along a SAM run, and of omega in the released code if it was run."""
    figure, pairs = _figure(request)
    numbers = {}
    stated = paper.stated(table="text", metric="ratio_norm_omega_to_norm_eps")
    for ax, (model, dataset) in pairs:
        runs = _runs(request, "sam", model, dataset)
        rows = runs[0].gradients()
        _line(ax, rows, "eps_norm", EPS, "-", r"$\Vert\epsilon_t\Vert$")
        _line(ax, rows, "omega_norm", OMEGA, "--", r"$\Vert\omega_t\Vert$")
        entry: dict[str, Any] = {"run": runs[0].folder.name, "runs": len(runs), "ratio_median": _ratio(runs)}
        text = rf"median $\Vert\omega\Vert/\Vert\epsilon\Vert$: {entry['ratio_median']:.3g}"
        released = _released(request, model, dataset)
        if released:
            _line(ax, released[0].gradients(), "omega_norm", "#000000", ":", r"$\Vert\omega_t\Vert$, released code")
            entry["ratio_median_release"] = _ratio(released)
            text += f", released code {entry['ratio_median_release']:.3g}"
        if stated is not None:
            text += f" (paper: about {stated:g})"
        ax.text(0.99, 0.02, text, transform=ax.transAxes, ha="right", va="bottom", fontsize=6,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})  # fmt: skip
        numbers[f"{model}/{dataset}"] = entry
    _legend(figure, pairs)
    note = "The same loss reduction in both passes; the released code scales omega by the loss, unreduced in GROVER."
    return Drawing(figure, numbers, f"One run a panel, full gradients, log scale. {note}")


def _legend(figure: Figure, pairs: list[tuple[Axes, tuple[str, str]]]) -> None:
    handles, labels = max((ax.get_legend_handles_labels() for ax, _ in pairs), key=lambda found: len(found[0]))
    figure.legend(handles, labels, loc="outside upper center", ncols=3, handlelength=2, columnspacing=1.2)


def _figure(request: Request) -> tuple[Figure, list[tuple[Axes, tuple[str, str]]]]:
    pairs = [(model, dataset) for model in request.models for dataset in request.datasets]
    figure, axes = style.panels(len(pairs), height=1.45)
    for ax, (model, dataset) in zip(axes[:, 0], pairs, strict=True):
        ax.set_title(f"{label(model)}, {label(dataset)}", loc="left")
        ax.set_yscale("log")
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.set_ylabel("norm")
        ax.grid(axis="y")
    axes[-1, 0].set_xlabel("training step")
    return figure, list(zip(axes[:, 0], pairs, strict=True))


def _runs(request: Request, optimizer: str, model: str, dataset: str) -> list[StoredRun]:
    observed = [run for run in request.runs if run.result.get("gradients")]
    runs = [run for run in select.series(select.panel(observed, model, dataset), optimizer) if run.gradients()]
    if not runs:
        raise MissingRuns(f"{label(model)} on {label(dataset)} lacks {style.a(optimizer)} run with gradients.jsonl")
    return runs


def _released(request: Request, model: str, dataset: str) -> list[StoredRun]:
    own = [run for run in request.runs if (run.model, run.dataset) == (model, dataset) and run.result.get("gradients")]
    return select.series(own, RELEASE)


def _line(ax: Axes, rows: list[dict[str, Any]], key: str, colour: str, dash: str, text: str) -> None:
    steps, values = column(rows, key)
    ax.plot(steps, values, color=colour, alpha=0.25, linewidth=0.5)
    ax.plot(steps, running_median(values, 25), color=colour, linestyle=dash, label=text)


def column(rows: list[dict[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and values of the rows that have a value."""
    pairs = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
    values = np.array(pairs, dtype=float).reshape(-1, 2)
    return values[:, 0], values[:, 1]


def running_median(values: np.ndarray, width: int) -> np.ndarray:
    """Return the median of the `width` values around each, fewer at the ends; [n] -> [n]."""
    half = width // 2
    return np.array([np.median(values[max(i - half, 0) : i + half + 1]) for i in range(len(values))])


def _over_runs(runs: list[StoredRun], key: str) -> float | None:
    medians = [float(np.median(values)) for run in runs if len(values := column(run.gradients(), key)[1])]
    return float(np.mean(medians)) if medians else None


def _ratio(runs: list[StoredRun]) -> float:
    ratios = []
    for run in runs:
        rows = [r for r in run.gradients() if r.get("eps_norm") and r.get("omega_norm") is not None]
        ratios.append(np.median([row["omega_norm"] / row["eps_norm"] for row in rows]))
    return float(np.mean(ratios))
