"""What a run leaves in its folder when it ends: its outcome, its predictions, and the best weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from molsam.config.identity import Identity
from molsam.config.metrics import direction
from molsam.config.secrets import without_secrets
from molsam.data.api import Dataset
from molsam.data.split import Split
from molsam.files import csv_text, write_atomic, write_json
from molsam.native.process import peak_memory_mb
from molsam.runs import result
from molsam.runs.folder import called
from molsam.tracking import console
from molsam.tracking.plots import BOUND, PREDICTIONS
from molsam.training import checkpoint
from molsam.training.accelerator import device_memory_mb
from molsam.training.judge import Judge
from molsam.training.late import late_score
from molsam.training.loop import Trainer
from molsam.training.metrics import Scores
from molsam.wiring.conformal import OF_TRUTH, VALID
from molsam.wiring.trained import TRAINING

SIGNS = {0: "", 1: ">", -1: "<"}
"""What stands in the column `bound` of a label that is a value, a lower bound, and an upper one."""


def outcome(cfg: DictConfig, trainer: Trainer, identity: Identity, started: datetime, seconds: float) -> dict[str, Any]:
    """Return the content of result.json."""
    valid, valid_loss = evaluated(trainer, trainer.split.valid)
    test, test_loss = evaluated(trainer, trainer.split.test)
    found = {
        **head(cfg, trainer.dataset, trainer.split),
        "best_epoch": trainer.best["epoch"],
        "epochs": trainer.epoch,
        **scored(trainer.dataset, trainer.judge, valid, test),
        "test_late": late_score(trainer.tests, trainer.epoch),
        **trainer.clock.summary(),
        "seconds": seconds,
        "steps": trainer.step,
        "steps_skipped": trainer.steps_skipped,
        "gradient_passes": trainer.optimizer.passes,
        "passes_per_step": trainer.optimizer.passes / max(trainer.step, 1),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "device_memory_mb": device_memory_mb(cfg.training.device),
        "gradients": trainer.diagnostics.summary() if trainer.diagnostics is not None else None,
        "machine": result.machine(torch.get_num_threads(), cfg.training.device),
        **tail(trainer.folder, identity, started),
        "config": trainer.config,
    }
    found["valid"]["loss"], found["test"]["loss"] = valid_loss, test_loss
    return dict(without_secrets(found))


def head(cfg: DictConfig, dataset: Dataset, split: Split) -> dict[str, Any]:
    """Return what a result is of."""
    return {
        "name": str(cfg.name or "") or called(cfg),
        "model": cfg.choices.model,
        "optimizer": cfg.choices.optimizer,
        "dataset": cfg.choices.dataset,
        "seed": cfg.seed,
        "fold": cfg.split.fold,
        "task": dataset.task,
        "metric": dataset.metric,
        "direction": direction(dataset.metric),
        "classes": getattr(dataset, "classes", None),
        "split": split.summary(),
        "data": dataset.report.summary(),
    }


def scored(dataset: Dataset, judge: Judge, valid: dict[str, Scores], test: dict[str, Scores]) -> dict[str, Any]:
    """Return all metrics, over the tasks and of each."""
    chosen = test[dataset.metric]
    return {
        "chosen_by": judge.chooses,
        "valid": {name: scores.mean for name, scores in valid.items()},
        "test": {name: scores.mean for name, scores in test.items()},
        "test_per_task": dict(zip(dataset.task_names, chosen.per_task, strict=True)),
        "per_task": {"valid": _by_task(dataset, valid), "test": _by_task(dataset, test)},
        "tasks_skipped": chosen.skipped,
        "tasks_unlearnt": judge.unlearnt,
    }


def tail(folder: Path, identity: Identity, started: datetime) -> dict[str, Any]:
    """When, where and by what a result was made."""
    return {
        "peak_memory_mb": peak_memory_mb(),
        "versions": dict(result.versions()),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "run_dir": shown(folder),
        "identity": identity.record(),
        "config_hash": identity.digest,
    }


def evaluated(trainer: Trainer, index: np.ndarray) -> tuple[dict[str, Scores], float]:
    """Return every metric of the task on some rows, by name, and the mean loss."""
    predictions, loss = trainer.predict(index)
    return trainer.judge.score_all(predictions, index, trainer.settings.nonfinite == "skip"), loss


def folds(folder: Path, identity: Identity, outcomes: Sequence[dict[str, Any]]) -> float:
    """Write and print what the folds of a run came to; the mean validation metric, NaN if none has one."""
    metric = outcomes[0]["metric"]
    rows = [
        {
            "fold": o["fold"],
            "valid": o["valid"][metric],
            "test": o["test"][metric],
            "graphs_per_s": o["graphs_per_s"],
        }
        for o in outcomes
    ]
    summary: dict[str, Any] = {
        "name": outcomes[0]["name"],
        "metric": metric,
        "identity": identity.record(),
        "run_dir": shown(folder),
        "folds": rows,
    }
    for key in ("valid", "test"):
        summary[key] = _spread([row[key] for row in rows])
    for key, source in (("metrics", "test"), ("tasks", "test_per_task")):
        scores = [outcome[source] or {} for outcome in outcomes]
        summary[key] = {name: _spread([one.get(name) for one in scores]) for name in scores[0]}
    write_json(folder / "folds.json", summary)
    console.print_folds(summary)
    mean = summary["valid"]["mean"]
    return float("nan") if mean is None else mean


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and standard deviation of the values that are there, and how many these are."""
    known = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(known)) if known else None,
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else None,
        "n": len(known),
    }


def _by_task(dataset: Dataset, scores: dict[str, Scores]) -> dict[str, dict[str, float | None]]:
    """metric -> task -> value."""
    return {name: dict(zip(dataset.task_names, one.per_task, strict=True)) for name, one in scores.items()}


def shown(folder: Path) -> str:
    """Return a run folder as seen from where the command runs: results are shared without a machine's paths."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def save_predictions(trainer: Trainer) -> None:
    """Write test_predictions.csv and valid_predictions.csv: a line per molecule and task, in the target's own unit."""
    for name, part in ((PREDICTIONS, trainer.split.test), (VALID, trainer.split.valid)):
        write_predictions(trainer.folder / name, trainer.dataset, part, trainer.predict(part)[0])


def write_predictions(path: Path, dataset: Dataset, part: np.ndarray, values: np.ndarray) -> None:
    """Write a line per molecule of the part and task.

    Of several classes the prediction is the number of the likeliest, and both classes are also named.
    """
    rows, ids, bounds = dataset.rows, dataset.ids, getattr(dataset, "bounds", None)
    several, named = values.ndim == 3, getattr(dataset, "classes", None)
    named = named if several and isinstance(named, list) else None  # images have a number of classes
    kind = "smiles" if dataset.noun == "molecule" else "image"
    lines: list[list[Any]] = [["row", *([] if ids is None else ["id"]), kind, "task", "target",
                              *([] if bounds is None else [BOUND]), "prediction", *([OF_TRUTH] if several else []),
                              *(["target_class", "predicted_class"] if named else [])]]  # fmt: skip
    for place, one in enumerate(part):
        for t, task in enumerate(dataset.task_names):
            target = float(dataset.targets[one, t])
            known = "" if math.isnan(target) else repr(target)
            name = [] if ids is None else [ids[one]]
            sign = [] if bounds is None else [SIGNS[int(bounds[one, t])]]
            value = values[place, t]
            found = [repr(float(value.argmax() if several else value))]
            if several:
                found.append(repr(float(value[int(target)])) if known else "")
            if named:
                found += [named[t][int(target)] if known else "", named[t][value.argmax()]]
            lines.append([int(rows[one]), *name, dataset.smiles[one], task, known, *sign, *found])
    write_atomic(path, csv_text(lines).encode())


def save_best(trainer: Trainer) -> None:
    """best/: what `molsam predict` needs, weights and target scaling."""
    state = {
        "weights": dict(trainer.model.state_dict()),
        "scaler": trainer.scaler.state(),
        "spec": trainer.dataset.spec._asdict(),
        "task": trainer.dataset.task,
        "task_names": list(trainer.dataset.task_names),
        "classes": getattr(trainer.dataset, "classes", None),
    }
    if trainer.dataset.noun == "molecule":
        labelled = ~np.isnan(trainer.dataset.targets).all(1)
        known = "".join(f"{trainer.dataset.canonical[row]}\n" for row in trainer.split.train if labelled[row])
        write_atomic(trainer.folder / TRAINING, known.encode())
    checkpoint.save(trainer.folder / "best" / "model.safetensors", state)
    checkpoint.previous(trainer.folder / "best" / "model.safetensors").unlink(missing_ok=True)
