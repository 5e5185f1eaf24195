"""Run folders as the compact data of a dashboard: a thousand runs in a few megabytes."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any
from urllib.parse import quote

import numpy as np
import yaml

from molsam.config.metrics import direction
from molsam.errors import StorageError
from molsam.files import below
from molsam.report.dashboard.groups import datasets, describe, flatten, group_key
from molsam.report.figures.paper import stated_score
from molsam.report.stored import StoredRun, read_lines
from molsam.runs import result
from molsam.runs.folder import STATUS, locked, read_status

POINTS = 60
"""Points that a curve keeps."""
CURVES = ("train/loss", "valid/loss", "test/loss", "rho", "lr", "graphs_per_s")
COSINES, NORMS = ("cos_next", "cos_true"), ("eps_norm", "omega_norm", "eps_change", "omega_change")
Link = Callable[[Path], str]


@dataclass
class Collector:
    """Reads folders again and again, but each run only when it has changed."""

    roots: Sequence[Path]
    link: Link
    """the address of a run folder as the page names it"""
    _known: dict[Path, tuple[Any, StoredRun, dict[str, Any]]] = field(default_factory=dict)

    def collect(self) -> dict[str, Any]:
        """What the page shows: {"made", "base", "groups", "runs"}."""
        names = ("metrics.jsonl", result.NAME)
        folders = {path.parent for root in self.roots for path in below(root, *names)}
        found = [one for folder in sorted(folders) if (one := self._one(folder)) is not None]
        self._known = {run.folder: self._known[run.folder] for run, _ in found}
        # A run that a sweep took over from another folder is shown once.
        found = [(run, facts) for run, facts in found if run.files == run.folder or run.files not in folders]
        keys = [group_key(run) for run, _ in found]
        order = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        members = {key: run for key, (run, _) in zip(reversed(keys), reversed(found), strict=True)}
        scored_on = datasets(members)
        labels = describe(members, scored_on)
        groups = [
            {
                "model": members[key].model,
                "optimizer": members[key].optimizer,
                "dataset": scored_on[key],
                "variant": labels[key],
                "paper": _stated(members[key]),
            }
            for key in order
        ]
        settings = [flatten(run.result["config"]) for run, _ in found]
        base = common(settings)
        runs = [
            {**facts, "group": order[key], "config": difference(own, base)}
            for (_, facts), key, own in zip(found, keys, settings, strict=True)
        ]
        made = datetime.now(UTC).isoformat(timespec="seconds")
        return {"made": made, "base": base, "groups": groups, "runs": runs}

    def _one(self, folder: Path) -> tuple[StoredRun, dict[str, Any]] | None:
        stamp = _stamp(folder)
        if folder in self._known and self._known[folder][0] == stamp:
            return self._known[folder][1:]
        try:
            run = load(folder)
            if run is None:
                return None
            facts = self._facts(run)
        except StorageError:
            return None
        self._known[folder] = (stamp, run, facts)
        return run, facts

    def _facts(self, run: StoredRun) -> dict[str, Any]:
        outcome, epochs = run.result, run.epochs()
        metric = outcome["metric"]
        curves = {key: [row.get(key) for row in epochs] for key in (*CURVES, f"valid/{metric}", f"test/{metric}")}
        curves = {key: values for key, values in curves.items() if any(value is not None for value in values)}
        kept = _kept(len(epochs))
        facts = {
            "name": outcome["name"],
            "seed": outcome["seed"],
            "fold": outcome["fold"],
            "status": outcome["status"],
            "metric": metric,
            "direction": outcome["direction"],
            "test": _digits(run.test, 6),
            "valid": _digits(outcome["valid"].get(metric), 6),
            "epochs": len(epochs),
            "finished": outcome.get("finished"),
            "folder": self.link(run.folder),
            "x": [epochs[i]["epoch"] + 1 for i in kept],
            "curves": {key: [_digits(values[i]) for i in kept] for key, values in curves.items()},
        }
        for key in ("graphs_per_s", "seconds_per_epoch", "passes_per_step", "best_epoch", "parameters", "seconds"):
            facts[key] = _digits(outcome.get(key), 5)
        rows = run.gradients()
        if rows:
            facts["gradients"] = bins(rows)
        return facts


def _stated(run: StoredRun) -> float | None:
    """The paper's score, if the run is on all of its dataset and tells the same metric."""
    chosen = ("dataset.limit", "dataset.max_atoms", "dataset.path")
    if any(run.setting(key) is not None for key in chosen):
        return None
    return stated_score(run.model, run.optimizer, run.dataset, run.result["metric"])


def load(folder: Path) -> StoredRun | None:
    """A finished run, or one that is under way, told by its settings; None if it cannot be told yet."""
    outcome = result.read(folder)
    if outcome is not None:
        return StoredRun(folder, outcome)
    config = _settings(folder)
    epochs = [row for row in read_lines(folder / "metrics.jsonl") if row.get("kind") == "epoch"]
    names = [key for row in epochs[:1] for key in row if key.startswith("valid/") and key != "valid/loss"]
    if config is None or not names or not isinstance(config.get("choices"), dict):
        return None
    metric = names[0].removeprefix("valid/")
    choices = config["choices"]
    fold = folder.name.removeprefix("fold") if folder.name.startswith("fold") else config["split"]["fold"]
    last = epochs[-1]
    return StoredRun(
        folder,
        {
            "name": config.get("name") or f"{choices['model']}-{choices['optimizer']}-{choices['dataset']}",
            "status": _state(folder),
            "identity": read_status(_place(folder)).get("identity"),
            **{key: choices[key] for key in ("model", "optimizer", "dataset")},
            "seed": config.get("seed", 0),
            "fold": int(fold or 0),
            "metric": metric,
            "direction": direction(metric),
            "test": {},
            "valid": {metric: last.get(f"valid/{metric}")},
            "graphs_per_s": last.get("graphs_per_s"),
            "config": config,
        },
    )


def _place(folder: Path) -> Path:
    """The run folder itself: of a fold, its parent."""
    return folder if (folder / STATUS).exists() else folder.parent


def _state(folder: Path) -> str:
    """running, pruned, or stopped: killed, or ended by an error."""
    place = _place(folder)
    if locked(place):
        return "running"
    return "pruned" if read_status(place).get("status") == "pruned" else "stopped"


def _settings(folder: Path) -> dict[str, Any] | None:
    for place in (folder, folder.parent):
        try:
            config = yaml.safe_load((place / ".hydra" / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError):
            continue
        if isinstance(config, dict):
            return config
    return None


def _stamp(folder: Path) -> tuple[Any, ...]:
    done = (folder / result.NAME).exists()
    stamps: list[Any] = [None if done else _state(folder)]
    for name in (result.NAME, "metrics.jsonl", "gradients.jsonl"):
        try:
            status = os.stat(folder / name)
        except OSError:
            stamps.append(None)
        else:
            stamps.append((status.st_mtime_ns, status.st_size))
    return tuple(stamps)


def bins(rows: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Gradient records in at most POINTS equal parts: the middle step, mean cosines, median norms."""
    parts = [part.tolist() for part in np.array_split(np.arange(len(rows)), min(POINTS, len(rows)))]
    found: dict[str, list[float | None]] = {"step": [float(rows[part[len(part) // 2]]["step"]) for part in parts]}
    for keys, middle in ((COSINES, fmean), (NORMS, median)):
        for key in keys:
            values = [[rows[i][key] for i in part if rows[i].get(key) is not None] for part in parts]
            if any(values):
                found[key] = [_digits(middle(value)) if value else None for value in values]
    return found


def common(settings: list[dict[str, str]]) -> dict[str, str]:
    """The most frequent value of every key."""
    counts: dict[str, Counter[str]] = {}
    for own in settings:
        for key, value in own.items():
            counts.setdefault(key, Counter())[value] += 1
    return {key: counter.most_common(1)[0][0] for key, counter in counts.items()}


def difference(own: dict[str, str], base: dict[str, str]) -> dict[str, str | None]:
    """What `own` has otherwise than `base`; None for a key it does not have."""
    return {key: own.get(key) for key in base if own.get(key) != base[key]}


def relative_link(start: Path) -> Link:
    """Addresses of folders relative to a file in `start`."""
    return lambda folder: quote(Path(os.path.relpath(folder.resolve(), start.resolve())).as_posix()) + "/"


def _kept(n: int) -> list[int]:
    """At most POINTS places out of n, the first and the last among them."""
    return sorted({round(float(x)) for x in np.linspace(0, n - 1, min(n, POINTS))}) if n else []


def _digits(value: Any, digits: int = 4) -> float | None:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() else short
