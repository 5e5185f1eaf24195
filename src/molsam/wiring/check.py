"""Checks of the settings before any data are read: names, types, ranges, and whether the parts fit."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch.overrides import TorchFunctionMode

from molsam.chem.descriptors import NAMES
from molsam.config.compose import conf_dir, structured
from molsam.config.metrics import TASKS
from molsam.config.schema import TRAINING_LIMITS, TrainingConfig
from molsam.data.split import KINDS
from molsam.errors import ConfigError
from molsam.images.resnet import ResNet18
from molsam.models.api import DataSpec, MoleculeModel
from molsam.optim.esam import ESAM
from molsam.training import graphs
from molsam.training.events import Callback
from molsam.training.metrics import check_metric
from molsam.training.objective import Objective
from molsam.wiring import inputs, processes
from molsam.wiring.build import build, check_device, make_optimizer

MOST_THREADS, MOST_FOLDS = 1024, 10_000


def training_config(cfg: DictConfig) -> TrainingConfig:
    """Return the training section of settings under the schema, its values checked."""
    values = OmegaConf.to_object(cfg.training)
    assert isinstance(values, TrainingConfig)
    for key, limit in TRAINING_LIMITS.items():
        value = getattr(values, key)
        if value is None:
            continue
        if isinstance(limit, tuple):
            if value not in limit:
                near = get_close_matches(str(value), limit, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ConfigError(f"training.{key}={value} is not a choice.{hint} Use one of: {', '.join(limit)}.")
        elif not value >= limit:
            raise ConfigError(f"training.{key}={value} is too small; it must be at least {limit:g}.")
    for key in ("average_decay", "average_start"):
        if not (value := getattr(values, key)) < 1:
            raise ConfigError(f"training.{key}={value} is too large; it must be below 1.")
    if values.threads is not None and values.threads > MOST_THREADS:
        raise ConfigError(f"training.threads={values.threads} is too large; it must be at most {MOST_THREADS}.")
    return values


def check(cfg: DictConfig) -> TrainingConfig:
    """Refuse what cannot run. Raises ConfigError, or as `inputs.check` does, naming field, value and remedy."""
    return check_structured(structured(cfg))


def check_structured(cfg: DictConfig) -> TrainingConfig:
    """Do what `check` does for settings that `structured` has made."""
    training = training_config(cfg)
    check_device("training.device", training.device)
    _check_compile(training)
    _check_graphs(cfg, training)
    processes.check(training)
    if cfg.seed < 0:
        raise ConfigError(f"seed={cfg.seed} is not a whole number from 0 up; give one such as seed=0.")
    _check_data(cfg, training)
    inputs.check(cfg)
    _check_model(cfg, training)
    build("lr_schedule", cfg.lr_schedule)
    _check_observers(cfg)
    _check_base(cfg)
    dummy = [torch.nn.Parameter(torch.zeros(1))]
    optimizer = make_optimizer(cfg, dummy, steps_per_epoch=1, training=training)
    if training.graphs and isinstance(optimizer, ESAM) and optimizer.gamma < 1:
        raise ConfigError(graphs.SELECTS)
    return training


def has_images(cfg: DictConfig) -> bool:
    """Return whether the dataset is one of images."""
    return cfg.dataset.get("reader") == "cifar"


def has_smiles(cfg: DictConfig) -> bool:
    """Return whether the dataset is one of molecules that are written as SMILES, which new ones can be too."""
    return cfg.dataset.get("reader") is None


def _check_model(cfg: DictConfig, training: TrainingConfig) -> None:
    if not isinstance(cfg.model, DictConfig):
        raise ConfigError(
            f"model={cfg.model} is not a group of settings; choose one of the options of its config group."
        )
    images = "featurizer" not in cfg.model
    if images != has_images(cfg):
        kind, remedy = ("images", "dataset=cifar10 or cifar100") if images else ("molecules", "model=resnet18")
        raise ConfigError(
            f"model={cfg.choices.model} reads {kind}, dataset={cfg.choices.dataset} has none; use {remedy}."
        )
    if images:
        spec = DataSpec(node_dim=3, edge_dim=0, n_tasks=cfg.dataset.classes, max_atoms=0)
    else:
        featurizer = build("model.featurizer", cfg.model.featurizer)
        spec = DataSpec(featurizer.node_dim, featurizer.edge_dim, n_tasks=1, max_atoms=50)
    with torch.device("meta"), _Undrawn():
        model = build("model", cfg.model, spec)
    if not isinstance(model, ResNet18 if images else MoleculeModel):
        raise ConfigError(f"model._target_={cfg.model._target_} is not a molsam model; give a MoleculeModel.")
    if training.graphs:
        graphs.check_model(model)


def _check_base(cfg: DictConfig) -> None:
    """Refuse optimizer=sgd with another base optimizer than SGD: the run's name would be untrue."""
    name, base = cfg.choices.optimizer, cfg.choices.base_optimizer
    if name == base or not (conf_dir() / "base_optimizer" / f"{name}.yaml").is_file():
        return
    if cfg.optimizer.get("base") == cfg.base_optimizer:
        raise ConfigError(
            f"optimizer={name} takes its steps with base_optimizer={name}, and base_optimizer={base} is given; use "
            f"optimizer={base}, or leave base_optimizer={base} out."
        )


class _Undrawn(TorchFunctionMode):
    """Draws no weights: there is no memory for them, and torch would load its compiler or sympy to draw."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith(("uniform_", "normal_", "div_")):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _check_compile(training: TrainingConfig) -> None:
    """torch.compile needs a compiler of C++ for a CPU; molsam does not join it with DistributedDataParallel."""
    if training.compile and (training.devices > 1 or processes.launched() is not None):
        raise ConfigError("training.compile=true goes with one process; use training.devices=1, or leave it out.")
    if training.compile and torch.device(training.device).type == "cpu" and shutil.which("c++") is None:
        raise ConfigError(
            "training.compile=true needs a C++ compiler, and there is no c++ on the path; install g++, or leave it out."
        )


def _check_graphs(cfg: DictConfig, training: TrainingConfig) -> None:
    """CUDA graphs are one process's, and capture molsam's own passes over molecules."""
    if not training.graphs:
        return
    if training.devices > 1 or processes.launched() is not None:
        raise ConfigError("training.graphs=true goes with one process; use training.devices=1, or leave it out.")
    if training.compile:
        raise ConfigError("training.graphs=true and training.compile=true do not go together; leave one of them out.")
    if has_images(cfg):
        raise ConfigError(
            "training.graphs=true pads batches of molecules, and "
            f"dataset={cfg.choices.dataset} has images; leave it out."
        )
    if torch.device(training.device).type not in ("cpu", "cuda"):
        raise ConfigError(
            f"training.graphs=true needs CUDA, and training.device={training.device} has none; use "
            "training.device=cuda, or leave it out."
        )


def _check_observers(cfg: DictConfig) -> None:
    if not isinstance(cfg.callbacks, DictConfig):
        raise ConfigError(f"callbacks={cfg.callbacks} is not a group of settings; use callbacks=none.")
    for name, node in cfg.callbacks.items():
        if not isinstance(build(f"callbacks.{name!s}", node), Callback):
            raise ConfigError(
                f"callbacks.{name!s}._target_={node._target_} is not a molsam.training.events.Callback; give one."
            )
    for name, node in cfg.diagnostics.items():
        if node is not None:
            build(f"diagnostics.{name!s}", node)
    kind, every, mode = cfg.logger.kind, cfg.logger.log_every, cfg.logger.mode
    if kind not in ("none", "wandb"):
        raise ConfigError(f"logger.kind={kind} is not a logger; use none or wandb.")
    if every < 1:
        raise ConfigError(f"logger.log_every={every} is too small; it must be at least 1.")
    if mode not in ("offline", "online", "disabled"):
        raise ConfigError(f"logger.mode={mode} is not known; use offline, online or disabled.")


def _check_data(cfg: DictConfig, training: TrainingConfig) -> None:
    task, metric = cfg.dataset.get("task"), cfg.dataset.get("metric")
    if task is not None:
        if task not in TASKS:
            raise ConfigError(f"dataset.task={task} is not a task; use {', '.join(TASKS)} or null (inferred).")
        Objective(task, training.loss)
        if metric is not None:
            check_metric(metric, task)
    released = training.loss == "release" and task in (None, "regression")
    for name in ("accumulate", "devices") if training.loss == "rmse" or released else ():
        if (parts := getattr(training, name)) > 1:
            raise ConfigError(
                f"training.loss={training.loss} is not a mean over molecules, so training.{name}={parts} would "
                f"change it; use training.{name}=1 or training.loss=mse."
            )
    if (cfg.split.get("seed") or 0) < 0:
        raise ConfigError(f"split.seed={cfg.split.seed} is not a whole number from 0 up; give one, or null for `seed`.")
    kind, folds, fold = cfg.split.kind, cfg.split.folds, cfg.split.fold
    if not 1 <= folds <= MOST_FOLDS:
        raise ConfigError(f"split.folds={folds} must be a whole number from 1 to {MOST_FOLDS}.")
    if fold is not None and fold < 0:
        raise ConfigError(f"split.fold={fold} must be a whole number from 0 up.")
    images = ("official", "random", "kfold", "stratified")
    if (kind in KINDS and kind not in images) if has_images(cfg) else (kind == "official"):
        other = ", ".join(images) if has_images(cfg) else ", ".join(KINDS[:-1])
        raise ConfigError(f"split={kind} does not fit dataset={cfg.choices.dataset}; use {other}.")
    if not has_smiles(cfg) and (cfg.dataset.get("descriptors") in NAMES or kind in ("scaffold", "cluster")):
        what = f"split={kind}" if kind in ("scaffold", "cluster") else f"dataset.descriptors={cfg.dataset.descriptors}"
        raise ConfigError(f"{what} reads SMILES, which dataset={cfg.choices.dataset} has none of; leave it out.")
    if kind == "scaffold" and cfg.split.get("convention") not in (None, "deepchem"):
        raise ConfigError(f"split.convention={cfg.split.convention} is not known; use deepchem, or null.")
    files = [name for name in ("valid_path", "test_path") if cfg.dataset.get(name)]
    if files and kind != "files":
        raise ConfigError(f"dataset.{files[0]} is a part of its own, so split={kind} does not fit it; use split=files.")
    if kind == "kfold" and folds < 2:
        raise ConfigError(f"split.folds={folds} is too small for split=kfold; give split.folds=5.")
