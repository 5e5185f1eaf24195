"""What is printed at the end of a run with folds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from molsam.config.compose import compose
from molsam.config.identity import identity
from molsam.tracking import console
from molsam.wiring import record


def outcome(fold: int, tasks: int) -> dict[str, Any]:
    test = {"rmse": 1.0 + fold, "mae": 0.5 + fold, "r2": None, "kendall": 0.1}
    per_task = {f"t{place}": 2.0 * fold + place for place in range(tasks)}
    return {"name": "run", "fold": fold, "metric": "rmse", "valid": {"rmse": 3.0 - fold}, "test": test,
            "test_per_task": per_task, "graphs_per_s": 10.0}  # fmt: skip


@pytest.mark.parametrize("tasks", [1, 2, console.MOST_TASKS + 1, console.MOST_TASKS + 2])
def test_folds_show_the_main_metrics_and_each_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], tasks: int
) -> None:
    """As the table of a single run does; all of them are in folds.json."""
    mean = record.folds(tmp_path, identity(compose(), {}), [outcome(fold, tasks) for fold in range(3)])
    assert mean == pytest.approx(2.0)
    lines = [" ".join(line.strip("│ ").replace("│", "").split()) for line in capsys.readouterr().out.splitlines()]
    assert f"test mae {1.5:.4f} ± {np.std([0.5, 1.5, 2.5], ddof=1):.4f}" in lines
    assert "test r2 - ± -" in lines
    assert [line for line in lines if line.startswith("-:")] == [
        "-: undefined: too few labels, only one class, or no label to learn from"
    ]
    assert not any("kendall" in line for line in lines), "not a main one"
    shown = [line for line in lines if line.startswith("test rmse, t")]
    assert len(shown) == (min(tasks, console.MOST_TASKS) if tasks > 1 else 0)
    assert not shown or shown[0] == "test rmse, t0 2.0000 ± 2.0000"
    more = [line for line in lines if "more task" in line]
    assert (
        more
        == {0: [], 1: ["1 more task in folds.json"], 2: ["2 more tasks in folds.json"]}[
            max(tasks - console.MOST_TASKS, 0)
        ]
    )
    assert len(json.loads((tmp_path / "folds.json").read_text())["tasks"]) == tasks


@pytest.mark.parametrize(("value", "dashes"), [(None, 1), (-0.5, 0)])
def test_a_value_that_is_undefined_is_explained_once(
    capsys: pytest.CaptureFixture[str], value: float | None, dashes: int
) -> None:
    made = outcome(0, 3) | {"best_epoch": 0, "steps": 1, "epochs": 1, "seconds": 1.0, "passes_per_step": 1.0,
                            "run_dir": "run"}  # fmt: skip
    made["test"] |= {"r2": value}
    made["test_per_task"] |= {"t1": value}
    console.print_result(made)
    assert capsys.readouterr().out.count("-: undefined:") == dashes


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1.23456, "1.2346"),
        (0.0, "0.0000"),
        (0.00123, "0.0012"),
        (1.2345678e-9, "1.235e-09"),
        (-0.000321, "-0.000321"),
        (None, "-"),
    ],
)
def test_small_values_are_shown_with_digits(value: float | None, shown: str) -> None:
    assert console._number(value) == shown
