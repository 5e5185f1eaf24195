"""What a run leaves in its folder when it ends: its outcome, its predictions, and the best weights."""

from __future__ import annotations

import math
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
from molsam.files import csv_text, write_atomic
from molsam.native.memory import peak_memory_mb
from molsam.runs import result
from molsam.tracking.plots import PREDICTIONS
from molsam.training import checkpoint
from molsam.training.accelerator import device_memory_mb
from molsam.training.late import late_score
from molsam.training.loop import Trainer
from molsam.training.metrics import Scores
from molsam.wiring.conformal import VALID
from molsam.wiring.trained import TRAINING


def outcome(cfg: DictConfig, trainer: Trainer, identity: Identity, started: datetime, seconds: float) -> dict[str, Any]:
    """The content of result.json."""
    metric, dataset, split = trainer.metric, trainer.dataset, trainer.split
    valid, valid_loss = evaluated(trainer, split.valid)
    test, test_loss = evaluated(trainer, split.test)
    found = {
        "name": str(cfg.name or "") or f"{cfg.choices.model}-{cfg.choices.optimizer}-{cfg.choices.dataset}",
        "model": cfg.choices.model,
        "optimizer": cfg.choices.optimizer,
        "dataset": cfg.choices.dataset,
        "seed": cfg.seed,
        "fold": cfg.split.fold,
        "task": dataset.task,
        "metric": metric,
        "direction": direction(metric),
        "best_epoch": trainer.best["epoch"],
        "epochs": trainer.epoch,
        "chosen_by": trainer.judge.chooses,
        "valid": {**{name: scores.mean for name, scores in valid.items()}, "loss": valid_loss},
        "test": {**{name: scores.mean for name, scores in test.items()}, "loss": test_loss},
        "test_late": late_score(trainer.tests, trainer.epoch),
        "test_per_task": dict(zip(dataset.task_names, test[metric].per_task, strict=True)),
        "per_task": {"valid": _by_task(dataset, valid), "test": _by_task(dataset, test)},
        "tasks_skipped": test[metric].skipped,
        "tasks_unlearnt": trainer.judge.unlearnt,
        "classes": getattr(dataset, "classes", None),
        **trainer.clock.summary(),
        "seconds": seconds,
        "steps": trainer.step,
        "steps_skipped": trainer.steps_skipped,
        "gradient_passes": trainer.optimizer.passes,
        "passes_per_step": trainer.optimizer.passes / max(trainer.step, 1),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "peak_memory_mb": peak_memory_mb(),
        "device_memory_mb": device_memory_mb(cfg.training.device),
        "gradients": trainer.diagnostics.summary() if trainer.diagnostics is not None else None,
        "split": split.summary(),
        "data": dataset.report.summary(),
        "versions": result.versions(),
        "machine": result.machine(torch.get_num_threads(), cfg.training.device),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "run_dir": shown(trainer.folder),
        "identity": identity.record(),
        "config_hash": identity.digest,
        "config": trainer.config,
    }
    return dict(without_secrets(found))


def evaluated(trainer: Trainer, index: np.ndarray) -> tuple[dict[str, Scores], float]:
    """Every metric of the task on some rows, by name, and the mean loss."""
    predictions, loss = trainer.predict(index)
    return trainer.judge.score_all(predictions, index, trainer.settings.nonfinite == "skip"), loss


def _by_task(dataset: Dataset, scores: dict[str, Scores]) -> dict[str, dict[str, float | None]]:
    """metric -> task -> value."""
    return {name: dict(zip(dataset.task_names, one.per_task, strict=True)) for name, one in scores.items()}


def shown(folder: Path) -> str:
    """A run folder as seen from where the command runs, so that results can be shared without a machine's paths."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def save_predictions(trainer: Trainer) -> None:
    """Write test_predictions.csv and valid_predictions.csv: a line per molecule and task, in the target's own unit."""
    for name, part in ((PREDICTIONS, trainer.split.test), (VALID, trainer.split.valid)):
        write_atomic(trainer.folder / name, _predictions(trainer, part).encode())


def _predictions(trainer: Trainer, part: np.ndarray) -> str:
    """Of several classes the prediction is the number of the likeliest."""
    dataset = trainer.dataset
    rows, ids = dataset.rows, dataset.ids
    values, _ = trainer.predict(part)
    if values.ndim == 3:
        values = values.argmax(2)
    kind = "smiles" if dataset.noun == "molecule" else "image"
    lines: list[list[Any]] = [["row", *([] if ids is None else ["id"]), kind, "task", "target", "prediction"]]
    for place, one in enumerate(part):
        for t, task in enumerate(dataset.task_names):
            target = float(dataset.targets[one, t])
            known = "" if math.isnan(target) else repr(target)
            name = [] if ids is None else [ids[one]]
            lines.append([int(rows[one]), *name, dataset.smiles[one], task, known, repr(float(values[place, t]))])
    return csv_text(lines)


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
        known = "".join(f"{trainer.dataset.canonical[row]}\n" for row in trainer.split.train)
        write_atomic(trainer.folder / TRAINING, known.encode())
    checkpoint.save(trainer.folder / "best" / "model.safetensors", state)
    checkpoint.previous(trainer.folder / "best" / "model.safetensors").unlink(missing_ok=True)
