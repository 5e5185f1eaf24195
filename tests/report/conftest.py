"""Runs that were never trained: result.json files of a table, written with known scores."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molsam.config.cells import Cell
from molsam.report import specs
from molsam.runs import result

ERRORS = {"esol": "rmse", "lipophilicity": "rmse", "qm7": "mae", "qm8": "mae"}


def score_of(cell: Cell) -> float:
    """A score that looks random and is a function of the cell."""
    return 0.5 + (zlib.crc32(cell.name.encode()) % 1000) / 4000


def outcome(cell: Cell, sweep: str, score: float | None, **changes: Any) -> dict[str, Any]:
    """A complete result."""
    dataset = cell.values["dataset"]
    metric = ERRORS.get(dataset, "roc_auc")
    found = dict.fromkeys(result.REQUIRED)
    found |= {
        "config": {
            "sweeps": {"name": sweep, "row": cell.values["row"]},
            "smoke": False,
            "seed": cell.values["seed"],
            "dataset": {"name": dataset},
            "optimizer": {"row": f"{sweep} {cell.values['row']}"},
            "training": {"epochs": 30, "threads": 1},
            "split": {"kind": "random", "fold": cell.values["fold"]},
            "lr_schedule": {"warmup_epochs": 2},
            "base_optimizer": {"lr": 0.001},
        },
        "config_hash": "abc",
        "identity": {"digest": "abc", "data": {"dataset": "cd"}, "numerics": 1},
        "model": "compt",
        "optimizer": "graphsam",
        "dataset": dataset,
        "fold": cell.values["fold"],
        "seed": cell.values["seed"],
        "metric": metric,
        "direction": "min" if metric in ("rmse", "mae") else "max",
        "test": {metric: score},
        "valid": {metric: 0.1},
        "graphs_per_s": 100.0,
        "seconds_per_epoch": 1.5,
        "seconds": 45.0,
        "epochs": 30,
        "gradient_passes": 900,
        "split": {"kind": "random", "hash": f"split{cell.values['fold']}", "sizes": [80, 10, 10]},
        "test_per_task": {"a": 1.0, "b": None},
        "finished": "2026-01-01T00:00:00+00:00",
    }
    return found | changes


Fill = Callable[..., list[Cell]]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Write a table's cells under tmp_path/outputs; `keep` chooses some, `change` alters their results."""

    def write(
        name: str,
        keep: Callable[[Cell], bool] = lambda cell: True,
        change: Callable[[Cell], dict[str, Any]] = lambda cell: {},
    ) -> list[Cell]:
        spec = specs.load(name)
        cells = [cell for cell in spec.cells if keep(cell)]
        for cell in cells:
            found = outcome(cell, spec.name, score_of(cell), **change(cell))
            result.write(tmp_path / "outputs" / spec.name / cell.name, found)
        return cells

    return write
