"""Picture of the differences between a table's rows: a panel of intervals and a matrix of effects per dataset."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from molsam.report import inference, published, words
from molsam.report.figures import style
from molsam.report.inference import LEVEL, Estimate
from molsam.report.pairs import paired
from molsam.report.table import Table
from molsam.report.verdicts import margin_of

OURS, PAPER, MARGIN = "#0072B2", "#D55E00", "#999999"


@dataclass(frozen=True)
class Gap:
    """Lead of a row over another on a dataset: ours, the paper's, and whether it is significant (`clear`)."""

    dataset: str
    first: str
    second: str
    estimate: Estimate
    paper: float | None
    clear: bool = False


def save(table: Table, stem: Path) -> list[Path]:
    """Write stem.png and stem.svg and return their paths; none if the table has no two rows with scores."""
    found = gaps(table)
    if not any(gap.estimate.mean is not None for gap in found):
        return []
    with style.styled():
        return style.save(draw(table, found), stem)


def gaps(table: Table) -> list[Gap]:
    """Return every pair of rows on every dataset, with Holm's correction for their number."""
    if "score" not in table.spec.columns:
        return []
    found = [
        Gap(
            dataset, one, two, paired(table.runs, one, two, "score", dataset).estimate, _paper(table, one, two, dataset)
        )
        for dataset in table.spec.datasets
        for two, one in combinations(table.spec.rows, 2)  # a later row over an earlier one, as in the claims
    ]
    adjusted = inference.holm([gap.estimate.p for gap in found])
    return [
        Gap(g.dataset, g.first, g.second, g.estimate, g.paper, p is not None and p < LEVEL)
        for g, p in zip(found, adjusted, strict=True)
    ]


def draw(table: Table, found: list[Gap]) -> Figure:
    """Return the figure, with a row of two panels for each dataset that has pairs."""
    datasets = [name for name in table.spec.datasets
                if any(g.dataset == name and g.estimate.mean is not None for g in found)]  # fmt: skip
    rows = list(table.spec.rows)
    tall = max(1.6, 0.13 * len(rows) * (len(rows) - 1) / 2 + 0.6)
    figure = Figure(figsize=(8, max(tall, 0.28 * len(rows) + 1.2) * len(datasets)), layout="constrained")
    axes = figure.subplots(len(datasets), 2, squeeze=False, width_ratios=(3, 2))
    for place, dataset in enumerate(datasets):
        own = [gap for gap in found if gap.dataset == dataset]
        title = words.column(table, dataset, "score")
        _intervals(axes[place, 0], own, margin_of(table, rows[-1], dataset))
        _matrix(axes[place, 1], own, rows)
        axes[place, 0].set_title(
            f"{title}: lead of the first row, 95 %", loc="left", parse_math=False, fontsize="small"
        )
        axes[place, 1].set_title("row over column; *: clear after Holm", loc="right", fontsize="x-small")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=3)
    return figure


def _intervals(ax: Axes, own: list[Gap], margin: float | None) -> None:
    shown = [gap for gap in own if gap.estimate.mean is not None]
    for place, gap in enumerate(shown):
        found = gap.estimate
        mean = found.mean or 0.0
        spread = 0.0 if found.high is None else found.high - mean
        label = "ours" if place == 0 else None
        ax.errorbar([mean], [place], xerr=[spread], fmt="o", color=OURS, markersize=3, elinewidth=0.8, label=label)
    printed = [(gap.paper, place) for place, gap in enumerate(shown) if gap.paper is not None]
    if printed:
        xs, ys = zip(*printed, strict=True)
        ax.plot(xs, ys, "D", mfc="none", color=PAPER, markersize=3.5, label="paper")
    ax.axvline(0.0, color="black", linewidth=0.8)
    for side in (-1, 1) if margin is not None else ():
        ax.axvline(side * margin, color=MARGIN, linewidth=0.8, linestyle="--",  # type: ignore[operator]
                   label="margin" if side > 0 else None)  # fmt: skip
    names = [f"{gap.first} − {gap.second}".replace("$", r"\$") for gap in shown]
    ax.set_yticks(range(len(shown)), names, fontsize="xx-small")
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.grid(axis="x")


def _matrix(ax: Axes, own: list[Gap], rows: list[str]) -> None:
    values = np.full((len(rows), len(rows)), np.nan)
    clear = np.zeros_like(values, dtype=bool)
    for gap in own:
        i, j = rows.index(gap.first), rows.index(gap.second)
        if gap.estimate.mean is not None:
            values[i, j], values[j, i] = gap.estimate.mean, -gap.estimate.mean
            clear[i, j] = clear[j, i] = gap.clear
    size = float(np.nanmax(np.abs(values))) or 1.0
    image = ax.imshow(values, cmap="RdBu", vmin=-size, vmax=size)
    for i, j in zip(*np.nonzero(clear), strict=True):
        ax.text(j, i, "*", ha="center", va="center")
    names = [row.replace("$", r"\$") for row in rows]
    ax.set_xticks(range(len(rows)), names, rotation=90, fontsize="xx-small")
    ax.set_yticks(range(len(rows)), names, fontsize="xx-small")
    ax.grid(visible=False)
    ax.figure.colorbar(image, ax=ax, shrink=0.8)


def _paper(table: Table, one: str, two: str, dataset: str) -> float | None:
    numbers = [table.entry(row, dataset, "score").paper for row in (one, two)]
    if numbers[0] is None or numbers[1] is None:
        return None
    return (-1 if published.is_error(dataset) else 1) * (numbers[0].mean - numbers[1].mean)
