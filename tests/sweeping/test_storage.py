"""Storages: one trial, one taker."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from molsam.errors import StorageError
from molsam.sweeping import storage as storages


def nodes(folder: Path) -> dict[str, storages.Node]:
    backend = {
        "_target_": "optuna.storages.journal.JournalFileBackend",
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
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        taken = [number for numbers in pool.map(take_all, [node] * 3, [40] * 3) for number in numbers]
    assert sorted(taken) == list(range(40))


def create(node: storages.Node) -> int:
    study = optuna.create_study(study_name="s", storage=storages.connect(node), load_if_exists=True)
    return study.ask().number


def test_processes_may_create_a_database_together(tmp_path: Path) -> None:
    node = nodes(tmp_path)["sqlite"]
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
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
