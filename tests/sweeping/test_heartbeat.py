"""Which trials are alive: by the kernel on this machine, by a counter elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from molsam.sweeping import heartbeat
from molsam.sweeping.heartbeat import SWEEPER, WORKER, Heartbeat, Watch, beat, process_start
from tests.paths import PATIENCE

LINUX = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="needs /proc")


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def running(**records: Any) -> optuna.trial.FrozenTrial:
    trial = optuna.create_trial(state=TrialState.RUNNING, system_attrs=records)
    trial.number = 5
    return trial


def remote(count: int, interval: float = 10.0) -> dict[str, Any]:
    return {"host": "elsewhere", "pid": 1, "start": "1", "beat": count, "interval": interval, "time": 0.0}


@LINUX
def test_a_process_of_this_machine_is_asked_for_directly() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    record = {**beat(1, 10.0), "pid": child.pid, "start": process_start(child.pid)}
    watch = Watch(10.0)
    assert not watch.dead(running(**{WORKER: record}))
    child.kill()
    deadline = time.monotonic() + PATIENCE
    while process_start(child.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    # It is a corpse now (nobody has waited for it), and later gone.
    assert watch.dead(running(**{WORKER: record}))
    child.wait()
    assert watch.dead(running(**{WORKER: record}))


@LINUX
def test_another_process_under_the_old_number_is_not_the_old_one() -> None:
    record = {**beat(1, 10.0), "start": "1"}
    assert Watch(10.0).dead(running(**{WORKER: record}))


def test_a_remote_process_dies_after_six_silent_intervals() -> None:
    clock = Clock()
    watch = Watch(10.0, clock)
    assert not watch.dead(running(**{WORKER: remote(1)}))
    clock.now += 60
    assert not watch.dead(running(**{WORKER: remote(1)}))
    clock.now += 1
    assert watch.dead(running(**{WORKER: remote(1)}))


def test_a_remote_process_that_beats_lives_whatever_its_clock_says() -> None:
    clock = Clock()
    watch = Watch(10.0, clock)
    for count in range(10):
        assert not watch.dead(running(**{WORKER: {**remote(count), "time": -1e9}}))
        clock.now += 50


def test_a_trial_without_any_record_is_watched() -> None:
    clock = Clock()
    watch = Watch(1.0, clock)
    assert not watch.dead(running())
    clock.now += 5
    assert not watch.dead(running())
    clock.now += 2
    assert watch.dead(running())


@LINUX
def test_one_living_process_is_enough() -> None:
    gone = {**beat(1, 10.0), "start": "1"}
    watch = Watch(10.0)
    assert not watch.dead(running(**{WORKER: gone, SWEEPER: beat(1, 10.0)}))
    assert watch.dead(running(**{WORKER: gone, SWEEPER: beat(1, 10.0)}), (WORKER,))


def test_the_thread_keeps_beating_until_the_end() -> None:
    study = optuna.create_study()
    trial = study.ask()
    before = set(threading.enumerate())
    with Heartbeat(study._storage, [trial._trial_id], WORKER, 0.05):
        while study.trials[0].system_attrs.get(WORKER, {"beat": 0})["beat"] < 3:
            time.sleep(0.01)
    count = study.trials[0].system_attrs[WORKER]["beat"]
    assert set(threading.enumerate()) == before  # nobody beats any more
    assert study.trials[0].system_attrs[WORKER]["beat"] == count
    assert study.trials[0].system_attrs[WORKER]["host"] == heartbeat.host()


def test_a_finished_trial_gets_no_beats() -> None:
    study = optuna.create_study()
    trials = [study.ask(), study.ask()]
    beats = Heartbeat(study._storage, [t._trial_id for t in trials], WORKER, 10)
    study.tell(trials[0], 1.0)
    beats.write()
    assert WORKER not in study.trials[0].system_attrs
    assert study.trials[1].system_attrs[WORKER]["beat"] == 1
    assert beats.trial_ids == [trials[1]._trial_id]
