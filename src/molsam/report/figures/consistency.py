"""Figure 3c: how often the perturbation gradient has the right direction."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from molsam.report.figures import paper, select, style
from molsam.report.figures.drawing import Drawing, MissingRuns, Request
from molsam.report.names import label
from molsam.report.stored import StoredRun

OPTIMIZERS = ("sam", "graphsam", "sam_k", "sam_one")
# The figure's caption pairs SAM's eps_t+1 with omega_t, and the others' eps_t with SAM's omega_t at the same weights.
CAPTION = {"sam": "cos_next"} | dict.fromkeys(OPTIMIZERS[1:], "cos_sam_omega")
# Section 4.2 pairs the approximation with the true eps_t at the same weights.
TEXT = dict.fromkeys(OPTIMIZERS, "cos_true")


def consistent_pairs(request: Request) -> Drawing:
    """Draw the share of steps whose cosine is >= 0 (Definition 2), by both of the paper's definitions of the pairs."""
    pairs = [(model, dataset) for dataset in request.datasets for model in request.models]
    figure, axes = style.panels(len(pairs), height=1.5)
    numbers = {}
    for ax, (model, dataset) in zip(axes[:, 0], pairs, strict=True):
        runs = select.panel([run for run in request.runs if run.result.get("gradients")], model, dataset)
        rows = {name: _row(name, select.series(runs, name)) for name in OPTIMIZERS}
        missing = [name for name, row in rows.items() if row["caption"]["mean"] is None]
        if missing:
            raise MissingRuns(
                f"{label(model)} on {label(dataset)} lacks cosines of {', '.join(missing)} "
                "(diagnostics=gradients with probes)"
            )
        _panel(ax, rows, f"{label(model)}, {label(dataset)}")
        numbers[f"{model}/{dataset}"] = rows
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, columnspacing=1)
    return Drawing(
        figure,
        numbers,
        "Per cent of steps with cosine >= 0, mean over runs. Caption: SAM's eps(t+1) with omega(t), the others' eps(t) "
        "with SAM's omega(t) at the same weights. Text: eps(t) with the true eps(t). Dotted: chance.",
    )


def share(runs: list[StoredRun], key: str) -> dict[str, Any]:
    """Return the percentage of steps with a cosine whose cosine is >= 0: mean, std and n over runs."""
    values = []
    for run in runs:
        cosines = np.array([row[key] for row in run.gradients() if row.get(key) is not None], dtype=float)
        values.append(100 * float(np.mean(cosines >= 0)) if len(cosines) else None)
    return select.mean_std(values)


def _row(name: str, runs: list[StoredRun]) -> dict[str, Any]:
    return {
        "caption": share(runs, CAPTION[name]),
        "text": share(runs, TEXT[name]),
        "paper": paper.stated(table="text", optimizer=name, metric="consistent_pairs_percent"),
    }


def _panel(ax: Axes, rows: dict[str, dict[str, Any]], title: str) -> None:
    for place, (name, row) in enumerate(rows.items()):
        for offset, reading, hatch in ((-0.2, "caption", None), (0.2, "text", "////")):
            value = row[reading]
            if value["mean"] is None:
                continue
            ax.bar(place + offset, value["mean"], 0.38, yerr=value["std"], color=style.colour(name), hatch=hatch,
                   edgecolor="black", linewidth=0.4, error_kw={"elinewidth": 0.7, "capsize": 2})  # fmt: skip
            ax.text(place + offset, 2, f"{value['mean']:.1f}", ha="center", va="bottom", fontsize=6,
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6})  # fmt: skip
        if row["paper"] is not None:
            ax.plot([place - 0.42, place + 0.42], [row["paper"]] * 2, color="black", linewidth=1.6, zorder=4,
                    label="paper (BBBP)" if place == 0 else None)  # fmt: skip
            ax.text(place + 0.42, row["paper"] + 2, f"{row['paper']:.2f}", fontsize=6, va="bottom", ha="right",
                    bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5})  # fmt: skip
    ax.bar(0, 0, color="white", edgecolor="black", linewidth=0.4, label="definition of the caption")
    ax.bar(0, 0, color="white", edgecolor="black", linewidth=0.4, hatch="////", label="definition of the text")
    ax.axhline(50, color="0.4", linestyle=":", linewidth=0.8)
    ax.set(ylim=(0, 105), xlim=(-0.6, len(rows) - 0.25), ylabel="consistent pairs, %")
    ax.set_xticks(range(len(rows)), [label(name) for name in rows])
    ax.set_title(title, loc="left")
