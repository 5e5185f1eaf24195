"""Figure 2: the training loss along random directions around the trained weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from molsam.report.figures import select, style
from molsam.report.figures.drawing import Drawing, MissingRuns, Request
from molsam.report.names import label
from molsam.report.stored import StoredRun

DASHES = {"adam": "--", "sam": "-", "graphsam": "-."}


def one_dimensional(request: Request) -> Drawing:
    """Draw the rise of the training loss, L(theta + phi D) - L(theta); mean and std over directions and runs."""
    pairs = [(model, dataset) for dataset in request.datasets for model in request.models]
    figure, axes = style.panels(len(pairs), height=2.0)
    numbers: dict[str, Any] = {}
    for ax, (model, dataset) in zip(axes[:, 0], pairs, strict=True):
        runs = [run for run in request.runs if run.sharpness().get("landscape")]
        runs = select.panel(runs, model, dataset)
        entry = {}
        for name in DASHES:
            group = select.series(runs, name)
            if not group:
                raise MissingRuns(f"{label(model)} on {label(dataset)} lacks {style.a(name)} run with a landscape")
            entry[name] = _curve(ax, name, group)
        ax.set_title(f"{label(model)}, {label(dataset)}", loc="left")
        ax.set_ylabel(r"$L(\theta+\phi D)-L(\theta)$")
        ax.grid()
        ax.legend()
        numbers[f"{model}/{dataset}"] = entry
    axes[-1, 0].set_xlabel(r"$\phi$ (filter-normalised direction)")
    return Drawing(
        figure,
        numbers,
        "Weights of the last epoch. Mean over directions and runs, band: standard deviation. Directions are Gaussian, "
        "each filter scaled to the norm of the weights' (Li et al. 2018); the paper does not say how it normalised.",
    )


def _curve(ax: Axes, name: str, group: list[StoredRun]) -> dict[str, Any]:
    stored = [run.sharpness() for run in group]
    phi = np.array(stored[0]["phis"], dtype=float)
    if any(one["phis"] != stored[0]["phis"] for one in stored):
        raise MissingRuns(f"the {label(name)} runs have landscapes of different widths")
    losses = np.concatenate([np.array(one["landscape"], dtype=float) for one in stored])
    lines = losses - np.array([np.interp(0.0, phi, line) for line in losses])[:, None]
    mean, std = lines.mean(axis=0), lines.std(axis=0)
    ax.plot(phi, mean, color=style.colour(name), linestyle=DASHES[name], label=label(name))
    ax.fill_between(phi, mean - std, mean + std, color=style.colour(name), alpha=0.15, linewidth=0)
    edge = np.isclose(np.abs(phi), np.abs(phi).max())
    return {
        "runs": len(group),
        "directions": len(lines),
        "phi": phi.tolist(),
        "rise": mean.tolist(),
        "mean_rise": float(mean.mean()),
        "rise_at_edge": float(mean[edge].mean()),
    }
