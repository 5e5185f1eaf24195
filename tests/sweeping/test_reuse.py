"""Cells that were already trained under another name are not trained again."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from molsam.report import stored
from molsam.runs import result
from tests.sweeping.conftest import TABLE, App

SMALL = ("sweeps.datasets=[a]", "sweeps.folds=1")
TAKEN = {"y_=_0.2-a-f0-s0", "y_=_0.2-a-f0-s1"}
OWN = {"y_=_0.3-a-f0-s0", "y_=_0.3-a-f0-s1"}


@pytest.fixture
def app(tmp_path: Path) -> App:
    """Two tables, of which the row `y = 0.2` of one is the row `x = 0.2` of the other."""
    app = App(tmp_path)
    rows = {f"y = {x}": {"overrides": [f"x={x}"]} for x in (0.2, 0.3)}
    app.write(
        "sweeps/other", {"sweeps": {**TABLE["sweeps"], "name": "other", "variants": rows}}, "# @package _global_\n"
    )
    app.run("sweeps=table", *SMALL)
    return app


def read(app: App, cell: str, sweep: str = "other") -> dict[str, Any]:
    found = result.read(app.outputs / sweep / cell)
    assert found is not None
    return found


def test_what_another_table_has_trained_is_taken_over(app: App) -> None:
    dry = app.run("sweeps=other", *SMALL, "dry_run=true").splitlines()
    assert "same     y_=_0.2-a-f0-s1  is table/x_=_0.2-a-f0-s1" in dry
    assert "other: 0 of 4 cells are done, 2 are runs of equal settings elsewhere, 2 would run." in dry
    assert not app.results("other")
    assert "2 cells that were trained elsewhere with equal settings" in app.run("sweeps=other", *SMALL)
    assert app.results("other") == TAKEN | OWN
    assert {cell for cell in app.events("start") if cell.startswith("y")} == OWN
    mine, theirs = read(app, "y_=_0.2-a-f0-s1"), read(app, "x_=_0.2-a-f0-s1", "table")
    assert (mine["config"]["sweeps"]["name"], mine["config"]["sweeps"]["row"]) == ("other", "y = 0.2")
    assert mine["same_run_as"] == "../../table/x_=_0.2-a-f0-s1"
    for key in set(theirs) - {"config", "checksum"}:
        assert mine[key] == theirs[key]
    assert {**mine["config"], "sweeps": None} == {**theirs["config"], "sweeps": None}
    # Again: everything is done.
    assert "trained elsewhere" not in app.run("sweeps=other", *SMALL)
    assert len(app.numbers()) == 6


def test_readers_find_each_run_once_and_its_curves(app: App) -> None:
    theirs = app.outputs / "table" / "x_=_0.2-a-f0-s0"
    (theirs / "metrics.jsonl").write_text('{"kind": "epoch", "epoch": 0}\n')
    app.run("sweeps=other", *SMALL)
    runs, _ = stored.scan([app.outputs])
    (copied,) = [run for run in runs if run.folder.name == "y_=_0.2-a-f0-s0"]
    assert copied.epochs() == [{"kind": "epoch", "epoch": 0}]
    assert len(runs) == 8
    assert len(stored.find_runs([app.outputs])) == 6
    assert len(stored.find_runs([app.outputs / "other"])) == 4


@pytest.mark.parametrize(
    ("override", "damage"),
    [
        ("hydra.sweeper.reuse=false", None),
        ("+training.test_each_epoch=true", None),
        ("seed=0,1", '"model": "m"'),
    ],
)
def test_what_is_not_the_same_is_trained(app: App, override: str, damage: str | None) -> None:
    """Switched off; a run that recorded less; results that are damaged."""
    for path in app.outputs.rglob("result.json") if damage else ():
        path.write_text(path.read_text().replace(damage, '"model": "n"'))
    app.run("sweeps=other", *SMALL, override)
    assert {cell for cell in app.events("start") if cell.startswith("y")} == TAKEN | OWN


def test_another_file_of_the_same_path_is_another_run(app: App) -> None:
    """Two projects may share the folder of outputs, and name their data alike."""
    (app.folder / "a.csv").write_text("smiles,y\nCC,5\n")
    app.run("sweeps=other", *SMALL)
    assert {cell for cell in app.events("start") if cell.startswith("y")} == TAKEN | OWN


def test_a_cell_that_was_begun_goes_on(app: App) -> None:
    """An interrupted run has a checkpoint, and curves of its own."""
    folder = app.outputs / "other" / "y_=_0.2-a-f0-s0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"config_hash": read(app, "x_=_0.2-a-f0-s0", "table")["config_hash"]}))
    app.run("sweeps=other", *SMALL)
    assert {cell for cell in app.events("start") if cell.startswith("y")} == OWN | {folder.name}


def test_two_sweeps_and_a_kill_lose_nothing(app: App) -> None:
    arguments = ("sweeps=other", *SMALL, "paths.work=0.5")
    app.run("sweeps=table", *SMALL, "paths.work=0.5", "overwrite=true")
    sweeps = [app.start(*arguments), app.start(*arguments)]
    while not any(cell.startswith("y") for cell in app.events("start")):
        time.sleep(0.02)
    os.killpg(sweeps[0].pid, signal.SIGKILL)
    sweeps[0].wait()
    app.join(sweeps[1])
    assert app.results("other") == TAKEN | OWN
    assert {cell: n for cell, n in app.events("end").items() if cell.startswith("y")} == dict.fromkeys(OWN, 1)
