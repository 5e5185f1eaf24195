"""The summary that a sweep sends to W&B at its end."""

from __future__ import annotations

from typing import Any

import pytest

from molsam.tracking import wandb
from tests.sweeping.conftest import App


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The tables that were given."""
    tables: list[dict[str, Any]] = []
    monkeypatch.setattr(
        wandb, "log_table", lambda folder, settings, **facts: tables.append({"folder": folder, **facts})
    )
    return tables


def test_a_table_of_cells(app: App, given: list[dict[str, Any]]) -> None:
    small = ("sweeps=table", "sweeps.datasets=[a]", "sweeps.folds=1", "sweeps.seeds=[0]")
    app.run(*small, "paths.mode=fail-1")
    assert not given
    app.run(*small, "sweeps.seeds=[0,1]", "paths.mode=fail-1", "++logger.kind=wandb", code=1)
    (table,) = given
    assert (table["folder"], table["name"]) == (app.outputs / "table", "table")
    lines = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert [line["cell"] for line in lines] == [f"x_=_0.{n}-a-f0-s{s}" for n in (1, 2) for s in (0, 1)]
    assert [line["test"] for line in lines] == [pytest.approx(0.04), None, pytest.approx(0.01), None]
    assert {line["row"] for line in lines} == {"x = 0.1", "x = 0.2"}
    # Nothing was run: nothing new to say.
    given.clear()
    app.run(*small, "paths.mode=fail-1", "++logger.kind=wandb")
    assert not given


def test_a_table_of_trials(app: App, given: list[dict[str, Any]]) -> None:
    search = ("hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0", "x=interval(0.0,1.0)")
    app.run(*search, "hydra.sweeper.n_trials=2", "++logger.kind=wandb")
    (table,) = given
    assert table["columns"] == ["trial", "state", "value", "x"]
    assert all(row[2] == pytest.approx((row[3] - 0.3) ** 2) for row in table["rows"])
