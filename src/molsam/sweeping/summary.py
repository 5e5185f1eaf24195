"""A sweep as one table, logged to W&B as the parent of its runs (logger=wandb)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from molsam.errors import StorageError
from molsam.runs import result
from molsam.runs.folder import locked
from molsam.sweeping.plan import Planned

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

COLUMNS = ("metric", "valid", "test", "best_epoch", "graphs_per_s", "passes_per_step", "seconds")


def of_cells(plan: Iterable[Planned]) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and lines of a table: each cell's settings and results, None where a result is missing."""
    lines = [{"cell": p.cell.name, **p.cell.values, **_reached(p.folder)} for p in plan]
    heads = list(dict.fromkeys(key for line in lines for key in line))
    return heads, [[line.get(head) for head in heads] for line in lines]


def of_trials(trials: Iterable[FrozenTrial]) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and lines of a table: each trial's number, state, (first) value and parameters."""
    lines: list[dict[str, Any]] = [
        {"trial": t.number, "state": t.state.name, "value": t.values[0] if t.values else None, **t.params}
        for t in trials
    ]
    heads = list(dict.fromkeys(key for line in lines for key in line))
    return heads, [[line.get(head) for head in heads] for line in lines]


def publish(logger: DictConfig | None, folder: Path, name: str, heads: list[str], lines: list[list[Any]]) -> None:
    """Log the table to W&B, if that is the logger."""
    if logger is None or logger.get("kind") != "wandb":
        return
    from molsam.tracking.wandb import log_table

    log_table(folder, logger, name=name, columns=heads, rows=lines)


def complete(logger: DictConfig | None, folders: Iterable[Path]) -> None:
    """Log to W&B the results of finished runs that were killed before they could; not of runs still in progress."""
    if logger is None or logger.get("kind") != "wandb":
        return
    from molsam.tracking import wandb

    for folder in folders:
        if not locked(folder) and (outcome := result.read(folder)) is not None:
            wandb.complete(folder, logger, outcome)


def _reached(folder: Path) -> dict[str, Any]:
    try:
        found = result.read(folder)
    except StorageError:
        found = None
    if found is None:
        return dict.fromkeys(COLUMNS)
    scores = {part: (found[part] or {}).get(found["metric"]) for part in ("valid", "test")}
    return {key: scores.get(key, found.get(key)) for key in COLUMNS}
