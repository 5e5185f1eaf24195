"""Storages of studies: a database URL or a node of conf/hydra/sweeper/storage, opened safely by many processes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sqlite3
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molsam.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

SQLITE_TIMEOUT = 60.0
"""Seconds that a process waits for another one to finish writing."""

NOWHERE = {"_target_": "optuna.storages.InMemoryStorage"}
"""The storage of a study that is not to be kept."""
ALLOWED = ["optuna.storages.*", "molsam.sweeping.journal.*"]

Node = str | dict[str, Any]

_open_storages: dict[tuple[int, str], BaseStorage] = {}
_engines: list[Any] = []


def connect(node: Node) -> BaseStorage:
    """Open a storage, once per process. Raises StorageError with the address (without the password) and the remedy.

    Processes that create a database at the same moment can fail on each other's tables, so it is tried again.
    """
    import optuna

    key = (os.getpid(), json.dumps(node, sort_keys=True))
    if key in _open_storages:
        return _open_storages[key]
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # molsam itself warns about what matters, once
    _make_folder(node)
    for patience in (0.2, 0.5, 1.0, None):
        try:
            storage = _open(node)
        except ConfigError:
            raise
        except Exception as error:
            if patience is None:
                raise StorageError(
                    f"hydra.sweeper.storage {describe(node)} cannot be opened ({_first_line(error)}); check the "
                    "address, or leave hydra.sweeper.storage out to use a file beside the outputs."
                ) from error
            time.sleep(patience)
        else:
            _engines.extend([storage.engine] if isinstance(storage, optuna.storages.RDBStorage) else [])
            _serialise_sqlite(storage)
            return _open_storages.setdefault(key, optuna.storages.get_storage(storage))
    raise AssertionError("unreachable")


def has_study(node: Node, name: str) -> bool:
    """Return whether the storage has a study of this name.

    Nothing is created. Raises StorageError as `connect` does.
    """
    path = file_of(node)
    if path is not None and not path.is_file():
        return False
    return any(one.study_name == name for one in connect(node).get_all_studies())


def close() -> None:
    """Close all storages that this process opened."""
    _open_storages.clear()
    while _engines:
        _engines.pop().dispose()


def is_file(node: Node) -> bool:
    """Return whether the storage is a file, which only processes with access to its folder can share."""
    url = address(node)
    return url is None or url.startswith("sqlite")


def address(node: Node) -> str | None:
    """Return the database URL; None for a journal."""
    url = node if isinstance(node, str) else node.get("url")
    if url is None and isinstance(node, dict) and "path" in node:
        return "sqlite://"
    if url is None:
        return None
    # For SQLAlchemy postgresql:// means psycopg2; molsam's extra installs its successor psycopg.
    if url.startswith("postgresql://") and importlib.util.find_spec("psycopg2") is None:
        return "postgresql+psycopg" + url.removeprefix("postgresql")
    return url


def file_of(node: Node) -> Path | None:
    """Return the path of the storage's file (SQLite or a journal), None if it is a server."""
    path = _path(node) if isinstance(node, dict) else None
    if path is None and (match := re.match(r"sqlite(?:\+\w+)?:///([^?]+)", address(node) or "")):
        path = match.group(1)
    return None if path in (None, ":memory:") else Path(str(path))


def describe(node: Node) -> str:
    """Return the storage in words, without a password."""
    if isinstance(node, dict) and (path := _path(node)) is not None:
        return path
    url = address(node)
    assert url is not None
    return re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", url)


def _open(node: Node) -> BaseStorage:
    from hydra.utils import instantiate

    url = address(node)
    settings: dict[str, Any] = {"_target_": "optuna.storages.RDBStorage"} if isinstance(node, str) else dict(node)
    if "path" in settings:
        return _file(settings["path"])
    if url is not None:
        settings["url"] = url
        if url.startswith("sqlite"):
            settings.setdefault("engine_kwargs", {}).setdefault("connect_args", {"timeout": SQLITE_TIMEOUT})
        elif url.startswith("postgresql+psycopg") and importlib.util.find_spec("psycopg") is None:
            raise ConfigError("PostgreSQL needs its driver; install it with pip install 'molsam[postgresql]'.")
    return instantiate(settings, _convert_="all", _execution_whitelist_=ALLOWED)


def _file(path: str) -> BaseStorage:
    """Return an SQLite storage by its path; a URL, or Optuna's template for it, does not allow all characters."""
    import optuna
    from sqlalchemy.pool import QueuePool

    def opened() -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=SQLITE_TIMEOUT, check_same_thread=False)

    return optuna.storages.RDBStorage("sqlite://", engine_kwargs={"creator": opened, "poolclass": QueuePool})


def _serialise_sqlite(storage: BaseStorage) -> None:
    """Make every SQLite transaction take the write lock at its start.

    By default SQLite locks only when it writes. Two processes could both read that a trial is waiting, and both claim
    it.
    """
    import optuna
    from sqlalchemy import event

    if not isinstance(storage, optuna.storages.RDBStorage) or storage.engine.name != "sqlite":
        return

    @event.listens_for(storage.engine, "connect")
    def manual_begin(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(storage.engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()


def _make_folder(node: Node) -> None:
    path = file_of(node)
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The folder of {path} cannot be made ({error.strerror}); choose another with paths.outputs=FOLDER."
        ) from error


def _path(node: dict[str, Any]) -> str | None:
    """Return the path in a node: that of an SQLite file or a journal, else None."""
    if "path" in node:
        return str(node["path"])
    backend = node.get("log_storage")
    return backend.get("file_path") if isinstance(backend, dict) else None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
