"""Sweeps in the outside world: random kills, PostgreSQL, SLURM's and Ray's launchers."""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import psutil
import pytest

from molsam.sweeping import storage as storages
from molsam.sweeping.orphan import remove_semaphores
from tests.forked import Forked
from tests.paths import PATIENCE
from tests.sweeping.conftest import App

TABLE = ("sweeps=table", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
ALL = 16


@pytest.fixture
def app(tmp_path: Path) -> App:
    return App(tmp_path)


def kill_at_random(app: App, draw: random.Random, times: int, *overrides: str) -> None:
    """Start the sweep again and again; each time kill a worker, the sweeper, or all, at a random moment."""
    for _ in range(times):
        sweep = app.start(*TABLE, *overrides)
        events = app.log.read_text().count("\n")
        deadline = time.monotonic() + PATIENCE
        # Past the start-up, so that the kills hit running cells.
        while app.log.read_text().count("\n") == events and sweep.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 1.5))
        victim = draw.choice(["worker", "sweeper", "all"])
        workers = psutil.Process(sweep.pid).children(recursive=True) if sweep.poll() is None else []
        if victim == "worker" and workers:
            draw.choice(workers).kill()
            time.sleep(draw.uniform(0, 2))
        if victim == "sweeper":
            sweep.kill()
        else:
            kill_group(sweep)
        sweep.wait()


def kill_group(sweep: Forked) -> None:
    try:
        os.killpg(sweep.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def assert_each_once(app: App) -> None:
    """Every cell has one result and ended once; whatever else was started was killed before its end."""
    assert len(app.results()) == ALL
    # At most once: a kill may come between a result and the line that tells of its end.
    assert app.events("end") <= Counter(dict.fromkeys(app.results(), 1))
    assert len(app.numbers()) == len(set(app.numbers()))


@pytest.mark.slow
def test_killed_at_random_moments_nothing_is_lost_or_run_twice(app: App) -> None:
    kill_at_random(app, random.Random(0), 3, "paths.work=0.4")
    app.run(*TABLE, "paths.work=0.4")
    assert_each_once(app)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite", "journal"])
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_many_times(app: App, seed: int, storage: str) -> None:
    kill_at_random(app, random.Random(seed), 15, "paths.work=0.6", f"hydra/sweeper/storage={storage}")
    app.run(*TABLE, "paths.work=0.6", f"hydra/sweeper/storage={storage}")
    assert_each_once(app)


@pytest.mark.slow
@pytest.mark.parametrize("end", ["sweeper", "all"])
def test_workers_save_themselves_and_end_with_their_sweep(app: App, end: str) -> None:
    """The sweeper alone is killed, or all are asked to stop; the same command waits for those that still save."""
    arguments = ("sweeps=table", "sweeps.datasets=[a]", "sweeps.folds=1", "sweeps.seeds=[0]", "paths.work=8")
    sweep = app.start(*arguments, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    while app.log.read_text().count("start") < 2:
        time.sleep(0.02)
    workers = psutil.Process(sweep.pid).children(recursive=True)
    if end == "all":
        os.killpg(sweep.pid, signal.SIGTERM)
    else:
        sweep.kill()
    sweep.wait()
    app.run(*arguments)
    assert psutil.wait_procs(workers, timeout=PATIENCE)[1] == []
    lines = [line.split()[:2] for line in app.log.read_text().splitlines()]
    for cell in app.results():
        assert [event for event, folder in lines if Path(folder).name == cell] == ["start", "saved", "start", "end"]
    assert len(app.results()) == 2


@pytest.mark.parametrize("children", [1, *(pytest.param(count, marks=pytest.mark.slow) for count in (2, 3))])
def test_a_sweep_killed_as_its_workers_start_leaves_nothing(app: App, children: int) -> None:
    """Neither workers nor trackers nor semaphores, whichever of its processes it had started."""
    sweep = app.start(*TABLE, "paths.work=60")
    parent = psutil.Process(sweep.pid)
    seen: dict[int, psutil.Process] = {}
    while len(seen) < children and sweep.poll() is None:
        seen |= {child.pid: child for child in parent.children(recursive=True)}
    left = [*seen.values(), *parent.children(recursive=True)]
    sweep.kill()
    sweep.wait()
    assert psutil.wait_procs(set(left), timeout=120)[1] == []
    # A kill may come between making a semaphore and telling the tracker of it: the next sweep removes that one.
    remove_semaphores()
    assert not list(Path("/dev/shm").glob(f"sem.loky-{sweep.pid}-*"))


def test_a_journal_is_shared_too(app: App) -> None:
    arguments = ("sweeps=table", "sweeps.datasets=[a]", "paths.work=0.2", "hydra/sweeper/storage=journal")
    share(app, *arguments)


def share(app: App, *arguments: str) -> None:
    """Two sweeps of eight cells at the same time. Nobody dies, so no slow process may be taken for dead."""
    patient = (*arguments, "hydra.sweeper.heartbeat=5")
    app.join(app.start(*patient), app.start(*patient))
    assert len(app.results()) == 8
    assert set(app.events("start").values()) == {1}


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The address of a new database on the server that $MOLSAM_TEST_POSTGRESQL names; .ci/run starts one."""
    server = os.environ.get("MOLSAM_TEST_POSTGRESQL")
    if server is None:
        pytest.skip("MOLSAM_TEST_POSTGRESQL names no PostgreSQL server (.ci/run starts one)")
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed (molsam[postgresql])")
    name = f"molsam_test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"{server.rpartition('/')[0]}/{name}"
        storages.close()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_two_sweeps_share_one_postgresql_study(app: App, postgresql: str) -> None:
    share(app, "sweeps=table", "sweeps.datasets=[a]", "paths.work=0.2", f"hydra.sweeper.storage={postgresql}")
    # The same command again finds everything done, without a single new trial.
    app.run("sweeps=table", "sweeps.datasets=[a]", "paths.work=0.2", f"hydra.sweeper.storage={postgresql}")
    assert sum(app.events("start").values()) == 8
    study = optuna.load_study(study_name="table", storage=storages.connect(postgresql))
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    storages.close()
    assert len(complete) == 8
    assert len({trial.user_attrs["cell"] for trial in complete}) == 8


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed (molsam[slurm])")
def test_submitit_runs_cells(app: App) -> None:
    arguments = ("sweeps=table", "sweeps.datasets=[a]", "sweeps.folds=1", "hydra/launcher=submitit_local")
    app.join(app.start(*arguments))
    assert len(app.results()) == 4
    assert set(app.events("start").values()) == {1}


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (molsam[ray])")
def test_ray_runs_cells(app: App) -> None:
    arguments = ("sweeps=table", "sweeps.datasets=[a]", "sweeps.folds=1", "hydra/launcher=ray_local")
    app.join(app.start(*arguments))
    assert len(app.results()) == 4
    assert set(app.events("start").values()) == {1}
