"""Sweeps against the outside: random kills, PostgreSQL, SLURM's and Ray's launchers."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import psutil
import pytest

from molsam.sweeping import storage as storages
from tests.unit.sweeping.conftest import App

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
        deadline = time.monotonic() + 60
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


def kill_group(sweep: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(sweep.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def assert_each_once(app: App) -> None:
    """Every cell has one result; it ended once; whatever else was started was killed before its end."""
    assert len(app.results()) == ALL
    assert app.events("end") == Counter(dict.fromkeys(app.results(), 1))
    assert len(app.numbers()) == len(set(app.numbers()))


def test_killed_at_random_moments_nothing_is_lost_or_run_twice(app: App) -> None:
    kill_at_random(app, random.Random(0), 3, "work=0.4")
    app.run(*TABLE, "work=0.4")
    assert_each_once(app)


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite", "journal"])
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_many_times(app: App, seed: int, storage: str) -> None:
    kill_at_random(app, random.Random(seed), 15, "work=0.6", f"hydra/sweeper/storage={storage}")
    app.run(*TABLE, "work=0.6", f"hydra/sweeper/storage={storage}")
    assert_each_once(app)


def test_an_orphaned_worker_keeps_its_cell(app: App) -> None:
    """The sweeper alone is killed: a cell whose worker lives on is not started a second time."""
    arguments = ("sweeps=table", "sweeps.datasets=[a]", "sweeps.folds=1", "sweeps.seeds=[0]", "work=4")
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    sweep = app.start(*arguments, *launcher)
    while app.log.read_text().count("start") < 2:
        time.sleep(0.02)
    workers = psutil.Process(sweep.pid).children(recursive=True)
    for worker in workers:
        worker.suspend()
    sweep.kill()
    sweep.wait()
    for worker in workers:
        worker.resume()
    app.run(*arguments)
    assert app.events("end") == Counter({"x_=_0.1-a-f0-s0": 1, "x_=_0.2-a-f0-s0": 1})


def test_a_journal_is_shared_too(app: App) -> None:
    arguments = ("sweeps=table", "sweeps.datasets=[a]", "work=0.2", "hydra/sweeper/storage=journal")
    share(app, *arguments)


def share(app: App, *arguments: str) -> None:
    """Two sweeps of eight cells, at the same time."""
    app.join(app.start(*arguments), app.start(*arguments))
    assert len(app.results()) == 8
    assert set(app.events("start").values()) == {1}


@pytest.fixture
def postgresql(tmp_path: Path) -> Iterator[str]:
    """The address of a PostgreSQL server of its own, on loopback."""
    found = shutil.which("pg_ctl") or next(iter(map(str, Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))), None)
    if found is None:
        pytest.skip("PostgreSQL's server is not installed")
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed (pip install 'molsam[postgresql]')")
    binaries, data = Path(found).resolve().parent, tmp_path / "pg"
    data.mkdir()
    # The server refuses to run as root.
    account: dict[str, str] = {}
    if os.geteuid() == 0:
        account = {"user": "nobody"}
        shutil.chown(data, "nobody")
        for folder in (tmp_path, *tmp_path.parents[:2]):
            folder.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data} -c fsync=off"
    initdb = [str(binaries / "initdb"), "-D", str(data / "db"), "-U", "molsam", "--auth=trust", "-N"]
    start = [found, "-D", str(data / "db"), "-o", options, "-l", str(data / "log"), "-w", "start"]
    for command in (initdb, start):
        done = subprocess.run(command, capture_output=True, text=True, cwd=data, check=False, **account)  # type: ignore[call-overload]
        if done.returncode:
            pytest.skip(f"PostgreSQL does not start here: {done.stderr.strip()[-300:]}")
    yield f"postgresql://molsam@127.0.0.1:{port}/postgres"
    stop = [found, "-D", str(data / "db"), "-m", "immediate", "stop"]
    subprocess.run(stop, capture_output=True, cwd=data, check=False, **account)  # type: ignore[call-overload]


def test_two_sweeps_share_one_postgresql_study(app: App, postgresql: str) -> None:
    share(app, "sweeps=table", "sweeps.datasets=[a]", "work=0.2", f"hydra.sweeper.storage={postgresql}")
    # The same command again finds everything done, without a single new trial.
    app.run("sweeps=table", "sweeps.datasets=[a]", "work=0.2", f"hydra.sweeper.storage={postgresql}")
    assert sum(app.events("start").values()) == 8
    study = optuna.load_study(study_name="table", storage=storages.connect(postgresql))
    complete = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    storages.close()
    assert len(complete) == 8
    assert len({trial.user_attrs["cell"] for trial in complete}) == 8


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
