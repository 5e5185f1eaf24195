"""Reuse of finished runs: a cell that was trained before, by another sweep or alone, is not trained again.

Rows of two tables may be the same run (beta 0.99 of Table 3 is gamma 0.5 of Table 9). A run is recognized by its
identity, which leaves out everything that cannot change a result, such as the sweep's name.
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


class FinishedRuns:
    """The finished runs in a folder by their identities, without copies.

    Results from before identities were recorded do not say what data they read, so they are never reused.
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
        """Return the folder of a finished run of the same identity as a table's cell that has not begun, else None."""
        if "row" not in planned.cell.values or _begun(planned.folder):
            return None
        runs = self.runs.get(planned.identity, [])
        return next((folder for folder, config in runs if not lacks(config, planned.values)), None)


def take_over(planned: Planned, folder: Path) -> None:
    """Write the result of the run in `folder` as a cell's result.json, with the cell's own sweep and row."""
    outcome = result.read(folder)
    assert outcome is not None
    outcome["config"]["sweeps"] = dict(planned.values["sweeps"])
    outcome[result.SAME] = os.path.relpath(folder, planned.folder)
    result.write(planned.folder, outcome)


def _begun(folder: Path) -> bool:
    return (folder / STATUS).exists() or (folder / result.NAME).exists()
