"""Sweeps as the page shows them: read from real studies on disk."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from molsam.commands.dashboard import study as read_study
from molsam.report.dashboard import collect
from molsam.sweeping.trials import TOTAL
from tests.report.figures.synthetic import write_run

START = datetime(2026, 1, 1)


def make_study(folder: Path, total: int | None, *, journal: bool = False) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True)
    storage: Any = f"sqlite:///{folder / 'study.db'}"
    if journal:
        backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.journal"))
        storage = optuna.storages.JournalStorage(backend)
    made = optuna.create_study(study_name=folder.name, storage=storage, direction="minimize")
    if total is not None:
        made.set_user_attr(TOTAL, total)
    return made


def add(made: Any, state: str, *, value: float | None = None, seconds: float = 60.0, **attrs: Any) -> None:
    import optuna
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    rho = attrs.pop("rho", None)
    space: dict[str, Any] = {
        "optimizer.rho": FloatDistribution(1e-4, 1.0, log=True),
        "base_optimizer": CategoricalDistribution(["adam", "sgd"]),
    }
    trial = optuna.trial.create_trial(
        state=optuna.trial.TrialState[state],
        value=value,
        params={} if rho is None else {"optimizer.rho": rho, "base_optimizer": "adam"},
        distributions={} if rho is None else space,
        user_attrs=attrs,
    )
    if trial.state.is_finished():
        trial.datetime_start, trial.datetime_complete = START, START + timedelta(seconds=seconds)
    made.add_trial(trial)


def shown(root: Path) -> dict[str, Any]:
    (found,) = collect.Collector([root], collect.relative_link(root), read_study).collect()["sweeps"]
    return found


@pytest.mark.parametrize("journal", [False, True])
def test_a_search_tells_what_it_found(tmp_path: Path, journal: bool) -> None:
    made = make_study(tmp_path / "tune", 20, journal=journal)
    for place in range(8):
        add(made, "COMPLETE", value=2 - place / 10, rho=0.005 * 2**place)
    add(made, "PRUNED", rho=0.5)
    add(made, "FAIL", rho=0.5, error="out of memory")
    add(made, "FAIL", rho=0.5)  # another trial went on with it
    write_run(tmp_path / "tune", "gcn", "sam", folder="trial-00007")
    found = shown(tmp_path)
    assert found["counts"] == {"done": 8, "pruned": 1, "failed": 1, "running": 0, "interrupted": 0}
    assert (found["total"], found["known"], found["best"]) == (20, True, 7)
    assert found["left"] == pytest.approx(60 * (20 - 9), rel=0.01), "one at a time, failed ones are tried again"
    assert found["space"] == {"optimizer.rho": {"log": True}, "base_optimizer": {"choices": ["adam", "sgd"]}}
    assert max(found["importances"], key=found["importances"].get) == "optimizer.rho"
    assert (found["best_folder"], found["folder"]) == ("tune/trial-00007/", "tune/")
    assert found["failures"] == [{"name": "trial 9", "error": "out of memory"}]
    assert [trial["value"] for trial in found["trials"] if trial["number"] in (0, 8)] == [2, None]


def test_a_grid_counts_results_whoever_made_them(tmp_path: Path) -> None:
    made = make_study(tmp_path / "table", 6)
    add(made, "FAIL", cell="b", error="a bad file")
    add(made, "COMPLETE", cell="c", value=0.5)
    add(made, "FAIL", cell="d", error="a bad file")
    add(made, "COMPLETE", cell="d", value=0.5)
    for cell in ("a", "c"):  # a was there before the study
        write_run(tmp_path / "table", "gcn", "sam", folder=cell)
    found = shown(tmp_path)
    assert found["counts"] == {"done": 3, "pruned": 0, "failed": 1, "running": 0, "interrupted": 0}
    assert (found["total"], found["search"]) == (6, False)
    assert found["failures"] == [{"name": "b", "error": "a bad file"}]
    assert found["left"] == pytest.approx(60 * 2, rel=0.01)


def test_a_trial_whose_process_is_gone_is_not_running(tmp_path: Path) -> None:
    from molsam.sweeping.heartbeat import WORKER, beat

    made = make_study(tmp_path / "tune", None)
    for start in (None, "0"):
        add(made, "RUNNING", rho=0.1)
        number = len(made.trials) - 1
        record = beat(1, 1.0)
        made._storage.set_trial_system_attr(
            made.trials[number]._trial_id, WORKER, record if start is None else {**record, "start": start}
        )
    found = shown(tmp_path)
    assert (found["counts"]["running"], found["counts"]["interrupted"], found["known"]) == (1, 1, False)


def test_a_study_is_read_again_only_when_it_changes(tmp_path: Path) -> None:
    made = make_study(tmp_path / "tune", 3)
    add(made, "COMPLETE", value=1.0, rho=0.1)
    asked = []
    collector = collect.Collector(
        [tmp_path], collect.relative_link(tmp_path), lambda f: asked.append(f) or read_study(f)
    )  # type: ignore[func-returns-value]
    assert [collector.collect()["sweeps"][0]["counts"]["done"] for _ in range(2)] == [1, 1]
    assert len(asked) == 1
    add(made, "COMPLETE", value=2.0, rho=0.2)
    assert (collector.collect()["sweeps"][0]["counts"]["done"], len(asked)) == (2, 2)


def test_a_file_that_is_no_study_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("nothing")
    assert collect.Collector([tmp_path], collect.relative_link(tmp_path), read_study).collect()["sweeps"] == []
