"""Data of one run for the page: numbers, thinned curves and gradients, predictions, and the overrides given for it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import yaml

from molsam.config.identity import NEUTRAL
from molsam.config.metrics import direction
from molsam.report.dashboard import predictions
from molsam.report.stored import Row, StoredRun, read_lines
from molsam.runs import result
from molsam.runs.folder import STATUS, locked, read_status

POINTS = 60
"""Largest number of points of a curve."""
CURVES = ("train/loss", "valid/loss", "test/loss", "rho", "lr")
COSINES, NORMS = ("cos_next", "cos_true"), ("eps_norm", "omega_norm", "eps_change", "omega_change")
NUMBERS = (
    "graphs_per_s",
    "seconds_per_epoch",
    "passes_per_step",
    "best_epoch",
    "parameters",
    "seconds",
    "peak_memory_mb",
)
LOGS = ("metrics.jsonl", "gradients.jsonl", predictions.NAME)
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def facts(run: StoredRun, epochs: list[Row]) -> dict[str, Any]:
    """Return a run's data for the page; `epochs` are its epoch lines."""
    outcome, metric = run.result, run.result["metric"]
    kept = thinned(len(epochs))
    curves = {key: [digits(epochs[i].get(key)) for i in kept] for key in (*CURVES, f"valid/{metric}", f"test/{metric}")}
    found = {
        "name": outcome["name"], "seed": outcome["seed"], "fold": outcome["fold"], "status": outcome["status"],
        "task": outcome.get("task"), "test": digits(run.test, 6), "valid": digits(outcome["valid"].get(metric), 6),
        "tests": {name: digits(value) for name, value in outcome["test"].items()},
        "tasks": {name: digits(value) for name, value in (outcome.get("test_per_task") or {}).items()},
        "epochs": len(epochs) or outcome.get("epochs"), "finished": outcome.get("finished"),
        "sweep": run.setting("sweeps.name"), "x": [epochs[i]["epoch"] + 1 for i in kept],
        "curves": {key: values for key, values in curves.items() if any(value is not None for value in values)},
        "given": given(run.files),
    }  # fmt: skip
    found |= {key: digits(outcome.get(key), 5) for key in NUMBERS}
    if rows := run.gradients():
        found["gradients"] = bins(rows)
    if run.curve is None and (drawn := predictions.read(run.files, str(outcome.get("task")))):
        found["predictions"] = drawn
    return found


def load(folder: Path) -> StoredRun | None:
    """Return a finished run, or a running one described by its settings; None if it has no scores yet."""
    outcome = result.read(folder)
    if outcome is not None:
        return StoredRun(folder, outcome)
    config = _settings(folder)
    epochs = [row for row in read_lines(folder / "metrics.jsonl") if row.get("kind") == "epoch"]
    names = [key for row in epochs[:1] for key in row if key.startswith("valid/") and key != "valid/loss"]
    if config is None or not names or not isinstance(config.get("choices"), dict):
        return None
    wanted = f"valid/{(config.get('dataset') or {}).get('metric')}"
    metric = (wanted if wanted in names else names[0]).removeprefix("valid/")
    choices = config["choices"]
    fold = folder.name.removeprefix("fold") if folder.name.startswith("fold") else config["split"]["fold"]
    return StoredRun(
        folder,
        {
            "name": config.get("name") or f"{choices['model']}-{choices['optimizer']}-{choices['dataset']}",
            "status": state(folder),
            "identity": read_status(place(folder)).get("identity"),
            **{key: choices[key] for key in ("model", "optimizer", "dataset")},
            "seed": config.get("seed", 0),
            "fold": int(fold or 0),
            "metric": metric,
            "direction": direction(metric),
            "test": {},
            "valid": {metric: epochs[-1].get(f"valid/{metric}")},
            "graphs_per_s": epochs[-1].get("graphs_per_s"),
            "seconds_per_epoch": median(seconds)
            if (seconds := [r["seconds"] for r in epochs if "seconds" in r])
            else None,
            "config": config,
        },
    )


def place(folder: Path) -> Path:
    """Return the run folder; for a fold's folder, its parent."""
    return folder if (folder / STATUS).exists() else folder.parent


def state(folder: Path) -> str:
    """Return running, pruned, or stopped (killed, or ended by an error)."""
    whole = place(folder)
    if locked(whole):
        return "running"
    return "pruned" if read_status(whole).get("status") == "pruned" else "stopped"


def stamp(folder: Path) -> tuple[Any, ...]:
    """Return a value that changes when the run folder does."""
    stamps: list[Any] = [None if (folder / result.NAME).exists() else state(folder)]
    for name in (result.NAME, *LOGS):
        try:
            status = os.stat(folder / name)
        except OSError:
            stamps.append(None)
        else:
            stamps.append((status.st_mtime_ns, status.st_size))
    return tuple(stamps)


def given(folder: Path) -> list[list[str]]:
    """Return [setting, value] for the overrides of the command line or sweep, except those on where files go."""
    told = [found for where in (folder, folder.parent) if (found := _yaml(where, "overrides")) is not None]
    words = told[0] if told else []
    pairs = [str(word).lstrip("+~").partition("=") for word in (words if isinstance(words, list) else [])]
    return [
        [key, value] for key, _, value in pairs if key.split(".")[0] not in (*NEUTRAL, "seed") and key != "split.fold"
    ]


def _settings(folder: Path) -> dict[str, Any] | None:
    for where in (folder, folder.parent):
        if isinstance(config := _yaml(where, "config"), dict):
            return config
    return None


def _yaml(folder: Path, name: str) -> Any:
    try:
        return yaml.load((folder / ".hydra" / f"{name}.yaml").read_text(encoding="utf-8"), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def bins(rows: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """Return gradient records in at most POINTS equal parts: the middle step, mean cosines, and median norms."""
    parts = [part.tolist() for part in np.array_split(np.arange(len(rows)), min(POINTS, len(rows)))]
    found: dict[str, list[float | None]] = {"step": [float(rows[part[len(part) // 2]]["step"]) for part in parts]}
    for keys, middle in ((COSINES, fmean), (NORMS, median)):
        for key in keys:
            values = [[rows[i][key] for i in part if rows[i].get(key) is not None] for part in parts]
            if any(values):
                found[key] = [digits(middle(value)) if value else None for value in values]
    return found


def thinned(n: int) -> list[int]:
    """Return at most POINTS of n indices, including the first and the last."""
    return sorted({round(float(x)) for x in np.linspace(0, n - 1, min(n, POINTS))}) if n else []


def digits(value: Any, count: int = 4) -> float | None:
    """Return a number rounded to `count` digits; None if it is not a finite number."""
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    short = float(f"{value:.{count}g}")
    return int(short) if short.is_integer() else short
