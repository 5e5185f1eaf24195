"""Many finished runs in one JSON lines file: a line a run, the settings once, the test curves with it.

A line is the run's result.json, so that `pandas.read_json(path, lines=True)` reads it, with the run's name (`cell`),
its `row` in the table, and the `curve` of its epochs. Sections that many runs share (settings, versions, machine,
data) stand in the first line that has them. Later lines refer to it under `shared`: {"line": number from 0,
"changes": [[path, value], ...]}; a path alone means that the key is gone. Put together, a result is what it was, its
checksum too.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from molsam.errors import StorageError
from molsam.files import write_atomic
from molsam.runs import result

MARK = "packed"
VERSION = 1
FIRST = f'{{"{MARK}":'.encode()
"""How every file of packed runs begins."""
SHARED = ("config", "versions", "machine", "data")
ADDED = (MARK, "cell", "row", "shared", "curve")
"""Keys of a line that are not of result.json."""
DIGITS = 6


@dataclass(frozen=True)
class Packed:
    """A finished run: its name, its result, and metric -> its value at every epoch."""

    cell: str
    result: dict[str, Any]
    curve: dict[str, list[float | None]] = field(default_factory=dict)


def is_packed(path: Path) -> bool:
    """Return whether a file holds packed runs, by its first bytes."""
    try:
        with open(path, "rb") as file:
            return file.read(len(FIRST)) == FIRST
    except OSError:
        return False


def write(path: Path, runs: Iterable[Packed]) -> None:
    """Write runs to a file, each once (by the checksum of its result), sorted by name and date."""
    kept = {run.result.get("checksum") or result.checksum(run.result): run for run in runs}
    ordered = sorted(kept.values(), key=lambda run: (run.cell, str(run.result.get("finished"))))
    anchors: dict[str, tuple[int, Any]] = {}
    lines = [_line(place, run, anchors) for place, run in enumerate(ordered)]
    write_atomic(path, "".join(lines).encode())


def read(path: Path) -> tuple[list[Packed], list[str]]:
    """Return the runs of a file, and a sentence for every line that is damaged."""
    found: list[Packed] = []
    damaged: list[str] = []
    wholes: list[dict[str, Any]] = []
    for number, text in enumerate(_lines(path)):
        whole: dict[str, Any] = {}
        try:
            line = json.loads(text)
            whole = _whole(line, wholes)
            found.append(_checked(line, whole))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            reason = " ".join(str(error).split())[:120]
            damaged.append(f"{path}, line {number + 1}, is damaged ({reason}); pack its sweep again.")
        wholes.append(whole)
    return found, damaged


def curve(rows: Iterable[dict[str, Any]], metric: str) -> dict[str, list[float | None]]:
    """Return the losses and the validation and test metric of every epoch, from the epoch lines of a run."""
    rows = list(rows)
    keys = (f"valid/{metric}", f"test/{metric}", "train/loss", "valid/loss", "test/loss")
    found = {key: [_short(row.get(key)) for row in rows] for key in keys}
    return {key: values for key, values in found.items() if any(value is not None for value in values)}


def epochs(found: dict[str, list[float | None]]) -> list[dict[str, Any]]:
    """Return a curve as the epoch lines of metrics.jsonl."""
    count = max(map(len, found.values()), default=0)
    return [
        {"kind": "epoch", "epoch": place, **{key: values[place] for key, values in found.items()}}
        for place in range(count)
    ]


def _line(place: int, run: Packed, anchors: dict[str, tuple[int, Any]]) -> str:
    outcome = run.result
    row = ((outcome.get("config") or {}).get("sweeps") or {}).get("row")
    line: dict[str, Any] = {MARK: VERSION, "cell": run.cell, "row": row}
    line |= {key: value for key, value in outcome.items() if key not in SHARED}
    shared = {}
    for key in SHARED:
        value = outcome.get(key)
        # Cells of one row and dataset differ by little; other sections are equal or not.
        name = f"{key} {row} {outcome['dataset']}" if key == "config" else f"{key} {_text(value)}"
        anchor = anchors.get(name)
        if anchor is None:
            anchors[name] = place, value
            line[key] = value
        else:
            shared[key] = {"line": anchor[0], "changes": list(_changes(anchor[1], value, []))}
    return _text({**line, "shared": shared, "curve": run.curve}) + "\n"


def _changes(old: Any, new: Any, path: list[str]) -> Iterator[list[Any]]:
    if not (isinstance(old, dict) and isinstance(new, dict)):
        if _text(old) != _text(new):
            yield [path, new]
        return
    for key in [*old, *(key for key in new if key not in old)]:
        if key not in new:
            yield [[*path, key]]
        elif key not in old:
            yield [[*path, key], new[key]]
        else:
            yield from _changes(old[key], new[key], [*path, key])


def _whole(line: dict[str, Any], wholes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the result of a line, its shared sections filled in."""
    if line[MARK] != VERSION:
        raise ValueError(f"it is of version {line[MARK]}, this molsam reads {VERSION}")
    outcome = {key: value for key, value in line.items() if key not in ADDED}
    for key, entry in line["shared"].items():
        value = copy.deepcopy(wholes[entry["line"]][key])
        for path, *new in entry["changes"]:
            if not path:
                value = new[0]
                continue
            node = value
            for part in path[:-1]:
                node = node[part]
            if new:
                node[path[-1]] = new[0]
            else:
                del node[path[-1]]
        outcome[key] = value
    return outcome


def _checked(line: dict[str, Any], outcome: dict[str, Any]) -> Packed:
    reason = result.flaw(outcome)
    if reason:
        raise ValueError(f"it {reason}")
    return Packed(str(line["cell"]), outcome, dict(line["curve"]))


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except OSError as error:
        raise StorageError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error


def _short(value: Any) -> float | None:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, (int, float)) else None


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
