"""Estimates of a cell's time: from runs of the same kind, else from runs of its model and its optimizer's passes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from molsam.config.cells import Cell
from molsam.sweeping import estimate
from molsam.sweeping.compose import Settings
from molsam.sweeping.plan import Planned


def run(model: str, optimizer: str, dataset: str, speed: float, passes: float, **changes: Any) -> dict[str, Any]:
    found = {"model": model, "optimizer": optimizer, "dataset": dataset, "speed": speed, "passes": passes}
    return found | {"size": 800, "limit": None, "settings": {"width": 64}} | changes


RUNS = [
    run("compt", "graphsam", "esol", 400.0, 1.0),
    run("compt", "adam", "bbbp", 100.0, 1.0, size=1600),
    run("grover", "sam", "esol", 50.0, 2.0),
    run("grover", "adam", "esol", 4000.0, 1.0, settings={"width": 8}),
]


def cell(model: str, optimizer: str, dataset: str, limit: int | None = None) -> Planned:
    choices = {"model": model, "optimizer": optimizer, "dataset": dataset}
    written = {"width": 64, "kernel": "${dataset.kernel}"}
    values = {
        "choices": choices,
        "model": {"width": 64, "kernel": dataset},
        "dataset": {"limit": limit, "kernel": dataset},
        "training": {"epochs": 10},
    }
    settings = Settings(OmegaConf.create({**values, "model": written}), (), (), values)
    return Planned(Cell("c", (("dataset", dataset),), ()), Path("c"), settings, "")


@pytest.mark.parametrize(
    ("planned", "speed", "size", "measured"),
    [
        (cell("compt", "graphsam", "esol"), 400.0, 800, True),
        # Another optimizer on the dataset: by its passes, as sam's runs of another model have them.
        (cell("compt", "sam", "esol"), 400.0 / 2, 800, False),
        # No run of it at all: two passes.
        (cell("compt", "looksam", "bbbp"), 100.0 / 2, 1600, False),
        # No run on the dataset: the model's runs elsewhere, the size by the paper's Table 4.
        (cell("grover", "sam", "sider"), 50.0, 0.8 * 1427, False),
        # Not by the narrow model.
        (cell("grover", "adam", "esol"), 50.0 * 2, 800, False),
        (cell("compt", "adam", "bbbp", limit=48), 100.0, 48, False),
    ],
)
def test_whose_speed_counts(planned: Planned, speed: float, size: float, measured: bool) -> None:
    found = estimate.guess(planned, RUNS)
    assert found is not None
    assert found.seconds == pytest.approx(10 * size / speed * estimate.EVALUATION)
    assert found.measured == measured


def test_a_model_that_never_ran_is_not_guessed() -> None:
    assert estimate.guess(cell("gcn", "adam", "esol"), RUNS) is None
    assert estimate.guess(cell("compt", "adam", "mine"), RUNS) is None


def test_what_is_left_is_weighed_by_the_time_of_its_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells of a small dataset that come first tell little of what a large one takes."""
    speeds = estimate.Speeds(tmp_path)
    monkeypatch.setattr(speeds, "runs", lambda: RUNS)
    plan = [
        replace(cell("compt", "adam", dataset), cell=Cell(name, (("dataset", dataset),), ()))
        for name, dataset in (("a", "esol"), ("b", "esol"), ("c", "bbbp"))
    ]
    esol, bbbp = 800 / 400, 1600 / 100
    assert speeds.left_beside(plan, {"a", "b"}) == pytest.approx(bbbp / (2 * esol))
    assert speeds.left_beside(plan, {"a"}) == pytest.approx((esol + bbbp) / esol)
    assert speeds.left_beside(plan, set()) is None
    unknown = replace(cell("gcn", "adam", "esol"), cell=Cell("d", (("dataset", "esol"),), ()))
    assert speeds.left_beside([*plan, unknown], {"a"}) is None


def test_it_is_said_how_far_to_trust_it() -> None:
    exact, rough = estimate.Guess(60.0, True), estimate.Guess(120.0, False)
    (said,) = estimate.describe([exact, exact], 2)
    assert said.startswith(
        "About 0:01:00 with 2 at a time, judging by finished runs of the same model, optimizer and dataset"
    )
    said, left = estimate.describe([exact, rough, None], 1)
    assert said.startswith("Roughly 0:03:00")
    assert "1 of 2 cells are scaled from another dataset or optimizer" in said
    assert left.startswith("The time of 1 cells cannot be estimated")


def test_every_result_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep asks after each cell: what that costs must not grow with the cells that have ended."""
    read: list[Path] = []
    monkeypatch.setattr(estimate, "_speed", read.append)
    speeds = estimate.Speeds(tmp_path)
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").touch()
        speeds.runs()
    assert sorted(path.parent.name for path in read) == ["a", "b", "c"]
