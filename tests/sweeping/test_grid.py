"""Grids: every cell runs once, resumes, and is shared between sweeps; and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf

from molsam.config.cells import Cell, quote, slug
from molsam.sweeping.compose import Settings
from molsam.sweeping.console import Count
from molsam.sweeping.grid import Grid, is_done
from molsam.sweeping.plan import Plan, Planned
from molsam.sweeping.study import SharedStudy
from tests.sweeping.conftest import App

SMALL = ("sweeps=table", "sweeps.datasets=[a]", "sweeps.folds=1")
CELLS = {"x_=_0.1-a-f0-s0", "x_=_0.1-a-f0-s1", "x_=_0.2-a-f0-s0", "x_=_0.2-a-f0-s1"}


def once(cells: set[str]) -> Counter[str]:
    return Counter(dict.fromkeys(cells, 1))


def study(app: App, name: str = "table") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{app.outputs}/{name}/study.db")


def test_runs_every_cell_once_and_then_nothing(app: App) -> None:
    out = app.run(*SMALL)
    assert app.results() == CELLS
    assert app.events("end") == once(CELLS)
    assert "table: 4 of 4 cells: " in out
    app.run(*SMALL)
    assert app.events("start") == once(CELLS)
    # More of the table later: only what is new runs, under numbers of its own.
    app.run("sweeps=table", "sweeps.datasets=[a]", "sweeps.folds=2", "sweeps.seeds=[1]")
    assert app.events("start") == once(CELLS | {"x_=_0.1-a-f1-s1", "x_=_0.2-a-f1-s1"})
    assert sorted(app.numbers()) == [0, 1, 2, 3, 4, 5]
    record = json.loads((app.outputs / "table" / "x_=_0.2-a-f1-s1" / "result.json").read_text())
    assert (record["config"]["sweeps"]["row"], record["fold"], record["seed"]) == ("x = 0.2", 1, 1)
    assert "variants" not in record["config"]["sweeps"]


def test_a_lost_result_runs_again_under_a_new_number(app: App) -> None:
    app.run(*SMALL)
    (app.outputs / "table" / "x_=_0.1-a-f0-s1" / "result.json").unlink()
    (app.outputs / "table" / "x_=_0.2-a-f0-s1" / "result.json").unlink()
    app.run(*SMALL, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert app.events("start") == once(CELLS) + Counter(["x_=_0.1-a-f0-s1", "x_=_0.2-a-f0-s1"])
    assert sorted(app.numbers()) == [0, 1, 2, 3, 4, 5]


def test_failures_are_collected_and_tried_again(app: App) -> None:
    out = app.run(*SMALL, "paths.mode=fail-1", code=1)
    good = {cell for cell in CELLS if cell.endswith("s0")}
    assert app.results() == good
    assert "failed: x_=_0.1-a-f0-s1: this cell cannot run; give it a better seed." in out
    assert "2 of 4 cells of table failed" in out
    assert "/4] x_=_0.1-a-f0-s1: failed: this cell cannot run" in out
    assert "ConfigError" in (app.outputs / "table" / "x_=_0.1-a-f0-s1" / "error.log").read_text()
    app.run(*SMALL, "paths.mode=fail-1", code=1)
    assert app.events("start") == once(CELLS) + Counter(CELLS - good)


def test_a_cell_that_writes_no_result_is_a_failure(app: App) -> None:
    out = app.run(*SMALL, "sweeps.seeds=[0]", "paths.mode=silent", code=1)
    assert "without a complete result.json" in out
    assert sum(app.events("start").values()) == 2


@pytest.mark.slow
def test_a_dying_worker_loses_nothing_but_itself(app: App) -> None:
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    out = app.run(*SMALL, "sweeps.rows=['x = 0.1']", "paths.mode=die-1", *launcher, code=1)
    assert app.results() == {"x_=_0.1-a-f0-s0"}
    assert "its worker died 3 times" in out
    assert app.events("start")["x_=_0.1-a-f0-s1"] == 3
    assert len(app.numbers()) == len(set(app.numbers()))


def test_other_settings_are_not_mixed_in(app: App) -> None:
    app.run(*SMALL)
    out = app.run(*SMALL, "training.epochs=2", code=2)
    assert "(training.epochs was 1, is 2)" in out
    assert app.events("start") == once(CELLS)
    app.run(*SMALL, "training.epochs=2", "overwrite=true")
    assert app.events("start") == once(CELLS) + once(CELLS)
    # The same command goes on: what is overwritten already stays.
    said = app.run(*SMALL, "training.epochs=2", "overwrite=true")
    assert sum(app.events("start").values()) == 8
    assert (
        "4 finished cells have the same and stay. To start over, remove outputs/table or use sweeps.name=NAME" in said
    )


def test_an_edited_file_undoes_cells_and_a_moved_one_does_not(app: App) -> None:
    app.run(*SMALL)
    moved = app.folder / "elsewhere" / "moved.csv"
    moved.parent.mkdir()
    (app.folder / "a.csv").rename(moved)
    app.run(*SMALL, f"dataset.path={moved}")
    assert app.events("start") == once(CELLS)
    stat = moved.stat()
    moved.write_text(moved.read_text().replace("97", "98"))
    os.utime(moved, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    out = app.run(*SMALL, f"dataset.path={moved}", code=2)
    assert re.search(rf"a\.csv \([0-9a-f]{{16}}\) was read, {moved} \([0-9a-f]{{16}}\) is given", out)
    assert "sweeps.name=NAME" in out
    app.run(*SMALL, f"dataset.path={moved}", "overwrite=true")
    assert app.events("start") == once(CELLS) + once(CELLS)


@pytest.mark.parametrize("key", ["+label", "paths.mode"])
def test_cells_whose_folder_names_would_be_equal_keep_them(app: App, key: str) -> None:
    """In another order, and in a longer list, a cell has the same folder; one without a twin has no suffix."""
    values = ["'a [b]'", "'a (b)'", "plain"]
    app.run(f"{key}={','.join(values[:2])}")
    first = set(app.events("start"))
    app.run(f"{key}={','.join(reversed(values))},'a <b>','a [b]'")
    assert first < set(app.events("start"))
    assert sorted(app.events("start").values()) == [1, 1, 1, 1]
    assert slug(f"{key}=plain") in app.events("start")
    app.run(f"{key}=choice({values[1]})")
    assert sum(app.events("start").values()) == 4


def test_a_cell_that_gets_a_twin_later_is_found(app: App) -> None:
    app.run("+label='a [b]'")
    app.run("+label='a (b)','a [b]'")
    assert sorted(app.events("start").values()) == [1, 1]
    app.run("+label='a [b]','a (b)'")
    assert sorted(app.events("start").values()) == [1, 1]
    # Two cells never share a folder, even if the choice cannot change a number.
    app.run("paths.mode=choice('a [b]')")
    assert "2 of 2 cells" in app.run("paths.mode='a [b]','a (b)'")
    assert len(app.events("start")) == 4


def test_a_dry_run_refuses_what_the_run_would(app: App) -> None:
    app.run("dataset.path=a.csv,b.csv")
    (app.folder / "b.csv").write_text("smiles,y\nN,5\n")
    assert "b.csv was" in app.run("dataset.path=a.csv,b.csv", "dry_run=true", code=2)


def test_a_sweep_may_lie_in_a_folder_of_any_name(app: App) -> None:
    odd = app.folder / "a?b {c} 50% #1 (x), 'y'=z"
    app.run(*SMALL, "sweeps.seeds=[0]", f"paths.outputs={quote(str(odd))}", "hydra/launcher=joblib")
    assert {path.parent.name for path in odd.glob("table/*/result.json")} == {cell for cell in CELLS if "s0" in cell}
    assert (odd / "table" / "study.db").is_file()


def test_smoke_runs_apart_and_keeps_the_shape(app: App) -> None:
    app.run("sweeps=table", "smoke=true")
    assert app.results("table-smoke") == {f"x_=_0.{n}-{d}-f0-s0" for n in (1, 2) for d in "ab"}
    assert app.results() == set()
    record = json.loads((app.outputs / "table-smoke" / "x_=_0.1-b-f0-s0" / "result.json").read_text())
    assert (record["config"]["dataset"]["name"], record["config"]["dataset"]["limit"]) == ("b", 64)


def test_a_dry_run_counts_and_estimates(app: App) -> None:
    assert "cannot be estimated" in app.run(*SMALL, "dry_run=true")
    app.run(*SMALL, "sweeps.seeds=[1]")
    out = app.run(*SMALL, "dry_run=true", "training.epochs=1")
    assert sum(line.startswith("done") for line in out.splitlines()) == 2
    assert "missing  x_=_0.2-a-f0-s0" in out
    # Finished cells say: 240 molecules at 2 a second; one epoch of two cells, and 15 per cent for its evaluation.
    assert "2 of 4 cells are done, 2 would run" in out
    assert "About 0:04:36 with 1 at a time" in out
    assert sum(app.events("start").values()) == 2


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("x=0.5", "the rows of table set x themselves"),
        ("training.epochs=1,2", "would give every cell of table several results"),
        ("sweeps.rows=[nonsense]", "is not a row of table"),
        ("+sweeps.needs={model.file: 'Table 10 needs a checkpoint: model.file=FILE.'}", "Table 10 needs a checkpoint"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(app: App, argument: str, sentence: str) -> None:
    assert sentence in app.run(*SMALL, argument, code=2)
    assert not app.log.read_text()


def test_axes_may_be_given_by_their_own_names(app: App) -> None:
    app.run("sweeps=table", "dataset=b", "seed=5", "split.fold=3", "sweeps.rows=['x = 0.2']")
    assert app.results() == {"x_=_0.2-b-f3-s5"}


def test_choices_on_the_command_line_make_a_grid(app: App) -> None:
    app.run("x=0.1,0.2", "seed=0,1", "paths.work=0.01")
    names = {f"x=0.{n},seed={s}" for n in (1, 2) for s in (0, 1)}
    assert app.results("multirun") == names
    app.run("x=0.1,0.2", "seed=0,1,2", "paths.work=0.01")
    assert sum(app.events("start").values()) == 6


@pytest.mark.slow
def test_two_sweeps_share_the_cells(app: App) -> None:
    arguments = ("sweeps=table", "sweeps.datasets=[a]", "paths.work=0.3")
    sweeps = [app.start(*arguments), app.start(*arguments)]
    app.join(*sweeps)
    starts = app.events("start")
    assert len(starts) == 8
    assert set(starts.values()) == {1}
    workers = {line.split()[3] for line in app.log.read_text().splitlines()}
    assert len(workers) == 2


def test_killed_and_continued(app: App) -> None:
    arguments = (*SMALL, "paths.work=0.6")
    sweep = app.start(*arguments)
    while app.log.read_text().count("start") < 2:
        time.sleep(0.02)
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    assert app.events("end") == once({"x_=_0.1-a-f0-s0"})
    app.run(*arguments)
    assert app.events("end") == once(CELLS)
    assert app.events("start") == once(CELLS) + Counter(["x_=_0.1-a-f0-s1"])
    states = Counter(trial.state.name for trial in study(app).trials)
    assert states == {"COMPLETE": 4, "FAIL": 1}
    assert len(app.numbers()) == len(set(app.numbers()))


def test_a_pruner_that_cannot_be_built_is_refused(app: App) -> None:
    out = app.run(*SMALL, "++hydra.sweeper.pruner={_target_: os.system, command: 'true'}", code=2)
    assert "hydra.sweeper.pruner={'_target_': 'os.system', 'command': 'true'} cannot be built" in out
    assert not app.events("start")


def test_jobs_that_cannot_take_their_trial_end_the_sweep(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise OSError("no storage here")

    monkeypatch.setattr("molsam.sweeping.job.take", refuse)
    with pytest.raises(OSError, match="no storage here"):
        app.run(*SMALL, "hydra/launcher=basic")


def test_a_sweep_stays_in_its_folder(app: App) -> None:
    assert "sweeps.name=../../x" in app.run(*SMALL, "sweeps.name=../../x", code=2)
    assert not (app.outputs / "../../x").exists()


def test_the_time_left_is_asked_for_once_a_cell_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []

    def left_beside(_: object, plan: list[Planned], ended: set[str]) -> float:
        assert [planned.cell.name for planned in plan] == ["a", "b", "c"]
        asked.append(ended)
        return 7.0

    monkeypatch.setattr("molsam.sweeping.estimate.Speeds.left_beside", left_beside)
    nothing = Settings(OmegaConf.create(), (), (), {})
    plan = Plan([Cell(name, (), ()) for name in "abc"], tmp_path, None, None)  # type: ignore[arg-type]
    for cell in plan.cells:
        plan.replace(Planned(cell, tmp_path / cell.name, nothing, "digest"))
    trials = [optuna.trial.create_trial(value=1.0, user_attrs={"cell": name, "identity": "digest"}) for name in "ab"]
    for number, trial in enumerate(trials):
        trial.number = number
    shown = SimpleNamespace(trials=list, node="sqlite:///study.db")
    grid = Grid(SimpleNamespace(outputs=tmp_path), shown, None, plan, frozenset())  # type: ignore[arg-type]
    assert grid.look() == (Count(done=0, failed=0, running=0, total=3, before=0), [])
    shown.trials = lambda: trials[:1]
    (count, ended), (again, nothing_new) = grid.look(), grid.look()
    assert (count.left, again.left) == (7.0, 7.0)
    assert ([one.name for one in ended], nothing_new) == (["a"], [])
    shown.trials = lambda: trials
    count, ended = grid.look()
    assert count == Count(done=2, failed=0, running=0, total=3, before=0, left=7.0)
    assert [one.name for one in ended] == ["b"]
    assert asked == [{"a"}, {"a", "b"}]


def test_a_cell_of_several_folds_is_done_by_their_summary(tmp_path: Path) -> None:
    planned: Any = SimpleNamespace(folder=tmp_path, identity="abc", values={"split": {"folds": 2, "fold": None}})
    assert not is_done(planned)
    for digest, folds, done in (("abc", 2, True), ("abd", 2, False), ("abc", 1, False)):
        found = {"identity": {"digest": digest}, "folds": [{"fold": fold} for fold in range(folds)]}
        (tmp_path / "folds.json").write_text(json.dumps(found))
        assert is_done(planned) == done


def shared_grid(folder: Path) -> tuple[Grid, Planned]:
    """A grid of one cell, and its plan."""
    plan = Plan([Cell("a", (), ())], folder, None, None)  # type: ignore[arg-type]
    planned = Planned(plan.cells[0], folder / "a", Settings(OmegaConf.create(), (), (), {}), "digest")
    study = SharedStudy(f"sqlite:///{folder}/study.db", "s", ["minimize"], None, optuna.pruners.NopPruner(), 5)
    return Grid(SimpleNamespace(outputs=folder), study, None, plan, frozenset()), planned  # type: ignore[arg-type]


def test_a_trial_that_another_sweep_has_just_claimed_is_not_taken_for_dead(tmp_path: Path) -> None:
    """Both sweeps may launch one waiting trial; the one whose job came too late finds it without a heartbeat yet."""
    grid, planned = shared_grid(tmp_path)
    (number,) = [grid.queue(planned)]
    assert number == 0

    def claimed_by_another(_: object) -> None:
        assert grid.study.storage.set_trial_state_values(grid.study.trial_id(0), state=optuna.trial.TrialState.RUNNING)

    grid.plan.job = lambda _: planned  # type: ignore[method-assign]
    grid.launcher = SimpleNamespace(  # type: ignore[assignment]
        run=lambda jobs: claimed_by_another(list(jobs)), at_once=False
    )
    grid.launch([planned.cell])
    assert [trial.state.name for trial in grid.study.trials()] == ["RUNNING"]
    assert grid.study.revive(own={0}) == [0]


@pytest.mark.parametrize("host", ["here", "elsewhere"])
def test_a_cell_that_another_sweep_ends_while_this_one_begins_is_not_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    grid, planned = shared_grid(tmp_path)
    attrs = {"cell": "a", "identity": "digest", "host": host}
    grid.study.study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs=attrs))
    grid.known = {0}
    grid.shared = host == "elsewhere"
    monkeypatch.setattr("molsam.sweeping.grid.is_done", lambda _: host == "here")
    assert grid.queue(planned) is None
    assert len(grid.study.trials()) == 1
