"""Figures 1 and 3b: the test metric by optimizer, with the paper's values."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from molsam.report.figures import paper, select, style
from molsam.report.figures.drawing import Drawing, MissingRuns, Request
from molsam.report.names import label
from molsam.report.stored import StoredRun

STRATEGIES = ("adam", "sam", "aesam", "rst", "sam_one", "sam_k", "looksam", "graphsam")
FOUR = ("adam", "sam", "sam_one", "sam_k")
PRETRAINED = "pre-trained"


def strategies(request: Request) -> Drawing:
    """Draw Figure 1: a model under every training strategy, one panel per dataset."""
    return _draw(request, STRATEGIES, [(m, d) for m in request.models for d in request.datasets], pretrained=True)


def four_optimizers(request: Request) -> Drawing:
    """Draw Figure 3b: Adam, SAM, SAM-One and SAM-k, one panel per model and dataset."""
    return _draw(request, FOUR, [(m, d) for d in request.datasets for m in request.models], pretrained=False)


def _draw(request: Request, names: tuple[str, ...], pairs: list[tuple[str, str]], *, pretrained: bool) -> Drawing:
    figure, axes = style.panels(len(pairs), height=1.25)
    numbers: dict[str, Any] = {}
    for ax, (model, dataset) in zip(axes[:, 0], pairs, strict=True):
        groups = _groups(request.runs, names, model, dataset)
        if pretrained:
            groups = _pretrained(request.runs, model, dataset) | groups
        metric = next(iter(groups.values()))[0].result["metric"]
        rows = {name: _row(name, group, model, dataset) for name, group in groups.items()}
        _panel(ax, rows, f"{label(model)}, {label(dataset)}", label(metric))
        if ax is not axes[-1, 0]:
            ax.set_xticklabels([])
        numbers[f"{model}/{dataset}"] = {"metric": metric, "bars": rows}
    axes[0, 0].legend(*_one_paper_entry(axes[:, 0]), loc="lower right", bbox_to_anchor=(1, 0.98))
    note = "" if not pretrained or any(PRETRAINED in n["bars"] for n in numbers.values()) else (
        " The pre-trained bar needs a GROVER checkpoint (model.pretrained=FILE)."
    )  # fmt: skip
    return Drawing(
        figure,
        numbers,
        "Test metric, mean and standard deviation over runs; dashes: the paper. The axis does not start at 0." + note,
    )


def _groups(runs: list[StoredRun], names: tuple[str, ...], model: str, dataset: str) -> dict[str, list[StoredRun]]:
    found = [run for run in select.panel(runs, model, dataset) if not run.setting("model.pretrained")]
    groups = {name: select.series(found, name) for name in names}
    missing = [name for name, group in groups.items() if not group]
    if missing:
        raise MissingRuns(f"{label(model)} on {label(dataset)} lacks {', '.join(missing)}")
    return groups


def _pretrained(runs: list[StoredRun], model: str, dataset: str) -> dict[str, list[StoredRun]]:
    own = [run for run in runs if (run.model, run.dataset) == (model, dataset) and run.setting("model.pretrained")]
    group = select.series(own, "adam")
    return {PRETRAINED: group} if group else {}


def _row(name: str, group: list[StoredRun], model: str, dataset: str) -> dict[str, Any]:
    row = select.mean_std(run.test for run in group)
    if name == PRETRAINED:
        row["paper"] = paper.stated(table="10", model=model, optimizer="adam", dataset=dataset, variant=PRETRAINED)
    else:
        row["paper"] = paper.stated_score(model, name, dataset)
    return row


def _panel(ax: Axes, rows: dict[str, dict[str, Any]], title: str, metric: str) -> None:
    for place, (name, row) in enumerate(rows.items()):
        if row["mean"] is not None:
            shade = "#DDDDDD" if name == PRETRAINED else style.colour(name)
            ax.bar(place, row["mean"], 0.72, yerr=row["std"], color=shade, edgecolor="black", linewidth=0.4,
                   error_kw={"elinewidth": 0.7, "capsize": 2, "capthick": 0.7})  # fmt: skip
        if row["paper"] is not None:
            ax.plot(place, row["paper"], **style.PAPER, markeredgewidth=1.6, zorder=4)
    ax.set_ylim(*_limits(rows))
    ax.set_ylabel(metric)
    ax.set_title(title, loc="left")
    ax.set_xticks(range(len(rows)), [label(name) for name in rows], rotation=35, ha="right")
    ax.grid(axis="y")


def _limits(rows: dict[str, dict[str, Any]]) -> tuple[float, float]:
    """Return limits of the axis just below the smallest value, so that differences between bars are visible."""
    ends = [
        row["mean"] + side * (row["std"] or 0) for row in rows.values() if row["mean"] is not None for side in (-1, 1)
    ]
    ends += [row["paper"] for row in rows.values() if row["paper"] is not None]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    margin = 0.15 * (high - low) + 1e-3
    return max(low - margin, 0), high + margin


def _one_paper_entry(axes: Any) -> tuple[list[Any], list[str]]:
    for ax in axes:
        handles, labels = ax.get_legend_handles_labels()
        if handles:
            return handles[:1], labels[:1]
    return [], []
