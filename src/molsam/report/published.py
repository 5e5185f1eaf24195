"""The paper's numbers for the entries of a table, with the decimals that it prints."""

from __future__ import annotations

import csv
from functools import cache
from importlib import resources
from typing import NamedTuple

METRICS = {
    "score": ("roc_auc", "rmse", "mae", "accuracy"),
    "graphs_per_s": ("throughput_graphs_per_s",),
    "percent_of_sam": ("throughput_percent_of_sam",),
    "n_molecules": ("n_molecules",),
    "n_tasks": ("n_tasks",),
}
"""Column of a report -> possible metrics in paper.csv."""

DECIMALS = {"graphs_per_s": 0, "percent_of_sam": 1, "n_molecules": 0, "n_tasks": 0, "seconds_per_epoch": 2,
            "consistent_percent": 1}  # fmt: skip


class Published(NamedTuple):
    """A printed mean, its standard deviation (None if not printed), and its number of decimals."""

    mean: float
    std: float | None
    decimals: int


def find(keys: dict[str, str], dataset: str, column: str) -> Published | None:
    """Return the paper's number for a row (table, model, optimizer, variant), dataset and column, or None."""
    for metric in METRICS.get(column, ()):
        key = (keys.get("table", ""), keys.get("model", ""), keys.get("optimizer", ""), keys.get("variant", ""))
        found = _numbers().get((*key, _dataset(dataset), metric))
        if found is not None:
            return found
    return None


def is_error(dataset: str) -> bool:
    """Return whether the paper's metric for a dataset is an error, so that less is better."""
    return any(key[4] == _dataset(dataset) and key[5] in ("rmse", "mae") for key in _numbers())


def decimals(column: str, published: Published | None) -> int:
    """Return the number of decimals to show: the paper's, if it has the number."""
    return published.decimals if published is not None else DECIMALS.get(column, 3)


def _dataset(name: str) -> str:
    """Return a dataset's name as in conf/dataset: the paper's CIFAR-10 is cifar10."""
    return name.lower().replace("-", "")


@cache
def rows() -> list[dict[str, str]]:
    """Return the lines of paper.csv."""
    text = resources.files("molsam.report").joinpath("paper.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


@cache
def _numbers() -> dict[tuple[str, ...], Published]:
    found: dict[tuple[str, ...], Published] = {}
    for row in rows():
        key = (row["table"], row["model"], row["optimizer"], row["variant"], _dataset(row["dataset"]), row["metric"])
        std = float(row["std"]) if row["std"] else None
        found[key] = Published(float(row["mean"]), std, len(row["mean"].partition(".")[2]))
    return found
