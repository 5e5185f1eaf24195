"""Estimates of a sweep's duration from the speeds of finished runs, and the output of a dry run."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from molsam.files import below
from molsam.sweeping.console import duration
from molsam.sweeping.context import Sweep
from molsam.sweeping.plan import Planned

Run = dict[str, Any]
CHOICES = ("model", "optimizer", "dataset")

EVALUATION = 1.15
"""Ratio of an epoch's time to that of its training steps; the rest is validation and checkpoints."""

UNKNOWN_PASSES = 2.0
"""Passes per step that are assumed for an optimizer that no finished run has used; few take more."""


class Guess(NamedTuple):
    """Estimated seconds of a cell, and whether they are measured on runs of its model, optimizer and dataset."""

    seconds: float
    measured: bool


def dry_run(sweep: Sweep, plan: Collection[Planned], done: Collection[str], same: Mapping[str, Path]) -> str:
    """Return the list of cells, the numbers of those done and reused, and the estimated time of the others."""
    lines = []
    for name, label in ((p.cell.name, p.cell.label) for p in plan):
        state = "done   " if name in done else "same   " if name in same else "missing"
        lines.append(f"{state}  {label}" + (f"  is {same[name].parent.name}/{same[name].name}" if name in same else ""))
    missing = [p for p in plan if p.cell.name not in done and p.cell.name not in same]
    taken = f"{len(same)} are runs of equal settings elsewhere, " if same else ""
    lines.append(f"{sweep.name}: {len(done)} of {len(plan)} cells are done, {taken}{len(missing)} would run.")
    guesses = Speeds(sweep.outputs).guesses(missing)
    lines += describe(guesses, sweep.workers) if missing else []
    return "\n".join(lines)


class Speeds:
    """Speeds of finished runs. Each run is read only once."""

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs
        self._read: dict[Path, Run | None] = {}
        self._kinds: dict[str, str] = {}

    def runs(self) -> list[Run]:
        """Return the speeds of all runs that are readable by now. Reused runs count only once."""
        for path in below(self.outputs, "result.json"):
            if path not in self._read:
                self._read[path] = _speed(path)
        return [run for run in self._read.values() if run is not None]

    def guesses(self, plan: Sequence[Planned]) -> list[Guess | None]:
        """Return an estimate for each of some cells; cells that differ only in fold and seed share one."""
        runs = self.runs() if plan else []
        known: dict[str, Guess | None] = {}
        found = []
        for planned in plan:
            if planned.cell.name not in self._kinds:
                parts = [planned.values.get(name) for name in ("choices", "model", "dataset", "training")]
                self._kinds[planned.cell.name] = repr(parts)
            key = self._kinds[planned.cell.name]
            if key not in known:
                known[key] = guess(planned, runs)
            found.append(known[key])
        return found

    def left_beside(self, plan: Sequence[Planned], ended: Collection[str]) -> float | None:
        """Return the time of the remaining cells divided by that of the cells that have `ended`.

        None if the time of any cell is unknown.
        """
        seconds = {}
        for planned, found in zip(plan, self.guesses(plan), strict=True):
            if found is None:
                return None
            seconds[planned.cell.name] = found.seconds
        spent = sum(seconds[name] for name in seconds.keys() & ended)
        return (sum(seconds.values()) - spent) / spent if spent else None


def describe(guesses: Sequence[Guess | None], workers: int) -> list[str]:
    """Return the total time of some cells, and the basis of the estimate, in one or two sentences."""
    known = [g for g in guesses if g is not None]
    lines = []
    if known:
        time = duration(sum(g.seconds for g in known) / workers)
        rough = sum(not g.measured for g in known)
        source = "finished runs of the same model, optimizer and dataset."
        if rough:
            source = (
                f"finished runs of the same model. {rough} of {len(known)} cells are scaled from another dataset or "
                "optimizer."
            )
        lines.append(f"{'Roughly' if rough else 'About'} {time} with {workers} at a time, judging by {source}")
    if len(known) < len(guesses):
        lines.append(
            f"The time of {len(guesses) - len(known)} cells cannot be estimated: no run of their model has "
            "finished, or the size of their data is not known."
        )
    return lines


def _speed(path: Path) -> Run | None:
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        record = {key: run[key] for key in CHOICES}
        record |= {"speed": float(run["graphs_per_s"]), "size": int(run["split"]["sizes"][0])}
        record |= {"passes": float(run["passes_per_step"]), "limit": (run["config"].get("dataset") or {}).get("limit")}
        record["settings"] = _flat(run["config"].get("model") or {})
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    return record if record["speed"] > 0 and record["passes"] > 0 and "same_run_as" not in run else None


def guess(planned: Planned, runs: Sequence[Run]) -> Guess | None:
    """Return the estimated seconds of a cell; None if no run of its model has finished, or its data's size is unknown.

    Runs of its model, optimizer and dataset are used if there are any; else runs of its model, scaled by the number of
    passes per step.
    """
    values = planned.values
    chosen = {key: (values.get("choices") or {}).get(key) for key in CHOICES}
    chosen["dataset"] = planned.cell.values.get("dataset") or chosen["dataset"]
    limit = (values.get("dataset") or {}).get("limit")
    epochs = int((values.get("training") or {}).get("epochs") or 1)
    size = _size([run for run in runs if run["dataset"] == chosen["dataset"]], limit, str(chosen["dataset"]))
    settings = _model_settings(planned)
    alike = [run for run in runs if run["model"] == chosen["model"] and _agree(run["settings"], settings)]
    if size is None or not alike:
        return None
    work = epochs * size * EVALUATION
    exact = [run for run in alike if run["limit"] == limit and all(run[key] == chosen[key] for key in CHOICES)]
    if exact:
        return Guess(work / median(run["speed"] for run in exact), True)
    # Runs with dataset.limit spend most of their time starting up, so they count only if there are no others.
    alike = [run for run in alike if run["limit"] is None] or alike
    here = [run for run in alike if run["dataset"] == chosen["dataset"]] or alike
    passes = [run["passes"] for run in runs if run["optimizer"] == chosen["optimizer"]] or [UNKNOWN_PASSES]
    return Guess(work * median(passes) / median(run["speed"] * run["passes"] for run in here), False)


def _size(here: Sequence[Run], limit: int | None, dataset: str) -> float | None:
    """Return the number of training molecules: that of a run, or four fifths of the count in the paper's Tables 4 and
    5."""
    measured = [run["size"] for run in here if run["limit"] == limit]
    if measured:
        return float(measured[0])
    if limit is not None:
        return float(limit)
    with resources.files("molsam.report").joinpath("paper.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["table"] in ("4", "5") and row["metric"] == "n_molecules" and row["dataset"].lower() == dataset:
                return 0.8 * float(row["mean"])
    return None


def _model_settings(planned: Planned) -> dict[str, str]:
    """Return the settings of a cell's model, except those that depend on the dataset."""
    written = _flat(OmegaConf.to_container(planned.settings.base.get("model") or OmegaConf.create(), resolve=False))
    own = _flat(planned.values.get("model") or {})
    return {key: str(own[key]) for key, value in written.items() if "${" not in str(value) and key in own}


def _agree(found: Mapping[str, Any], settings: Mapping[str, str]) -> bool:
    return all(str(found.get(key)) == value for key, value in settings.items())


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping) or not node:
        return {prefix.rstrip("."): node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.")
    return flat
