"""The composition root: settings in, a trained model and result.json out. Only this file imports everything."""

from __future__ import annotations

import copy
import csv
import io
import logging
import math
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from molsam.config.compose import plain
from molsam.config.identity import config_hash
from molsam.config.schema import TrainingConfig
from molsam.config.secrets import without_secrets
from molsam.data.dataset import load
from molsam.data.scaler import TargetScaler
from molsam.data.split import Split, make_split
from molsam.files import write_atomic, write_json
from molsam.images import dataset as images
from molsam.images.dataset import Dataset
from molsam.native.memory import keep_freed_memory, peak_memory_mb
from molsam.runs import result
from molsam.runs.folder import RunFolder, stored
from molsam.runs.log import RunLog
from molsam.tracking import console
from molsam.tracking.jsonl import JsonlTracker
from molsam.tracking.plots import PREDICTIONS
from molsam.tracking.tracker import Tracker
from molsam.training import checkpoint
from molsam.training.events import Callback, RunObserver
from molsam.training.interrupt import Interrupts
from molsam.training.loop import DTYPES, Trainer, steps_per_epoch
from molsam.training.metrics import DIRECTION, check_metric
from molsam.training.objective import Objective
from molsam.wiring import build, check

log = logging.getLogger(__name__)


def run(cfg: DictConfig, observer: RunObserver | None = None) -> float:
    """Train what the settings say; returns the validation metric (its mean over folds).

    Args:
        cfg: the settings.
        observer: hears of every epoch and fold, and may end the run by an exception.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    overrides = list(hydra.overrides.task)
    if cfg.resume:
        cfg = stored(Path(cfg.resume))
    return start(cfg, folder, overrides, observer)


def start(cfg: DictConfig, folder: Path, overrides: list[str], observer: RunObserver | None = None) -> float:
    """Train in a folder, or go on there; a finished run of the same settings is only reported."""
    OmegaConf.resolve(cfg)
    training = check.check(cfg)
    observer = observer or RunObserver()
    with RunFolder(folder, cfg, overrides) as claimed, RunLog(folder), Interrupts() as interrupts:
        claimed.record()
        folds = [cfg.split.fold] if cfg.split.fold is not None else list(range(cfg.split.folds))
        if len(folds) == 1:
            outcome = _fold(cfg, training, folder, folds[0], interrupts, observer)
            console.print_result(outcome)
            value = outcome["valid"][outcome["metric"]]
        else:
            value = _all_folds(cfg, training, folder, folds, interrupts, observer)
        claimed.complete()
    return float("nan") if value is None else float(value)


def _all_folds(
    cfg: DictConfig,
    training: TrainingConfig,
    folder: Path,
    folds: list[int],
    interrupts: Interrupts,
    observer: RunObserver,
) -> float:
    outcomes = []
    for place, fold in enumerate(folds):
        interrupts.begin_fold()
        observer.on_fold_start(place, len(folds))
        console.say(f"fold {fold + 1} of {len(folds)}")
        outcomes.append(_fold(cfg, training, folder / f"fold{fold}", fold, interrupts, observer))
        observer.on_fold_end(outcomes[-1]["valid"][outcomes[-1]["metric"]])
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
        "run_dir": _shown(folder),
        "folds": rows,
    }
    for key in ("valid", "test"):
        values = [row[key] for row in rows if row[key] is not None]
        summary[key] = {
            "mean": float(np.mean(values)) if values else None,
            "std": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "n": len(values),
        }
    write_json(folder / "folds.json", summary)
    console.print_folds(summary)
    mean = summary["valid"]["mean"]
    return float("nan") if mean is None else mean


def _fold(
    cfg: DictConfig,
    training: TrainingConfig,
    folder: Path,
    fold: int,
    interrupts: Interrupts,
    observer: RunObserver,
) -> dict[str, Any]:
    cfg = copy.deepcopy(cfg)
    cfg.split.fold = fold
    digest = config_hash(cfg)
    done = None if cfg.overwrite else result.read(folder)
    if done is not None and done["config_hash"] == digest:
        console.say(f"{folder} is finished already; overwrite=true trains it anew.")
        # A kill may have come between the result and this.
        checkpoint.remove(folder / "last" / "checkpoint.safetensors")
        return done
    if cfg.overwrite:
        checkpoint.remove(folder / "last" / "checkpoint.safetensors")
        (folder / result.NAME).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    return _train(cfg, training, folder, digest, interrupts, observer)


def _train(
    cfg: DictConfig,
    training: TrainingConfig,
    folder: Path,
    digest: str,
    interrupts: Interrupts,
    observer: RunObserver,
) -> dict[str, Any]:
    started = datetime.now(UTC)
    clock = time.monotonic()
    keep_freed_memory()
    if training.threads is not None:
        torch.set_num_threads(training.threads)
    if training.precision == "bf16" and training.device == "cpu" and lacks_bf16():
        log.warning("training.precision=bf16: this processor has no bf16 products, so they are slower; use fp32.")
    dataset = load_dataset(cfg)
    Objective(dataset.task, training.loss)
    check_metric(dataset.metric, dataset.task)
    split = make_split(dataset, cfg.split, seed=cfg.seed, fold=cfg.split.fold)
    _describe(cfg, dataset, split)
    write_json(folder / "split.json", split.as_dict())
    trainer = make_trainer(cfg, training, dataset, split, folder, observer)
    try:
        trainer.fit(interrupts)
        _save_predictions(trainer)
        seconds = trainer.earlier + time.monotonic() - clock
        outcome = without_secrets(_outcome(cfg, trainer, digest, started, seconds))
        _save_best(trainer)
        for tracker in trainer.trackers:
            tracker.state()  # what was logged is written before the run counts as finished
        result.write(folder, outcome)
        for tracker in trainer.trackers:
            tracker.finish(outcome)
    except BaseException:
        for callback in trainer.callbacks:
            getattr(callback, "close", lambda: None)()
        for tracker in trainer.trackers:
            tracker.finish(None)
        raise
    checkpoint.remove(trainer.checkpoint_path)
    return outcome


def lacks_bf16() -> bool:
    """Whether torch knows that this processor has no instructions for bf16 products (AVX512-BF16, AMX)."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch allowed
    products = [there for name, there in known.items() if name.endswith("bf16")]
    return bool(products) and not any(products)


def load_dataset(cfg: DictConfig) -> Dataset:
    """The dataset of the settings; molecules are featurized for their model."""
    if check.has_images(cfg):
        return images.load(plain(cfg.dataset))
    featurizer = build.build("model.featurizer", cfg.model.featurizer)
    return load(plain(cfg.dataset), featurizer, cache_dir=cfg.paths.cache)


def make_model(cfg: DictConfig, dataset: Dataset, fold: int) -> torch.nn.Module:
    """A freshly initialised model; the draw depends on seed and fold alone."""
    torch.manual_seed(int(np.random.SeedSequence([cfg.seed, fold]).generate_state(1, np.uint64)[0] >> 1))
    model = build.build("model", cfg.model, dataset.spec)
    if cfg.model.get("pretrained"):
        from molsam.models.grover.checkpoint import load_pretrained

        console.say(str(load_pretrained(model, cfg.model.pretrained)))
    return model.to(cfg.training.device, DTYPES[cfg.training.precision])


def make_trainer(
    cfg: DictConfig,
    training: TrainingConfig,
    dataset: Dataset,
    split: Split,
    folder: Path,
    observer: Callback | None = None,
) -> Trainer:
    """Everything wired together, ready to fit."""
    model = make_model(cfg, dataset, cfg.split.fold)
    steps = steps_per_epoch(len(split.train), training)
    optimizer = build.make_optimizer(cfg, model, steps_per_epoch=steps, training=training)
    diagnostics = None
    if cfg.diagnostics.get("gradients"):
        diagnostics = build.build("diagnostics.gradients", cfg.diagnostics.gradients)
        optimizer.observers.append(diagnostics)
    callbacks: list[Callback] = [console.ConsoleProgress(dataset.metric, training.epochs, steps)]
    callbacks += [] if observer is None else [observer]
    callbacks += [build.build(f"callbacks.{name}", node) for name, node in cfg.callbacks.items()]
    if cfg.diagnostics.get("sharpness"):
        callbacks.append(build.build("diagnostics.sharpness", cfg.diagnostics.sharpness))
    return Trainer(
        model=model,
        optimizer=optimizer,
        dataset=dataset,
        split=split,
        scaler=TargetScaler.fit(dataset.targets[split.train], dataset.task),
        objective=Objective(dataset.task, training.loss),
        settings=training,
        lr_schedule=build.build("lr_schedule", cfg.lr_schedule),
        seed=(cfg.seed, cfg.split.fold),
        folder=folder,
        trackers=_trackers(cfg, folder),
        callbacks=callbacks,
        diagnostics=diagnostics,
        config=without_secrets(plain(cfg)),
        augment=images.augment if cfg.dataset.get("augment") else None,
    )


def _trackers(cfg: DictConfig, folder: Path) -> list[Tracker]:
    trackers: list[Tracker] = [JsonlTracker(folder)]
    if cfg.logger.kind == "wandb":
        from molsam.tracking.wandb import WandbTracker

        trackers.append(WandbTracker(folder, cfg.logger))
    return trackers


def _outcome(cfg: DictConfig, trainer: Trainer, digest: str, started: datetime, seconds: float) -> dict[str, Any]:
    metric, dataset, split = trainer.metric, trainer.dataset, trainer.split
    valid, valid_loss = trainer.evaluate(split.valid)
    test, test_loss = trainer.evaluate(split.test)
    return {
        "name": str(cfg.name or "") or f"{cfg.choices.model}-{cfg.choices.optimizer}-{cfg.choices.dataset}",
        "model": cfg.choices.model,
        "optimizer": cfg.choices.optimizer,
        "dataset": cfg.choices.dataset,
        "seed": cfg.seed,
        "fold": cfg.split.fold,
        "task": dataset.task,
        "metric": metric,
        "direction": DIRECTION[metric],
        "best_epoch": trainer.best["epoch"],
        "epochs": trainer.epoch,
        "valid": {metric: valid.mean, "loss": valid_loss},
        "test": {metric: test.mean, "loss": test_loss},
        "test_per_task": dict(zip(dataset.task_names, test.per_task, strict=True)),
        "tasks_skipped": test.skipped,
        **trainer.clock.summary(),
        "seconds": seconds,
        "steps": trainer.step,
        "steps_skipped": trainer.steps_skipped,
        "gradient_passes": trainer.closure.passes,
        "passes_per_step": trainer.closure.passes / max(trainer.step, 1),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "peak_memory_mb": peak_memory_mb(),
        "gradients": trainer.diagnostics.summary() if trainer.diagnostics is not None else None,
        "split": split.summary(),
        "data": dataset.report.summary(),
        "versions": result.versions(),
        "machine": result.machine(torch.get_num_threads(), cfg.training.device),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "run_dir": _shown(trainer.folder),
        "config_hash": digest,
        "config": trainer.config,
    }


def _shown(folder: Path) -> str:
    """A run folder as seen from where the command runs, so that results can be shared without a machine's paths."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def _save_predictions(trainer: Trainer) -> None:
    """test_predictions.csv: one line per test molecule and task, in the target's own unit (or probabilities)."""
    rows = trainer.split.test
    values, _ = trainer.predict(rows)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(
        ["row", "smiles" if trainer.dataset.noun == "molecule" else "image", "task", "target", "prediction"]
    )
    for place, row in enumerate(rows):
        for t, task in enumerate(trainer.dataset.task_names):
            target = float(trainer.dataset.targets[row, t])
            shown = "" if math.isnan(target) else repr(target)
            writer.writerow([int(row), trainer.dataset.smiles[row], task, shown, repr(float(values[place, t]))])
    write_atomic(trainer.folder / PREDICTIONS, text.getvalue().encode())


def _save_best(trainer: Trainer) -> None:
    """best/: what `molsam predict` needs, weights and target scaling."""
    state = {
        "weights": dict(trainer.model.state_dict()),
        "scaler": trainer.scaler.state(),
        "spec": trainer.dataset.spec._asdict(),
        "task": trainer.dataset.task,
        "task_names": list(trainer.dataset.task_names),
    }
    checkpoint.save(trainer.folder / "best" / "model.safetensors", state)
    checkpoint.previous(trainer.folder / "best" / "model.safetensors").unlink(missing_ok=True)


def _describe(cfg: DictConfig, dataset: Dataset, split: Split) -> None:
    sizes = " / ".join(str(len(part)) for part in (split.train, split.valid, split.test))
    console.say(
        f"{cfg.choices.model} + {cfg.choices.optimizer} on {cfg.choices.dataset}: {len(dataset)} {dataset.noun}s, "
        f"{len(dataset.task_names)} task(s), {dataset.task} ({dataset.metric}); "
        f"{split.kind} split {sizes} (seed {cfg.seed}, fold {cfg.split.fold})"
    )
    if split.leaked:
        console.say(
            f"note: {split.leaked} molecules of valid or test also stand in train (equal molecules); "
            "dataset.duplicates=drop or group avoids it."
        )
