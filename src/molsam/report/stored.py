"""Stored runs: settings and scores from result.json, curves from the JSON lines files."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from molsam.config.identity import Identity, stored
from molsam.errors import StorageError
from molsam.files import RECORDS, below
from molsam.runs import pack, result

log = logging.getLogger(__name__)
Row = dict[str, Any]
TRACKED = frozenset(RECORDS.values())
"""Names of a run folder's logs, which files of packed runs do not have."""
LATE_SHARE, LATE_LEAST = 0.2, 3
"""Share of the epochs, and smallest number of epochs, over which the late score is the mean."""


@dataclass(frozen=True, eq=False)
class StoredRun:
    """A finished run in its folder; or in a file of packed runs, which includes its curve."""

    folder: Path
    result: dict[str, Any]
    curve: dict[str, list[float | None]] | None = None

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.result["model"])

    @property
    def optimizer(self) -> str:
        """Name of the optimizer."""
        return str(self.result["optimizer"])

    @property
    def dataset(self) -> str:
        """Name of the dataset."""
        return str(self.result["dataset"])

    @property
    def pair(self) -> tuple[int, int]:
        """(seed, fold), by which runs of different optimizers are paired."""
        return int(self.result["seed"]), int(self.result["fold"])

    @property
    def test(self) -> float | None:
        """The test metric; None if it could not be computed."""
        value = self.result["test"].get(self.result["metric"])
        return None if value is None else float(value)

    @cached_property
    def identity(self) -> Identity:
        """The identity of its numbers."""
        return stored(self.result)

    @property
    def smoke(self) -> bool:
        """Whether it was made with smoke=true."""
        return bool(self.setting("smoke")) or "smoke" in self.folder.parent.name.split("-")

    @property
    def late(self) -> float | None:
        """The mean test metric over the last fifth of the epochs; None if only the best epoch was tested.

        It has no noise from the selection of an epoch.
        """
        return self.late_of(None)

    def late_of(self, epochs: list[Row] | None) -> float | None:
        """Return the late score; `epochs` are its epoch lines, if they were read already."""
        stated = self.result.get("test_late")
        if isinstance(stated, dict):
            stated = stated.get(self.result["metric"])
        if stated is not None:
            return float(stated)
        if not self.setting("training.test_each_epoch"):
            return None
        tested = [row.get(f"test/{self.result['metric']}") for row in (self.epochs() if epochs is None else epochs)]
        last = tested[-max(LATE_LEAST, math.ceil(LATE_SHARE * len(tested))) :]
        known = [float(value) for value in last if value is not None]
        return fmean(known) if len(known) == len(last) >= LATE_LEAST else None

    @property
    def files(self) -> Path:
        """The folder with its curves: that of another sweep, if that trained it."""
        return result.origin(self.folder, self.result)

    def setting(self, key: str) -> Any:
        """Return the setting of a dotted key; None if there is none."""
        node: Any = self.result["config"]
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def epochs(self) -> list[Row]:
        """Return the epoch lines of metrics.jsonl."""
        if self.curve is not None:
            return pack.epochs(self.curve)
        return [row for row in read_lines(self.files / "metrics.jsonl") if row.get("kind") == "epoch"]

    def gradients(self) -> list[Row]:
        """Return the lines of gradients.jsonl, one per step; empty without diagnostics=gradients."""
        return [] if self.curve is not None else read_lines(self.files / "gradients.jsonl")

    def sharpness(self) -> Row:
        """Return the last line of sharpness.jsonl; empty without diagnostics=sharpness."""
        rows = [] if self.curve is not None else read_lines(self.files / "sharpness.jsonl")
        return rows[-1] if rows else {}


def scan(roots: Iterable[Path]) -> tuple[list[StoredRun], list[str]]:
    """Return all finished runs under some folders or in packed files, by path, and a sentence for each damaged one."""
    found, damaged = [], []
    for path in sorted({path for root in roots for path in _places(root)}):
        if path.name != result.NAME:
            runs, broken = pack.read(path)
            found += [StoredRun(path / run.cell, run.result, run.curve) for run in runs]
            damaged += broken
            continue
        try:
            outcome = result.read(path.parent)
        except StorageError as error:
            damaged.append(str(error))
            continue
        if outcome is not None:
            found.append(StoredRun(path.parent, outcome))
    return found, damaged


def _places(root: Path) -> Iterator[Path]:
    """Yield the result.json of every run folder, and the files of packed runs."""
    if root.is_file():
        yield root
        return
    for path in below(root, result.NAME, suffix=".jsonl"):
        if path.name == result.NAME or (path.name not in TRACKED and pack.is_packed(path)):
            yield path


def find_runs(roots: Iterable[Path]) -> list[StoredRun]:
    """Return all finished runs under some folders, by path and without copies; warn about damaged ones."""
    found, damaged = scan(roots)
    for sentence in damaged:
        log.warning(sentence)
    folders = {run.folder for run in found}
    made = {_made(run) for run in found if result.SAME not in run.result}
    return [run for run in found if not _is_copy(run, folders, made)]


def _is_copy(run: StoredRun, folders: set[Path], made: set[tuple[Any, ...]]) -> bool:
    if result.SAME not in run.result:
        return False
    return run.files in folders if run.curve is None else _made(run) in made


def _made(run: StoredRun) -> tuple[Any, ...]:
    """Return a key that is equal for a run and its copies."""
    return tuple(str(run.result.get(key)) for key in ("started", "finished", "seconds", "test"))


def read_lines(path: Path) -> list[Row]:
    """Return the objects in a JSON lines file; none if it is absent.

    A last line that is still being written is left out. Raises StorageError if another line is damaged.
    """
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    try:
        # One call for all lines takes a third of the time of one call per line.
        return list(json.loads(b"[" + b",".join(lines) + b"]"))
    except ValueError as error:
        raise StorageError(f"{path} is damaged ({error}); train this run again with overwrite=true.") from error
