"""How long a sweep will take, from the seconds that finished runs have recorded; and what a dry run prints."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from molsam.config import NEUTRAL
from molsam.sweeping.progress import duration

if TYPE_CHECKING:
    from molsam.sweeping.compose import Planned
    from molsam.sweeping.sweeper import ResumableSweeper

LEVELS = (("model", "optimizer"), ("model",), ())
"""Whose speed counts for a cell on its dataset: the same work if it was measured, else ever more different work."""

EVALUATION = 1.15
"""An epoch's time over its training steps' time: the validation set, checkpoints."""


def dry_run(sweeper: ResumableSweeper, plan: list[Planned], done: set[str], same: dict[str, Path]) -> str:
    """The cells, how many are done (or trained by other sweeps), and the time the others will take."""
    lines = []
    for name in (p.cell.name for p in plan):
        state = "done   " if name in done else "same   " if name in same else "missing"
        lines.append(f"{state}  {name}" + (f"  is {same[name].parent.name}/{same[name].name}" if name in same else ""))
    missing = [p for p in plan if p.cell.name not in done and p.cell.name not in same]
    seconds = total_seconds(missing, measured(sweeper.outputs))
    workers = sweeper.workers()
    taken = f"{len(same)} are runs of equal settings elsewhere, " if same else ""
    lines.append(f"{sweeper.sweep_name}: {len(done)} of {len(plan)} cells are done, {taken}{len(missing)} would run.")
    if missing and seconds is None:
        lines.append("The time cannot be estimated: no finished run tells the speed and the size of its data.")
    elif missing and seconds is not None:
        lines.append(f"About {duration(seconds / workers)} with {workers} at a time, by the speed of finished runs.")
    return "\n".join(lines)


def measured(outputs: Path) -> list[dict[str, Any]]:
    """Model, optimizer, dataset, training molecules and graphs/s of every finished run under a folder."""
    found = []
    for path in outputs.rglob("result.json"):
        try:
            run = json.loads(path.read_text(encoding="utf-8"))
            record = {key: run[key] for key in ("model", "optimizer", "dataset")}
            record |= {"speed": float(run["graphs_per_s"]), "size": int(run["split"]["sizes"][0])}
            record["limit"] = run["config"].get("dataset", {}).get("limit")
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            continue
        if record["speed"] > 0:
            found.append(record)
    return found


def total_seconds(plan: Iterable[Planned], runs: list[dict[str, Any]]) -> float | None:
    """Seconds of work of some cells, one after another; None if the speed or the size of one is not known."""
    total = 0.0
    for planned in plan:
        seconds = _seconds(planned, runs)
        if seconds is None:
            return None
        total += seconds
    return total


def _seconds(planned: Planned, runs: list[dict[str, Any]]) -> float | None:
    config = planned.config
    chosen = {key: OmegaConf.select(config, f"choices.{key}", throw_on_resolution_failure=False) for key in LEVELS[0]}
    chosen |= dict(text.split("=", 1) for text in planned.overrides if text.startswith(("model=", "optimizer=")))
    dataset = planned.cell.values.get("dataset") or OmegaConf.select(config, "dataset.name")
    epochs = int(OmegaConf.select(config, "training.epochs") or 1)
    limit = OmegaConf.select(config, "dataset.limit")
    here = [run for run in runs if run["dataset"] == dataset]
    size = next((run["size"] for run in here if run["limit"] == limit), limit or _published_size(str(dataset)))
    if size is None:
        return None
    # A run of a few molecules is mostly start-up: it counts only if there is nothing else.
    for pool in ([run for run in here if run["limit"] is None], [run for run in runs if run["limit"] is None], runs):
        for level in LEVELS:
            speeds = [run["speed"] for run in pool if all(run[key] == chosen[key] for key in level)]
            if speeds:
                return epochs * size / float(median(speeds)) * EVALUATION
    return None


def _published_size(dataset: str) -> float | None:
    """Training molecules of a dataset of the paper, by its Tables 4 and 5."""
    with resources.files("molsam.report").joinpath("paper.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["table"] in ("4", "5") and row["metric"] == "n_molecules" and row["dataset"].lower() == dataset:
                return 0.8 * float(row["mean"])
    return None


def difference(old: dict[str, Any] | None, new: DictConfig) -> str:
    """In brackets, up to three settings in which a finished run differs from a planned one."""
    if old is None:
        return ""
    before, after = _flat(old), _flat(OmegaConf.to_container(new, resolve=False))
    changed = [key for key in sorted({*before, *after}) if key.split(".")[0] not in (*NEUTRAL, "choices")]
    changed = [
        key for key in changed if str(before.get(key)) != str(after.get(key)) and "${" not in str(after.get(key))
    ]
    shown = ", ".join(f"{key} {before.get(key)}, now {after.get(key)}" for key in changed[:3])
    return f" ({shown})" if shown else ""


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict) or not node:
        return {prefix.rstrip("."): node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.")
    return flat
