"""The run folder: where a run goes, which run may be in it, and one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from molsam.config.compose import other_folder, plain
from molsam.config.identity import FOLD, Identity, identity, mismatch, paths_of, restored
from molsam.config.identity import stored as of_result
from molsam.config.secrets import without_secrets
from molsam.errors import ConfigError, DataError, MolsamError, StorageError
from molsam.files import remove_temporaries, write_atomic, write_json
from molsam.runs import result

log = logging.getLogger(__name__)
STATUS = "run.json"
WRITTEN = (".", ".hydra", "last", "best", "fold*", "fold*/last", "fold*/best")
"""Folders of a run that files are put into in one step."""
RESULTS = (
    "result.json", "fold*/result.json", "folds.json", "last/checkpoint.*", "fold*/last/checkpoint.*",
    "best/*", "fold*/best/*", "wandb/unfinished", "fold*/wandb/unfinished",
)  # fmt: skip
"""What would be taken for the outcome, or the middle, of the run that is now in the folder."""
RECORDS = (STATUS, ".hydra/config.yaml", ".hydra/overrides.yaml")
COMPUTED = ("**/metrics.jsonl", "**/result.json", "**/checkpoint.*")
BEGUN = (
    "run.json", "run.log", ".lock", ".hydra/config.yaml", ".hydra/overrides.yaml", "split.json", "fold*/split.json",
    "metrics.jsonl", "fold*/metrics.jsonl", "gradients.jsonl", "fold*/gradients.jsonl",
)  # fmt: skip
"""What a run writes before its first step."""


def choose(cfg: DictConfig, identify: Callable[[DictConfig], Identity]) -> Path:
    """Return the folder of a run: one of today's, or an unfinished one of the same identity wherever it is.

    So the same command continues what was interrupted, and otherwise never touches a finished run.
    """
    if cfg.get("resume"):
        return Path(cfg.resume)
    outputs, name = Path(cfg.paths.outputs), run_name(cfg)
    found = sorted(outputs.glob(f"*/{_escape(name)}*/{STATUS}"), reverse=True)
    open_ones = [path.parent for path in found if read_status(path.parent).get("status") != "complete"]
    # Errors in the settings or the data are reported when the run starts.
    with contextlib.suppress(MolsamError):
        identity = identify(cfg) if open_ones else None
        for folder in open_ones:
            if identity is not None and unfinished(folder, identity):
                return folder
    day = outputs / time.strftime("%Y-%m-%d")
    folder, count = day / name, 1
    while (folder / STATUS).exists():
        count += 1
        folder = day / f"{name}-{count}"
    return folder


def run_name(cfg: DictConfig) -> str:
    """Return a folder name a person can read: model, optimizer, dataset, and the seed."""
    name = cfg.name or called(cfg)
    return re.sub(r"[^\w.=+-]+", "_", f"{name}-s{cfg.seed}")[:120]


def called(cfg: DictConfig) -> str:
    """Return the name of a run that was given none; a baseline has no optimizer."""
    parts = [cfg.choices.model, cfg.choices.optimizer, cfg.choices.dataset]
    return "-".join(str(part) for part in parts if part != "none")


def unfinished(folder: Path, identity: Identity) -> bool:
    """Return whether a folder holds an interrupted run of this identity that no process is training."""
    if read_status(folder).get("status") == "complete":
        return False
    return held(folder, identity) == identity and not locked(folder)


def held(folder: Path, wanted: Identity) -> Identity | None:
    """Return the identity of the run in a folder, by its run.json or its results; None if there is no run.

    A run.json of before identities were recorded knows nothing of the data. They count as those of `wanted`: the
    run's checkpoint has their hash, which is looked at before it goes on.
    """
    # A result has a checksum and run.json has none, so a whole result is believed first.
    with contextlib.suppress(StorageError):
        if (outcome := result.read(folder)) is not None:
            return of_result(outcome)
    status = read_status(folder)
    if (found := restored(status.get("identity"))) is not None:
        return found
    for path in sorted(folder.glob("fold*")):
        with contextlib.suppress(StorageError):
            if (outcome := result.read(path)) is not None:
                made = of_result(outcome)
                return replace(made, split={**made.split, FOLD: wanted.split[FOLD]})
    with contextlib.suppress(StorageError):
        return identity(stored(folder), wanted.data) if "config_hash" in status else None
    return None


def refusal(folder: Path, old: Identity, wanted: Identity, other: str | None = None) -> str:
    """Return the error message for a folder that holds the run `old`, with the names of the files that it read.

    `other`: the setting that gives `wanted` another folder; that of a run by default.
    """
    if not old.paths:
        with contextlib.suppress(StorageError):
            old = replace(old, paths=paths_of(plain(stored(folder))))
    return mismatch(folder, old, wanted, other=other or other_folder())


def read_status(folder: Path) -> dict[str, Any]:
    """run.json, empty if it is missing or damaged."""
    try:
        status = json.loads((folder / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return status if isinstance(status, dict) else {}


def locked(folder: Path) -> bool:
    """Return whether a running process has locked the folder."""
    try:
        with open(folder / ".lock", "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def stored(folder: Path) -> DictConfig:
    """Return the settings that a run recorded. They are plain values, because a stranger may have written the file.

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
        raise ValueError("it is not a group of settings")
    held: list[Any] = [OmegaConf.to_container(cfg, resolve=False)]
    while held:
        value = held.pop()
        held += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        if isinstance(value, str) and "${" in value:
            raise ValueError(f"it holds the interpolation {value[:60]!r}")
    return cfg


class RunFolder:
    """Context manager: claims a folder, records the settings, marks it complete at the end.

    If settings or data turn out to be wrong, a folder that is new and holds nothing goes again, and another one says
    what it said before.
    """

    def __init__(self, path: Path, cfg: DictConfig, overrides: list[str], identity: Identity) -> None:
        self.path, self.cfg, self.overrides, self.identity = path, cfg, overrides, identity
        self.lock: IO[bytes] | None = None
        self.before: dict[Path, bytes] | None = None
        """the records that were there; None in a folder without a run"""

    def __enter__(self) -> RunFolder:
        self._claim()
        try:
            found = held(self.path, self.identity)
            if found is not None and found != self.identity and not self.cfg.overwrite:
                raise ConfigError(refusal(self.path, found, self.identity))
            for place in WRITTEN:
                for folder in self.path.glob(place) if place != "." else [self.path]:
                    remove_temporaries(folder)
            records = [self.path / name for name in RECORDS]
            if (self.path / STATUS).exists() or self._computed():
                self.before = {path: path.read_bytes() for path in records if path.exists()}
            if self.cfg.overwrite:
                self._clear()
                self.before = None
            self._mark("running")
        except BaseException:
            self._release()
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
                f"{other_folder()}."
            ) from None
        except OSError as error:
            log.warning("%s cannot be locked (%s); let no other process train in it.", self.path, error.strerror)

    def _clear(self) -> None:
        """Remove what an earlier run came to, of all its folds: nothing of it may count as the new one's."""
        for pattern in RESULTS:
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)

    def record(self) -> None:
        """Write the resolved settings to .hydra, once."""
        hydra = self.path / ".hydra"
        write_atomic(hydra / "config.yaml", OmegaConf.to_yaml(without_secrets(plain(self.cfg))).encode())
        write_atomic(hydra / "overrides.yaml", yaml.safe_dump(without_secrets(self.overrides)).encode())

    def complete(self) -> None:
        """Note that the run is finished: the folder is never continued again."""
        self._mark("complete")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, ConfigError | DataError):
            self._withdraw()
        elif kind is not None and kind.__name__ == "TrialPruned":
            self._mark("pruned")  # optuna's word, which only the sweeps know
        self._release()

    def _computed(self) -> bool:
        return any(path.stat().st_size for pattern in COMPUTED for path in self.path.glob(pattern))

    def _withdraw(self) -> None:
        """Leave the folder as it was found, unless it was empty and something was computed."""
        if self.before is not None:
            for name in RECORDS:
                path = self.path / name
                if path in self.before:
                    write_atomic(path, self.before[path])
                else:
                    path.unlink(missing_ok=True)
            return
        if self._computed():
            return
        for pattern in BEGUN:
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)
        for pattern in (*WRITTEN[:0:-1], "fold*"):
            for folder in self.path.glob(pattern):
                with contextlib.suppress(OSError):
                    folder.rmdir()
        remove_if_empty(self.path)

    def _release(self) -> None:
        if self.lock is not None:
            self.lock.close()

    def _mark(self, status: str) -> None:
        write_json(self.path / STATUS, {"status": status, "identity": self.identity.whole(), "pid": os.getpid()})


def remove_if_empty(folder: Path) -> None:
    """Remove a run folder that holds only empty Hydra logs, and the folder of the day if it is empty then."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.suffix != ".log" or path.stat().st_size:
                return
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        folder.parent.rmdir()


def _escape(name: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", name)
