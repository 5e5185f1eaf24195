"""Packing of run folders into one file, and unpacking."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable
from pathlib import Path

from molsam.errors import ConfigError, StorageError
from molsam.files import write_atomic
from molsam.report.stored import StoredRun, scan
from molsam.runs import pack as packs
from molsam.runs import result
from molsam.runs.pack import Packed


def pack(sources: Iterable[Path], target: Path, sweep: str | None = None) -> tuple[int, list[str]]:
    """Add the finished runs below some folders or files to the file `target`.

    With `sweep` they are stored under that sweep's name. Return the number of runs in the file, and a sentence for each
    damaged run, which is left out.
    """
    runs, damaged = scan(sources)
    if not runs:
        raise ConfigError(f"There is no finished run in {', '.join(map(str, sources))}; give another folder.")
    held: list[Packed] = []
    if target.exists():
        if not packs.is_packed(target):
            raise ConfigError(f"{target} was not written by `molsam results pack`; choose another name.")
        held, broken = packs.read(target)
        if broken:
            raise ConfigError(f"{broken[0]} Move the file away first.")
    new = [Packed(run.folder.name, _filed(run, sweep), _curve(run)) for run in runs]
    packs.write(target, [*held, *new])
    return len(packs.read(target)[0]), damaged


def unpack(path: Path, target: Path) -> tuple[int, list[str]]:
    """Write a run folder for every run in a file; return their number, and a sentence for each damaged one.

    A repeat of a cell gets the cell's name with a number, and no other run that is already there is overwritten.
    """
    runs, damaged = packs.read(path)
    for run in runs:
        folder = _own_folder(target / run.cell, run.result["checksum"])
        result.write(folder, {key: value for key, value in run.result.items() if key not in ("schema", "status")})
        if run.curve:
            lines = "".join(json.dumps(row) + "\n" for row in packs.epochs(run.curve))
            write_atomic(folder / "metrics.jsonl", lines.encode())
    return len(runs), damaged


def _own_folder(folder: Path, checksum: str) -> Path:
    """Return the first of NAME, NAME-2, ... that does not exist, or holds the very run."""
    for number in itertools.count(1):
        place = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        if not place.exists():
            return place
        with contextlib.suppress(StorageError):
            if (found := result.read(place)) is not None and found["checksum"] == checksum:
                return place
    raise AssertionError("unreachable")


def _filed(run: StoredRun, sweep: str | None) -> dict[str, object]:
    outcome = run.result
    section = outcome["config"].get("sweeps") or {}
    if sweep is None or section.get("name") == sweep:
        return outcome
    if not section.get("row"):
        raise ConfigError(f"{run.folder} is not a cell of a table; pack it without --sweep.")
    moved = {**outcome, "config": {**outcome["config"], "sweeps": {**section, "name": sweep}}}
    return {**moved, "checksum": result.checksum(moved)}


def _curve(run: StoredRun) -> dict[str, list[float | None]]:
    return run.curve if run.curve is not None else packs.curve(run.epochs(), str(run.result["metric"]))
