"""Cells of a table that were trained before, as a cell of another table or alone: the run is taken over.

The rows of two tables may be one and the same run (beta 0.99 of Table 3 is gamma 0.5 of Table 9). A run is
known by its config hash, which leaves out what cannot change a result, the sweep's name among it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from molsam.errors import StorageError
from molsam.files import below
from molsam.runs import result
from molsam.runs.folder import STATUS

if TYPE_CHECKING:
    from molsam.sweeping.compose import Planned


def find(plan: Iterable[Planned], outputs: Path) -> dict[str, Path]:
    """Name of a cell -> folder of a finished run of its settings, for the cells of tables that nobody has begun."""
    fresh = [p for p in plan if "row" in p.cell.values and not _begun(p.folder)]
    runs = _finished(outputs, {p.hash for p in fresh})
    same = {p.cell.name: [f for f, run in runs.get(p.hash, []) if _tells_as_much(run, p)] for p in fresh}
    return {name: folders[0] for name, folders in same.items() if folders}


def take_over(planned: Planned, folder: Path) -> None:
    """Write a cell's result.json: the run in `folder` under the cell's own sweep and row."""
    outcome = result.read(folder)
    assert outcome is not None
    outcome["config"]["sweeps"] = OmegaConf.to_container(planned.config.sweeps, resolve=True)
    outcome[result.SAME] = os.path.relpath(folder, planned.folder)
    result.write(planned.folder, outcome)


def _begun(folder: Path) -> bool:
    return (folder / STATUS).exists() or (folder / result.NAME).exists()


def _finished(outputs: Path, hashes: set[str]) -> dict[str, list[tuple[Path, dict[str, Any]]]]:
    """The finished runs of some settings by their hash, in the order of their paths; no copies."""
    found: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(below(outputs, result.NAME)) if hashes else []:
        try:
            run = result.read(path.parent)
        except StorageError:
            continue
        if run is not None and run["config_hash"] in hashes and result.SAME not in run:
            found.setdefault(run["config_hash"], []).append((path.parent, run))
    return found


def _tells_as_much(run: dict[str, Any], planned: Planned) -> bool:
    """Whether a run recorded the test metric of every epoch, should the cell want it: the hash leaves that out."""
    wanted = OmegaConf.select(planned.config, "training.test_each_epoch")
    return not wanted or bool(run["config"].get("training", {}).get("test_each_epoch"))
