"""The run folder: where a run goes, which run may be in it, and one process at a time."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import time
from pathlib import Path
from typing import IO, Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from molsam.config.compose import plain
from molsam.config.identity import config_hash
from molsam.config.secrets import without_secrets
from molsam.errors import ConfigError, StorageError
from molsam.files import remove_temporaries, write_atomic, write_json

log = logging.getLogger(__name__)
STATUS = "run.json"
WRITTEN = (".", ".hydra", "last", "best", "fold*", "fold*/last", "fold*/best")
"""Folders of a run that files are put into in one step."""


def choose(cfg: DictConfig) -> Path:
    """The folder of a run: one of today's, or an unfinished one of the same settings wherever it is.

    So the same command continues what was interrupted, and otherwise never touches a finished run.
    """
    if cfg.get("resume"):
        return Path(cfg.resume)
    outputs, name, digest = Path(cfg.paths.outputs), run_name(cfg), config_hash(cfg)
    for status in sorted(outputs.glob(f"*/{_escape(name)}*/{STATUS}"), reverse=True):
        if unfinished(status.parent, digest):
            return status.parent
    day = outputs / time.strftime("%Y-%m-%d")
    folder, count = day / name, 1
    while (folder / STATUS).exists():
        count += 1
        folder = day / f"{name}-{count}"
    return folder


def run_name(cfg: DictConfig) -> str:
    """A folder name a person can read: model, optimizer, dataset, and the seed."""
    parts = [cfg.choices.model, cfg.choices.optimizer, cfg.choices.dataset]
    name = cfg.name or "-".join(parts)
    return re.sub(r"[^\w.=+-]+", "_", f"{name}-s{cfg.seed}")[:120]


def unfinished(folder: Path, digest: str) -> bool:
    """Whether a folder holds an interrupted run of these settings that no process works on."""
    status = read_status(folder)
    if status.get("config_hash") != digest or status.get("status") == "complete":
        return False
    return not locked(folder)


def read_status(folder: Path) -> dict[str, Any]:
    """run.json, empty if it is missing or damaged."""
    try:
        status = json.loads((folder / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return status if isinstance(status, dict) else {}


def locked(folder: Path) -> bool:
    """Whether a living process holds the folder."""
    try:
        with open(folder / ".lock", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def stored(folder: Path) -> DictConfig:
    """The settings that a run recorded. Whoever wrote the file: it holds values, and nothing that is worked out.

    Raises StorageError if there is none, it is damaged, or it holds an interpolation (which could read this
    machine's environment) or an alias (which could unfold without end).
    """
    path = folder / ".hydra" / "config.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{folder} is not a run folder ({path} cannot be read); give the folder that holds .hydra."
        ) from error
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("it holds a YAML alias")
        cfg = OmegaConf.create(text)
        recorded(cfg)
    except (yaml.YAMLError, ValueError, RecursionError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())[:200]
        raise StorageError(
            f"{path} is damaged or was not written by molsam ({reason}); take another run folder."
        ) from error
    assert isinstance(cfg, DictConfig)
    return cfg


def recorded(cfg: Any) -> DictConfig:
    """Recorded settings as a configuration; raises ValueError if they are none, or hold an interpolation."""
    if not isinstance(cfg, DictConfig):
        raise ValueError("it is no group of settings")
    held: list[Any] = [OmegaConf.to_container(cfg, resolve=False)]
    while held:
        value = held.pop()
        held += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        if isinstance(value, str) and "${" in value:
            raise ValueError(f"it holds the interpolation {value[:60]!r}")
    return cfg


class RunFolder:
    """Context manager: claims a folder, records the settings, marks it complete at the end."""

    def __init__(self, path: Path, cfg: DictConfig, overrides: list[str]) -> None:
        self.path, self.cfg, self.overrides = path, cfg, overrides
        self.digest = config_hash(cfg)
        self.lock: IO[bytes] | None = None

    def __enter__(self) -> RunFolder:
        self._claim()
        try:
            found = read_status(self.path).get("config_hash")
            if found not in (None, self.digest) and not self.cfg.overwrite:
                raise ConfigError(
                    f"{self.path} holds a run of other settings (hash {found}, these are {self.digest}); choose another "
                    "folder, or start anew in it with overwrite=true."
                )
            for place in WRITTEN:
                for folder in self.path.glob(place) if place != "." else [self.path]:
                    remove_temporaries(folder)
            self._mark("running")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _claim(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock = open(self.path / ".lock", "wb")  # noqa: SIM115 - held for the run
        except (OSError, ValueError) as error:
            raise StorageError(
                f"{self.path} cannot be written ({getattr(error, 'strerror', error)}); choose another folder with "
                "paths.outputs=FOLDER."
            ) from error
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.lock.close()
            raise StorageError(
                f"Another process is training in {self.path}; wait for it, or choose another folder with "
                "hydra.run.dir=FOLDER."
            ) from None
        except OSError as error:
            log.warning("%s cannot be locked (%s); let no other process train in it.", self.path, error.strerror)

    def record(self) -> None:
        """Write the resolved settings to .hydra, once."""
        hydra = self.path / ".hydra"
        write_atomic(hydra / "config.yaml", yaml.safe_dump(without_secrets(plain(self.cfg)), sort_keys=False).encode())
        write_atomic(hydra / "overrides.yaml", yaml.safe_dump(without_secrets(self.overrides)).encode())

    def complete(self) -> None:
        """The run is finished: the folder is never continued again."""
        self._mark("complete")

    def __exit__(self, *_: object) -> None:
        if self.lock is not None:
            self.lock.close()

    def _mark(self, status: str) -> None:
        write_json(self.path / STATUS, {"status": status, "config_hash": self.digest, "pid": os.getpid()})


def _escape(name: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", name)
