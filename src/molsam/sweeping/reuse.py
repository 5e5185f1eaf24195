"""Cells of a table that were trained before, as a cell of another table or alone: the run is taken over.

The rows of two tables may be one and the same run (beta 0.99 of Table 3 is gamma 0.5 of Table 9). A run is
known by its identity, which leaves out what cannot change a result, the sweep's name among it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from molsam.config.identity import is_recorded, lacks, stored
from molsam.errors import StorageError
from molsam.files import below
from molsam.runs import result
from molsam.runs.folder import STATUS
from molsam.sweeping.plan import Planned


def find(plan: Iterable[Planned], outputs: Path) -> dict[str, Path]:
    """Name of a cell -> folder of a finished run of its settings, for the cells of tables that nobody has begun."""
    fresh = [p for p in plan if "row" in p.cell.values and not _begun(p.folder)]
    runs = _finished(outputs, {p.identity for p in fresh})
    same = {
        p.cell.name: [f for f, run in runs.get(p.identity, []) if not lacks(run["config"], p.values)] for p in fresh
    }
    return {name: folders[0] for name, folders in same.items() if folders}


def take_over(planned: Planned, folder: Path) -> None:
    """Write a cell's result.json: the run in `folder` under the cell's own sweep and row."""
    outcome = result.read(folder)
    assert outcome is not None
    outcome["config"]["sweeps"] = dict(planned.values["sweeps"])
    outcome[result.SAME] = os.path.relpath(folder, planned.folder)
    result.write(planned.folder, outcome)


def _begun(folder: Path) -> bool:
    return (folder / STATUS).exists() or (folder / result.NAME).exists()


def _finished(outputs: Path, wanted: set[str]) -> dict[str, list[tuple[Path, dict[str, Any]]]]:
    """The finished runs of some identities by their digest, in the order of their paths; no copies.

    A result of before identities were recorded does not say what it read, so it is taken over nowhere.
    """
    found: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(below(outputs, result.NAME)) if wanted else []:
        try:
            run = result.read(path.parent)
        except StorageError:
            continue
        if run is None or result.SAME in run or not is_recorded(run):
            continue
        digest = stored(run).digest
        if digest in wanted:
            found.setdefault(digest, []).append((path.parent, run))
    return found
