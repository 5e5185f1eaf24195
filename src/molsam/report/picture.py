"""Picture of a table: our values and the paper's, mean and standard deviation, one panel per dataset."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from molsam.report import words
from molsam.report.figures import style
from molsam.report.table import Entry, Table

OURS, PAPER = "#0072B2", "#555555"


def save(table: Table, stem: Path) -> list[Path]:
    """Write stem.png and stem.svg, and return their paths."""
    with style.styled():
        return style.save(draw(table), stem)


def draw(table: Table) -> Figure:
    """Return the figure of the first column (the test metric)."""
    rows, column = list(table.spec.rows), table.spec.columns[0]
    datasets = table.spec.datasets
    wide = min(len(datasets), 3)
    tall = -(-len(datasets) // wide)
    figure = Figure(figsize=(1.6 + 1.9 * wide, tall * (0.7 + 0.22 * len(rows))), layout="constrained")
    axes = figure.subplots(tall, wide, squeeze=False, sharey=True)
    for place, ax in enumerate(axes.flat):
        if place >= len(datasets):
            ax.set_visible(False)
            continue
        _panel(ax, [table.entry(row, datasets[place], column) for row in rows])
        ax.set_title(words.column(table, datasets[place], column), loc="left", parse_math=False)
    axes[0, 0].set_yticks(range(len(rows)), [row.replace("$", r"\$") for row in rows])
    axes[0, 0].set_ylim(len(rows) - 0.5, -0.5)
    if table.spec.smoke:
        figure.suptitle("A smoke run: these numbers mean nothing", fontsize="medium")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower right", ncols=2)
    return figure


def _panel(ax: Axes, entries: list[Entry]) -> None:
    for shift, colour, label, values in (
        (-0.12, OURS, "ours", [entry.ours for entry in entries]),
        (0.12, PAPER, "paper", [entry.paper for entry in entries]),
    ):
        there = [(place, value) for place, value in enumerate(values) if value is not None]
        ax.errorbar(
            [value.mean for _, value in there],
            [place + shift for place, _ in there],
            xerr=[value.std or 0.0 for _, value in there],
            fmt="o",
            color=colour,
            label=label,
            markersize=3,
            elinewidth=0.8,
            capsize=1.5,
        )
    ax.grid(axis="x")
