"""Figure 6: test metric of GraphSAM-K against its time."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from molsam.report.figures import paper, select, style
from molsam.report.figures.drawing import Drawing, MissingRuns, Request
from molsam.report.names import label
from molsam.report.stored import StoredRun

NEVER = "N"
REQUIRED = ("1", "2", NEVER)


def time_and_score(request: Request) -> Drawing:
    """Draw the test metric against the seconds per epoch (without the first): Adam, SAM, and GraphSAM-K for each K."""
    pairs = [(model, dataset) for dataset in request.datasets for model in request.models]
    figure, axes = style.panels(len(pairs), height=1.8)
    numbers: dict[str, Any] = {}
    for ax, (model, dataset) in zip(axes[:, 0], pairs, strict=True):
        runs = select.panel(request.runs, model, dataset)
        groups = {name: select.series(runs, name) for name in ("adam", "sam")}
        groups |= {f"K={k}": select.series(runs, "graphsam", optimizer__reanchor_epochs=value) for k, value in _k(runs)}
        missing = [name for name in ("adam", "sam", *(f"K={k}" for k in REQUIRED)) if not groups.get(name)]
        if missing:
            raise MissingRuns(f"{label(model)} on {label(dataset)} lacks {', '.join(missing)}")
        points = {name: _point(group) for name, group in groups.items()}
        for name in ("adam", "sam"):
            points[name]["paper"] = paper.stated_score(model, name, dataset)
        points["K=1"]["paper"] = paper.stated_score(model, "graphsam", dataset)
        _panel(ax, points)
        ax.set_title(f"{label(model)}, {label(dataset)}", loc="left")
        ax.set_ylabel(f"test {label(runs[0].result['metric'])}")
        numbers[f"{model}/{dataset}"] = points
    axes[-1, 0].set_xlabel("seconds per epoch")
    return Drawing(
        figure,
        numbers,
        "Green: GraphSAM-K with its K, N: anchored only once. Mean over runs, bars: standard deviation; the first "
        "epoch is left out of the time. Short lines at the left: the paper's values (its times are of another "
        "machine).",
    )


def _k(runs: list[StoredRun]) -> list[tuple[str, int | None]]:
    found = {run.setting("optimizer.reanchor_epochs") for run in runs if run.optimizer == "graphsam"}
    numbers = sorted(k for k in found if isinstance(k, int))
    return [(str(k), k) for k in numbers] + ([(NEVER, None)] if None in found else [])


def _point(group: list[StoredRun]) -> dict[str, Any]:
    return {
        "seconds": select.mean_std(run.result["seconds_per_epoch"] for run in group),
        "score": select.mean_std(run.test for run in group),
        "passes_per_step": select.mean_std(run.result["passes_per_step"] for run in group)["mean"],
    }


def _panel(ax: Axes, points: dict[str, dict[str, Any]]) -> None:
    curve = [(p["seconds"]["mean"], p["score"]["mean"]) for name, p in points.items() if name.startswith("K=")]
    ax.plot(*zip(*curve, strict=True), color=style.colour("graphsam"), linewidth=0.6, zorder=1)
    for name, point in points.items():
        optimizer = "graphsam" if name.startswith("K=") else name
        x, y = point["seconds"]["mean"], point["score"]["mean"]
        k = name.removeprefix("K=") if optimizer == "graphsam" else None
        text = "GraphSAM-K" if k == "1" else None if k else label(name)
        ax.errorbar(x, y, xerr=point["seconds"]["std"], yerr=point["score"]["std"], elinewidth=0.5,
                    fmt="o" if k else style.MARKERS[optimizer], color=style.colour(optimizer), label=text,
                    markersize=8.5 if k else 5, markeredgecolor="black", markeredgewidth=0.4)  # fmt: skip
        if k:
            ax.text(
                x, y, k, color="white", fontsize=5.5, fontweight="bold", ha="center", va="center_baseline", zorder=5
            )
        if point.get("paper") is not None:
            ax.plot([0, 0.04], [point["paper"]] * 2, transform=ax.get_yaxis_transform(), linewidth=2,
                    color=style.colour(optimizer), solid_capstyle="butt")  # fmt: skip
    # A legend, because names beside the points would cover the circles of K, which are close to Adam.
    ax.legend(markerscale=0.8)
    ax.margins(0.14)
    ax.grid()
