"""The composition root: settings in, a trained model and result.json out. Only this file imports everything."""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from molsam.config import command
from molsam.config.compose import other_folder, plain, structured
from molsam.config.identity import Identity, lacks, mismatch
from molsam.config.identity import identity as make_identity
from molsam.config.identity import stored as stored_identity
from molsam.config.schema import TrainingConfig
from molsam.config.secrets import without_secrets
from molsam.data.api import Dataset
from molsam.data.cache import verify
from molsam.data.dataset import MoleculeDataset, load
from molsam.data.scaler import TargetScaler
from molsam.data.split import Split, make_split, notes
from molsam.data.weights import label_weights
from molsam.errors import ConfigError, MolsamError, counted
from molsam.files import write_json
from molsam.images import dataset as images
from molsam.native.process import keep_freed_memory
from molsam.runs import result
from molsam.runs.folder import RunFolder, remove_if_empty, stored
from molsam.runs.log import RunLog
from molsam.tracking import console, pictures
from molsam.tracking.jsonl import JsonlTracker
from molsam.training import accelerator, checkpoint
from molsam.training.events import Callback, RunObserver
from molsam.training.interrupt import Interrupts
from molsam.training.loop import DTYPES, Trainer, steps_per_epoch
from molsam.training.metrics import check_metric
from molsam.training.objective import Objective
from molsam.training.shared import Exchange
from molsam.training.together import Alone, Together
from molsam.training.tracker import Tracker
from molsam.wiring import build, check, identify, processes, record
from molsam.wiring.initial import Start

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """A run that has claimed its folder: what its folds have in common."""

    cfg: DictConfig
    training: TrainingConfig
    folder: Path
    identity: Identity
    interrupts: Interrupts
    observer: RunObserver
    team: processes.Team


def run(cfg: DictConfig, observer: RunObserver | None = None) -> float:
    """Train what the settings say; returns the validation metric (its mean over folds).

    Args:
        cfg: the settings.
        observer: hears of every epoch and fold, and may end the run by an exception.
    """
    hydra = HydraConfig.get()
    folder = Path(hydra.runtime.output_dir)
    overrides = list(hydra.overrides.task)
    try:
        if hydra.mode == RunMode.RUN and cfg.get("sweeps"):
            raise ConfigError(
                f"sweeps={hydra.runtime.choices.get('sweeps')} is many runs; use: "
                f"{command.training()} {command.shell(['--multirun', *overrides])}"
            )
        if processes.launched() is not None and hydra.mode != RunMode.RUN:
            raise ConfigError("torchrun starts the processes of one run; start a sweep without it.")
        if cfg.resume:
            cfg = resumed(cfg, overrides)
        wanted = cfg.pictures if cfg.get("pictures") is not None else hydra.mode == RunMode.RUN
        value = start(cfg, folder, overrides, observer)
        if wanted:
            draw(folder)
        if hydra.mode == RunMode.RUN:
            console.print_next(record.shown(folder), molecules=check.has_smiles(cfg))
        return value
    except MolsamError:
        remove_if_empty(folder)  # Hydra makes it before anything is checked
        raise


def draw(folder: Path) -> None:
    """Pictures of a finished run, or of each of its folds, where there are none yet."""
    for place in [folder, *sorted(folder.glob("fold*"))]:
        outcome = result.read(place)
        if outcome is not None and not (place / pictures.FOLDER).exists():
            pictures.draw(place, outcome)


def resumed(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    """Return the recorded settings of the run to go on with, under the overrides given along with resume=FOLDER."""
    recorded = stored(Path(cfg.resume))
    for override in overrides:
        key = override.lstrip("+~").split("=")[0].split("@")[0].replace("/", ".")
        if key != "resume" and (value := OmegaConf.select(cfg, key)) is not None:
            OmegaConf.update(recorded, key, value, merge=False, force_add=True)
    return recorded


def start(cfg: DictConfig, folder: Path, overrides: list[str], observer: RunObserver | None = None) -> float:
    """Train in a folder, or go on there; a finished run of the same identity is only reported.

    Raises ConfigError if the folder holds a run of another identity, or the data change while this one goes on.
    """
    cfg = structured(cfg)
    processes.settle(cfg)
    training = check.check_structured(cfg)
    identity = identify.of(cfg, files=identify.Files(fetch=True))
    with (
        RunFolder(folder, cfg, overrides, identity) as claimed,
        RunLog(folder),
        Interrupts() as interrupts,
        processes.lead(training) as team,
    ):
        claimed.record()
        work = Work(cfg, training, folder, identity, interrupts, observer or RunObserver(), team)
        folds = [cfg.split.fold] if cfg.split.fold is not None else list(range(cfg.split.folds))
        if len(folds) == 1:
            outcome = _fold(work, folder, folds[0])
            console.print_result(outcome | {"run_dir": record.shown(folder)})  # a folder may have been renamed
            value = outcome["valid"][outcome["metric"]]
        else:
            value = _all_folds(work, folds)
        claimed.complete()
    return float("nan") if value is None else float(value)


def _all_folds(work: Work, folds: list[int]) -> float:
    outcomes = []
    for place, fold in enumerate(folds):
        work.interrupts.begin_fold()
        work.observer.on_fold_start(place, len(folds))
        console.say(f"fold {fold + 1} of {len(folds)}")
        outcomes.append(_fold(work, work.folder / f"fold{fold}", fold))
        work.observer.on_fold_end(outcomes[-1]["valid"][outcomes[-1]["metric"]])
    return record.folds(work.folder, work.identity, outcomes)


def _fold(work: Work, folder: Path, fold: int) -> dict[str, Any]:
    """Return the outcome of a fold; train it unless its folder holds a result."""
    cfg = copy.deepcopy(work.cfg)
    cfg.split.fold = fold
    identity = make_identity(cfg, work.identity.data, paths=work.identity.paths)
    done = result.read(folder)
    if done is None:
        folder.mkdir(parents=True, exist_ok=True)
        return _train(work, cfg, identity, folder)
    if (found := stored_identity(done)) != identity:
        raise ConfigError(mismatch(folder, found, identity, other=other_folder()))
    if missing := lacks(done["config"], cfg):
        raise ConfigError(
            f"{folder} holds this run, but made without {missing[0]}={OmegaConf.select(cfg, missing[0])}, which it "
            "therefore did not record; start anew there with overwrite=true, or in another folder with "
            f"{other_folder()}."
        )
    console.say(f"{folder} is finished already; overwrite=true trains it again.")
    # A kill may have come between the result and this.
    checkpoint.remove(folder / "last" / "checkpoint.safetensors")
    if cfg.logger.kind == "wandb":
        from molsam.tracking import wandb

        wandb.complete(folder, cfg.logger, done)
    return done


def _train(work: Work, cfg: DictConfig, identity: Identity, folder: Path) -> dict[str, Any]:
    training = work.training
    started = datetime.now(UTC)
    clock = time.monotonic()
    if training.threads is not None:
        torch.set_num_threads(training.threads)
    accelerator.be_deterministic(training.deterministic)
    if training.precision == "bf16" and training.device == "cpu" and lacks_bf16():
        log.warning("training.precision=bf16: this processor has no bf16 products, so they are slower; use fp32.")
    dataset, split = load_data(cfg)
    keep_freed_memory()
    Objective(dataset.task, training.loss)
    check_metric(dataset.metric, dataset.task)
    _describe(cfg, dataset, split)
    write_json(folder / "split.json", split.as_dict(dataset.rows, dataset.ids))
    work.team.begin(cfg, hashes(dataset, split))
    trainer = make_trainer(cfg, training, dataset, split, folder, work.observer, identity, work.team.together)
    identify.refuse_change(cfg, identity, None if check.has_images(cfg) else dataset.report.hash)
    try:
        trainer.fit(work.interrupts)
        verify()
        record.save_predictions(trainer)
        seconds = trainer.earlier + time.monotonic() - clock
        outcome = record.outcome(cfg, trainer, identity, started, seconds)
        record.save_best(trainer)
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
    """Return whether torch knows that this processor has no instructions for bf16 products (AVX512-BF16, AMX)."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # newer than the oldest torch allowed
    products = [there for name, there in known.items() if name.endswith("bf16")]
    return bool(products) and not any(products)


def load_data(cfg: DictConfig) -> tuple[Dataset, Split]:
    """Return the dataset of the settings, and the parts of the fold."""
    dataset = load_dataset(cfg)
    return dataset, make_split(dataset, cfg.split, seed=cfg.seed, fold=cfg.split.fold)


def hashes(dataset: Dataset, split: Split) -> dict[str, Any]:
    """Return hashes of what the processes of a run must have in common."""
    return {"data file": dataset.report.hash, "split": split.hash}


def load_dataset(cfg: DictConfig) -> Dataset:
    """Return the dataset of the settings; molecules are featurized for their model."""
    if check.has_images(cfg):
        return images.load(plain(cfg.dataset))
    featurizer = build.build("model.featurizer", cfg.model.featurizer)
    return load(plain(cfg.dataset), featurizer, cache_dir=cfg.paths.cache, split=plain(cfg.split))


def make_model(cfg: DictConfig, dataset: Dataset, fold: int) -> torch.nn.Module:
    """Return a freshly initialised model; the draw depends on seed and fold alone."""
    torch.manual_seed(_draw(cfg, fold))
    model = build.build("model", cfg.model, dataset.spec)
    if cfg.model.get("pretrained"):
        from molsam.models.grover.checkpoint import load_pretrained

        console.say(str(load_pretrained(model, cfg.model.pretrained)))
    return model.to(cfg.training.device, DTYPES[cfg.training.precision])


def _draw(cfg: DictConfig, *of: int) -> int:
    """Return the seed of torch's random numbers in a fold (of a process)."""
    return int(np.random.SeedSequence([cfg.seed, *of]).generate_state(1, np.uint64)[0] >> 1)


def make_trainer(
    cfg: DictConfig,
    training: TrainingConfig,
    dataset: Dataset,
    split: Split,
    folder: Path,
    observer: Callback | None = None,
    identity: Identity | None = None,
    together: Alone | None = None,
) -> Trainer:
    """Everything wired together, ready to fit; of several processes the first alone has observers."""
    together = together or Alone()
    if isinstance(dataset, MoleculeDataset):
        dataset.label_weights = label_weights(dataset, split.train, training.class_weight)
    model = make_model(cfg, dataset, cfg.split.fold)
    begun = Start(cfg, dataset) if cfg.get("init_from") else None
    if begun is not None:
        begun.load_into(model)
        if together.rank == 0:
            begun.warn_of_leak(dataset, split)
    model = together.prepared(model)
    if together.rank:
        torch.manual_seed(_draw(cfg, cfg.split.fold, together.rank))
    steps = steps_per_epoch(len(split.train), training)
    optimizer = build.make_optimizer(cfg, model, steps_per_epoch=steps, training=training)
    diagnostics = None
    if cfg.diagnostics.get("gradients"):
        diagnostics = build.build("diagnostics.gradients", cfg.diagnostics.gradients)
        optimizer.observers.append(diagnostics)
    if isinstance(together, Together) and together.local:
        optimizer.exchange = Exchange(model, together)
    leads = together.rank == 0
    return Trainer(
        model=model,
        optimizer=optimizer,
        dataset=dataset,
        split=split,
        scaler=begun.scaler if begun is not None and begun.keeps_head else _scaler(dataset, split),
        objective=_objective(dataset, training),
        settings=training,
        lr_schedule=build.build("lr_schedule", cfg.lr_schedule),
        seed=(cfg.seed, cfg.split.fold),
        folder=folder,
        trackers=_trackers(cfg, folder) if leads else (),
        callbacks=_callbacks(cfg, observer, console.ConsoleProgress(dataset.metric, training.epochs, steps))
        if leads
        else (),
        diagnostics=diagnostics,
        config=without_secrets(plain(cfg)),
        augment=images.augment if cfg.dataset.get("augment") else None,
        identity=identity,
        together=together,
    )


def _callbacks(cfg: DictConfig, observer: Callback | None, progress: Callback) -> list[Callback]:
    callbacks = [progress] if observer is None else [progress, observer]
    callbacks += [build.build(f"callbacks.{name}", node) for name, node in cfg.callbacks.items()]
    if cfg.diagnostics.get("sharpness"):
        callbacks.append(build.build("diagnostics.sharpness", cfg.diagnostics.sharpness))
    return callbacks


def _objective(dataset: Dataset, training: TrainingConfig) -> Objective:
    names = dataset.classes if isinstance(dataset, MoleculeDataset) else None
    return Objective(dataset.task, training.loss, dataset.spec.n_tasks // len(dataset.task_names), names)


def _scaler(dataset: Dataset, split: Split) -> TargetScaler:
    bounds = (
        dataset.bounds[split.train] if isinstance(dataset, MoleculeDataset) and dataset.bounds is not None else None
    )
    return TargetScaler.fit(dataset.targets[split.train], dataset.task, bounds)


def _trackers(cfg: DictConfig, folder: Path) -> list[Tracker]:
    trackers: list[Tracker] = [JsonlTracker(folder)]
    if cfg.logger.kind == "wandb":
        from molsam.tracking.wandb import WandbTracker

        trackers.append(WandbTracker(folder, cfg.logger))
    return trackers


def _describe(cfg: DictConfig, dataset: Dataset, split: Split) -> None:
    sizes = " / ".join(str(len(part)) for part in (split.train, split.valid, split.test))
    console.say(
        f"{cfg.choices.model} + {cfg.choices.optimizer} on {cfg.choices.dataset}: "
        f"{counted(len(dataset), dataset.noun)}, "
        f"{counted(len(dataset.task_names), 'task')}, {dataset.task} ({dataset.metric})"
    )
    seed = cfg.seed if cfg.split.get("seed") is None else cfg.split.seed
    console.say(f"{split.kind} split: {sizes} for training, validation and test (seed {seed}, fold {cfg.split.fold})")
    for note in notes(dataset, split):
        console.say(note)
