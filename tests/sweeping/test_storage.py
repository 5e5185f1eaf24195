"""Storages: each trial is taken by one worker only."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.trial import TrialState

from molsam.errors import ConfigError, StorageError
from molsam.sweeping import storage as storages
from molsam.sweeping.context import usable
from molsam.sweeping.journal import PATIENCE, Journal, Lock
from molsam.sweeping.overrides import destination, parse
from tests.forked import CONTEXT


def nodes(folder: Path) -> dict[str, storages.Node]:
    backend = {
        "_target_": "molsam.sweeping.journal.Journal",
        "file_path": str(folder / "deep" / "study.log"),
    }
    return {
        "url": f"sqlite:///{folder}/deep/url.db",
        "sqlite": {"_target_": "optuna.storages.RDBStorage", "url": f"sqlite:///{folder}/deep/node.db"},
        "journal": {"_target_": "optuna.storages.JournalStorage", "log_storage": backend},
    }


def take_all(node: storages.Node, count: int) -> list[int]:
    storage = storages.connect(node)
    study = optuna.load_study(study_name="s", storage=storage)
    ids = [storage.get_trial_id_from_study_id_trial_number(study._study_id, number) for number in range(count)]
    return [number for number, key in enumerate(ids) if storage.set_trial_state_values(key, TrialState.RUNNING)]


@pytest.mark.parametrize("kind", ["url", "sqlite", "journal"])
def test_a_waiting_trial_is_taken_once(kind: str, tmp_path: Path) -> None:
    node = nodes(tmp_path)[kind]
    study = optuna.create_study(study_name="s", storage=storages.connect(node))
    for _ in range(40):
        study.add_trial(optuna.create_trial(state=TrialState.WAITING))
    with ProcessPoolExecutor(3, mp_context=CONTEXT) as pool:
        taken = [number for numbers in pool.map(take_all, [node] * 3, [40] * 3) for number in numbers]
    assert sorted(taken) == list(range(40))


def create(node: storages.Node) -> int:
    study = optuna.create_study(study_name="s", storage=storages.connect(node), load_if_exists=True)
    return study.ask().number


def test_processes_may_create_a_database_together(tmp_path: Path) -> None:
    node = nodes(tmp_path)["sqlite"]
    with ProcessPoolExecutor(4, mp_context=CONTEXT) as pool:
        numbers = list(pool.map(create, [node] * 4))
    assert sorted(numbers) == [0, 1, 2, 3]


def test_only_files_are_files(tmp_path: Path) -> None:
    assert all(storages.is_file(node) for node in nodes(tmp_path).values())
    assert not storages.is_file("postgresql://u@h/d")


def test_a_password_is_not_printed() -> None:
    assert (
        storages.describe("postgresql+psycopg://me:secret@host:5432/db") == "postgresql+psycopg://me:***@host:5432/db"
    )
    with pytest.raises(StorageError) as caught:
        storages.connect("nonsense://me:secret@host/db")
    assert "secret" not in str(caught.value)


def test_a_bare_postgresql_address_means_the_installed_driver(monkeypatch: Any) -> None:
    real = storages.importlib.util.find_spec
    monkeypatch.setattr(storages.importlib.util, "find_spec", lambda name: None if name == "psycopg2" else real(name))
    assert storages.address("postgresql://u@h/d") == "postgresql+psycopg://u@h/d"
    monkeypatch.setattr(storages.importlib.util, "find_spec", lambda name: object())
    assert storages.address("postgresql://u@h/d") == "postgresql://u@h/d"


ODD = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..") and "${" not in name and len(name.encode()) < 100
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(ODD, st.sampled_from(["sqlite", "journal"]))
@example("a?b", "sqlite")
@example("a{b}", "sqlite")
@example("a%3Fb", "sqlite")
def test_a_folder_may_have_any_name(tmp_path_factory: pytest.TempPathFactory, name: str, kind: str) -> None:
    folder = tmp_path_factory.mktemp("odd") / name
    node: storages.Node = {"_target_": "optuna.storages.RDBStorage", "path": str(folder / "study.db")}
    if kind == "journal":
        backend = {"_target_": "molsam.sweeping.journal.Journal", "file_path": str(folder / "study.journal")}
        node = {"_target_": "optuna.storages.JournalStorage", "log_storage": backend}
    study = optuna.create_study(study_name="s", storage=storages.connect(node))
    study.tell(study.ask(), 1.0)
    storages.close()
    (file,) = [path for path in folder.iterdir() if path.name.startswith("study.")]
    assert file.stat().st_size > 0
    assert list(folder.parent.iterdir()) == [folder]
    assert len(optuna.load_study(study_name="s", storage=storages.connect(node)).trials) == 1
    storages.close()
    values = [override.value() for override in parse(destination(str(folder), name))]
    assert [str(OmegaConf.create({"key": value}).key) for value in values] == [str(folder), name]


@pytest.mark.parametrize(("name", "sentence"), [("a${b}", "interpolation"), ("a\nb", "control character")])
def test_what_settings_cannot_carry_is_refused_by_name(name: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"paths.outputs=.*{sentence}"):
        usable("paths.outputs", f"/tmp/{name}")
    assert usable("paths.outputs", "/tmp/a?{b} 'c' #%$=,") == "/tmp/a?{b} 'c' #%$=,"


def journal(folder: Path, trials: int) -> Path:
    path = folder / "study.journal"
    study = optuna.create_study(study_name="s", storage=optuna.storages.JournalStorage(Journal(str(path))))
    for _ in range(trials):
        study.tell(study.ask(), 1.0)
    return path


def opened(path: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(Journal(str(path))))


@pytest.mark.parametrize("keep", [1, 7, -1])
def test_a_torn_last_line_is_dropped_and_said(keep: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = journal(tmp_path, 2)
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole + last[:keep])
    study = opened(path)
    assert "ends in the middle of a line" in caplog.text
    assert path.read_bytes() == whole
    assert len(study.trials) == 2
    study.tell(study.ask(), 3.0)
    assert [trial.value for trial in opened(path).trials] == [1.0, 1.0, 3.0]


def test_a_line_torn_while_others_write_is_dropped_under_the_lock(tmp_path: Path) -> None:
    path = journal(tmp_path, 1)
    study = opened(path)
    with open(path, "ab") as file:
        file.write(b'{"op_code": 4, "wor')
    study.tell(study.ask(), 2.0)
    assert [trial.value for trial in opened(path).trials] == [1.0, 2.0]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_lock_that_is_not_released_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lock = Lock(str(tmp_path / "study.journal"))
    lock.say()
    assert "study.journal.lock" in caplog.text
    assert "taken over after 30 s" in caplog.text


def test_only_who_waits_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[float] = []

    class Timer(threading.Timer):
        def __init__(self, interval: float, function: Any) -> None:
            said.append(interval)
            super().__init__(interval, function)

    monkeypatch.setattr(threading, "Timer", Timer)
    first, second = Lock(str(tmp_path / "j")), Lock(str(tmp_path / "j"))
    first.acquire()
    assert said == []
    waiter = threading.Thread(target=second.acquire)
    waiter.start()
    while not said:
        threading.Event().wait(0.01)
    first.release()
    waiter.join()
    second.release()
    assert said == [PATIENCE]
