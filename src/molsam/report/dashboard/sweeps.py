"""Data of sweeps for the page: progress, failures, and the results of a search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

from molsam.report.dashboard.facts import digits
from molsam.runs import result

FILES = ("study.db", "study.journal")
"""Files in a sweep's folder that may store its study."""
FAILURES = 20
"""Largest number of failures that are shown."""


class Study(Protocol):
    """What the page needs of a study."""

    @property
    def name(self) -> str:
        """Name of the study."""

    @property
    def direction(self) -> str:
        """minimize or maximize."""

    @property
    def total(self) -> int | None:
        """Number of cells or trials that the sweep will have; None if it was not recorded."""

    @property
    def space(self) -> Mapping[str, Mapping[str, Any]]:
        """Each searched setting -> {"log": bool} or {"choices": [...]}; empty for a grid."""

    @property
    def trials(self) -> Sequence[Mapping[str, Any]]:
        """number, state, value, params, cell, error, seconds and steps of each trial."""

    def importances(self) -> Mapping[str, float]:
        """Return the importance of each setting."""


Reader = Callable[[Path], Study]


def progress(study: Study, folder: Path) -> dict[str, Any]:
    """Return counts, time left and failures; for a search also its trials."""
    cells = _trials(study) if study.space else _cells(study, folder)
    counts = Counter(str(cell["state"]) for cell in cells)
    over = counts["done"] + counts["pruned"] + (0 if study.space else counts["failed"])
    total = max(study.total or 0, over + counts["running"] + counts["waiting"])
    took = [cell["seconds"] for cell in cells if cell["state"] in ("done", "pruned") and cell["seconds"]]
    left = fmean(took) * (total - over) / max(1, counts["running"]) if took and total > over else None
    failures = [cell for cell in cells if cell["state"] == "failed"]
    found: dict[str, Any] = {
        "name": study.name, "search": bool(study.space), "total": total, "known": study.total is not None,
        "counts": {name: counts[name] for name in ("done", "pruned", "failed", "running", "interrupted")},
        "left": digits(left, 3), "workers": counts["running"],
        "failures": [{"name": cell["name"], "error": cell["error"]} for cell in failures[:FAILURES]],
    }  # fmt: skip
    return found | (_search(study, cells) if study.space else {})


def _cells(study: Study, folder: Path) -> list[dict[str, Any]]:
    """Return the cells of a grid: each one's last trial in the study, or its finished result."""
    found: dict[str, dict[str, Any]] = {}
    for trial in study.trials:
        if trial["cell"] and trial["state"] != "superseded":
            found[trial["cell"]] = {**trial, "name": trial["cell"]}
    for path in folder.glob(f"*/{result.NAME}"):
        cell = found.setdefault(path.parent.name, {"name": path.parent.name, "seconds": None, "error": None})
        cell["state"] = "done"
    return list(found.values())


def _trials(study: Study) -> list[dict[str, Any]]:
    # A trial that another one continued is left out.
    return [{**trial, "name": f"trial {trial['number']}"} for trial in study.trials if trial["state"] != "superseded"]


def _search(study: Study, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    sign = 1 if study.direction == "minimize" else -1
    done = [cell for cell in cells if cell["state"] == "done" and cell["value"] is not None]
    best = min(done, key=lambda cell: sign * cell["value"])["number"] if done else None
    kept = ("number", "state", "steps")
    return {
        "direction": study.direction,
        "space": {name: dict(kind) for name, kind in study.space.items()},
        "importances": {name: digits(share, 3) for name, share in study.importances().items()},
        "best": best,
        "trials": [
            {**{key: cell[key] for key in kept}, "value": digits(cell["value"], 5),
             "params": {name: value if isinstance(value, str | bool) else digits(value, 5)
                        for name, value in cell["params"].items()}}
            for cell in cells
        ],
    }  # fmt: skip


def trial_folder(folder: Path, number: int) -> Path:
    """Return the run folder of a search's trial."""
    return folder / f"trial-{number:05d}"
