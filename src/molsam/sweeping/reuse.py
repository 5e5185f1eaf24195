"""Cells of a table that were trained before, as a cell of another table or alone: the run is taken over.

The rows of two tables may be one and the same run (beta 0.99 of Table 3 is gamma 0.5 of Table 9). A run is
known by its identity, which leaves out what cannot change a result, the sweep's name among it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from molsam.config.identity import is_recorded, lacks, stored
from molsam.errors import StorageError
from molsam.files import below
from molsam.runs import result
from molsam.runs.folder import STATUS
from molsam.sweeping.plan import Planned


class Elsewhere:
    """The finished runs of a folder by what they are the runs of; no copies.

    A result of before identities were recorded does not say what it read, so it is taken over nowhere.
    """

    def __init__(self, outputs: Path) -> None:
        self.runs: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
        for path in sorted(below(outputs, result.NAME)):
            try:
                run = result.read(path.parent)
            except StorageError:
                continue
            if run is not None and result.SAME not in run and is_recorded(run):
                self.runs.setdefault(stored(run).digest, []).append((path.parent, run["config"]))

    def find(self, planned: Planned) -> Path | None:
        """The folder of a finished run that a cell of a table, which nobody has begun, is the same as."""
        if "row" not in planned.cell.values or _begun(planned.folder):
            return None
        runs = self.runs.get(planned.identity, [])
        return next((folder for folder, config in runs if not lacks(config, planned.values)), None)


def take_over(planned: Planned, folder: Path) -> None:
    """Write a cell's result.json: the run in `folder` under the cell's own sweep and row."""
    outcome = result.read(folder)
    assert outcome is not None
    outcome["config"]["sweeps"] = dict(planned.values["sweeps"])
    outcome[result.SAME] = os.path.relpath(folder, planned.folder)
    result.write(planned.folder, outcome)


def _begun(folder: Path) -> bool:
    return (folder / STATUS).exists() or (folder / result.NAME).exists()
