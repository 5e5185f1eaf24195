"""A random forest on Morgan fingerprints, on the rows, split and metrics of a run: what a graph model should beat."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from molsam.config.compose import compose, own_folder, plain
from molsam.config.identity import Identity
from molsam.config.identity import identity as identity_of
from molsam.config.identity import stored as stored_identity
from molsam.data.dataset import MoleculeDataset
from molsam.data.split import Split, make_split, notes
from molsam.data.weights import label_weights
from molsam.errors import ConfigError, counted
from molsam.files import write_json
from molsam.models.forest import MorganForest
from molsam.runs import result
from molsam.runs.folder import RunFolder
from molsam.runs.log import RunLog
from molsam.tracking import console
from molsam.tracking.plots import PREDICTIONS
from molsam.training.judge import Judge
from molsam.training.metrics import check_metric
from molsam.wiring import check, identify, record
from molsam.wiring.conformal import VALID
from molsam.wiring.run import load_dataset

NAME = "forest"
"""What stands in the column of models."""
TAKEN = ("dataset", "split", "seed", "name", "overwrite", "paths", "pictures", "hydra.run.dir",
         "training.threads", "training.class_weight")  # fmt: skip
"""Settings of a training run that a baseline takes too."""
EMPTY = ("optimizer", "base_optimizer", "rho_schedule", "lr_schedule", "diagnostics", "callbacks")


def settings(overrides: Sequence[str], trees: int, config_dir: Path | None = None) -> DictConfig:
    """Return the settings of a baseline from those of a training run.

    `config_dir` is the person's own configuration folder. Raises ConfigError for a setting that a forest does not
    have, and as training does.
    """
    for word in overrides:
        key = word.lstrip("+~").split("=")[0]
        if not any(key == name or key.startswith(f"{name}.") for name in TAKEN):
            raise ConfigError(
                f"{word} is no setting of a baseline; it takes those of {', '.join(TAKEN)}, as training does."
            )
    # A featurizer decides which molecules are read at all: GCN's takes every one.
    taken = (word for word in overrides if not word.startswith("hydra."))
    cfg = compose([*own_folder(config_dir), "model=gcn", "optimizer=adam", *taken])
    OmegaConf.resolve(cfg)
    if not check.has_smiles(cfg):
        raise ConfigError(f"dataset={cfg.choices.dataset} has no SMILES, which a baseline reads; choose another.")
    training = check.check(cfg)
    if trees < 1:
        raise ConfigError(f"--trees={trees} is too small; it must be at least 1.")
    values = plain(cfg)
    values |= {name: {} for name in EMPTY}
    values["model"] = {
        "_target_": f"{MorganForest.__module__}.{MorganForest.__qualname__}",
        "featurizer": values["model"]["featurizer"],
        "trees": trees,
    }
    values["training"] = {"threads": training.threads, "class_weight": training.class_weight}
    chosen = {"model": NAME, "optimizer": "none", "base_optimizer": None, "rho_schedule": None, "lr_schedule": None}
    values["choices"] |= chosen
    return OmegaConf.create(values)


def is_baseline(cfg: Any) -> bool:
    """Return whether settings are a baseline's."""
    return str((cfg.get("model") or {}).get("_target_")).endswith(f".{MorganForest.__name__}")


def start(cfg: DictConfig, folder: Path, overrides: Sequence[str] = ()) -> None:
    """Fit the forests of every fold in a folder; a finished one of the same identity is only reported.

    Raises as `wiring.run.start` does.
    """
    identity = identify.of(cfg, files=identify.Files(fetch=True))
    with RunFolder(folder, cfg, list(overrides), identity) as claimed, RunLog(folder):
        claimed.record()
        folds = [cfg.split.fold] if cfg.split.fold is not None else list(range(cfg.split.folds))
        outcomes = []
        for fold in folds:
            own = copy.deepcopy(cfg)
            own.split.fold = fold
            place = folder if len(folds) == 1 else folder / f"fold{fold}"
            outcomes.append(_fold(own, place, identity_of(own, identity.data, paths=identity.paths)))
        if len(folds) > 1:
            record.folds(folder, identity, outcomes)
        else:
            console.print_result(outcomes[0])
        claimed.complete()


def _fold(cfg: DictConfig, folder: Path, identity: Identity) -> dict[str, Any]:
    done = result.read(folder)
    if done is not None and stored_identity(done) == identity:
        console.say(f"{folder} is finished already; overwrite=true fits it anew.")
        return done
    started, clock = datetime.now(UTC), time.monotonic()
    dataset = load_dataset(cfg)
    assert isinstance(dataset, MoleculeDataset)
    check_metric(dataset.metric, dataset.task)
    split = make_split(dataset, cfg.split, seed=cfg.seed, fold=cfg.split.fold)
    sizes = " / ".join(str(len(part)) for part in (split.train, split.valid, split.test))
    console.say(f"random forest on {counted(len(dataset), 'molecule')}, {split.kind} split {sizes}")
    for note in notes(dataset, split):
        console.say(note)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "split.json", split.as_dict(dataset.rows, dataset.ids))
    outcome = _fit(cfg, dataset, split, folder)
    outcome["seconds"] = time.monotonic() - clock
    outcome |= {**record.tail(folder, identity, started), "config": plain(cfg)}
    result.write(folder, outcome)
    return outcome


def _fit(cfg: DictConfig, dataset: MoleculeDataset, split: Split, folder: Path) -> dict[str, Any]:
    """Fit, predict, score; the result without when, where and by what."""
    judge, several = Judge(dataset, split), dataset.spec.n_tasks // len(dataset.task_names)
    judge.warn_of_tasks()
    forest = MorganForest(trees=cfg.model.trees, threads=cfg.training.threads)
    features = forest.features(dataset.canonical)
    weights = label_weights(dataset, split.train, cfg.training.class_weight)
    begun = time.perf_counter()
    # Bounds are no values: the forest learns from what can be judged.
    own = None if weights is None else weights[split.train]
    classes = {"regression": 0, "classification": 2}.get(dataset.task, several)
    forest.fit(features[split.train], judge.targets[split.train], own, classes=classes, seed=cfg.seed)
    fitted = time.perf_counter() - begun
    scores = []
    for name, part in ((VALID, split.valid), (PREDICTIONS, split.test)):
        values = forest.predict(features[part])
        record.write_predictions(folder / name, dataset, part, values)
        scores.append(judge.score_all(values, part))
    scored = record.scored(dataset, judge, *scores)
    return {
        **record.head(cfg, dataset, split),
        "best_epoch": 0,
        "epochs": 1,
        **scored,
        "test_late": scored["test"][dataset.metric],  # no epoch was chosen
        "graphs_per_s": len(split.train) / max(fitted, 1e-9),
        "seconds_per_epoch": fitted,
        "steps": 0,
        "gradient_passes": 0,
        "passes_per_step": 0.0,
        "parameters": forest.nodes,
        "machine": result.machine(cfg.training.threads or os.cpu_count() or 1, "cpu"),
    }
