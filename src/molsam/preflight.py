"""Checks of the settings before any data are read: names, types, ranges, and whether the parts fit."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Sequence
from dataclasses import fields
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal, Union

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from molsam.config import TRAINING_LIMITS, PathsConfig, TrainingConfig, plain
from molsam.errors import ConfigError, MolsamError
from molsam.models.api import DataSpec, MoleculeModel
from molsam.training.metrics import check_metric
from molsam.training.objective import Objective

ALLOWED = ("molsam.*", "torch.optim.Adam", "torch.optim.AdamW", "torch.optim.SGD")
"""What a `_target_` may name: nothing else is ever called, so a stranger's configuration cannot run code."""

NOT_CONSTRUCTOR = {"model": ("featurizer", "pretrained")}


def build(section: str, node: DictConfig, *args: Any, **kwargs: Any) -> Any:
    """Instantiate a `_target_` node, its complaints worded as one sentence that names the section."""
    settings = {key: value for key, value in plain(node).items() if key not in NOT_CONSTRUCTOR.get(section, ())}
    _check_keys(section, settings)
    try:
        return instantiate(settings, *args, **kwargs, _convert_="all", _execution_whitelist_=list(ALLOWED))
    except MolsamError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error.__cause__, MolsamError | ValueError | TypeError) else error
        if isinstance(cause, MolsamError):
            raise cause from error
        raise ConfigError(f"{section}: {_sentence(cause)}") from error


def training_config(cfg: DictConfig) -> TrainingConfig:
    """The checked training section."""
    values = _typed("training", cfg.training, TrainingConfig)
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
    return values


def check(cfg: DictConfig) -> TrainingConfig:
    """Refuse what cannot run. Raises ConfigError naming field, value and remedy."""
    training = training_config(cfg)
    _typed("paths", cfg.paths, PathsConfig)
    if not isinstance(cfg.seed, int) or cfg.seed < 0:
        raise ConfigError(f"seed={cfg.seed} is not a whole number from 0 up; give one such as seed=0.")
    _check_data(cfg, training)
    featurizer = build("model.featurizer", cfg.model.featurizer)
    spec = DataSpec(featurizer.node_dim, featurizer.edge_dim, n_tasks=1, max_atoms=50)
    with torch.device("meta"):
        model = build("model", cfg.model, spec)
    if not isinstance(model, MoleculeModel):
        raise ConfigError(f"model._target_={cfg.model._target_} is not a molsam model; give a MoleculeModel.")
    build("lr_schedule", cfg.lr_schedule)
    dummy = [torch.nn.Parameter(torch.zeros(1))]
    make_optimizer(cfg, dummy, steps_per_epoch=1, training=training)
    return training


def make_optimizer(cfg: DictConfig, params: Any, *, steps_per_epoch: int, training: TrainingConfig) -> Any:
    """The optimizer of a run over a module or a list of parameters."""
    factory = build("optimizer", cfg.optimizer)
    if not isinstance(factory, partial):
        raise ConfigError("optimizer needs `_partial_: true` in its YAML, because the parameters come later.")
    try:
        return factory(
            params,
            steps_per_epoch=steps_per_epoch,
            total_steps=steps_per_epoch * training.epochs,
            max_grad_norm=training.max_grad_norm,
            nonfinite=training.nonfinite,
        )
    except (ValueError, TypeError) as error:
        raise ConfigError(f"optimizer: {_sentence(error)}") from error


def _check_data(cfg: DictConfig, training: TrainingConfig) -> None:
    task, metric = cfg.dataset.get("task"), cfg.dataset.get("metric")
    if task is not None:
        if task not in ("regression", "classification"):
            raise ConfigError(f"dataset.task={task} is not a task; use regression, classification or null (inferred).")
        Objective(task, training.loss)
        if metric is not None:
            check_metric(metric, task)
    if training.loss == "rmse" and training.accumulate > 1:
        raise ConfigError(
            f"training.loss=rmse is not a mean over molecules, so training.accumulate={training.accumulate} would "
            "change it; use training.accumulate=1 or training.loss=mse."
        )
    kind, folds, fold = cfg.split.kind, cfg.split.folds, cfg.split.fold
    if not isinstance(folds, int) or folds < 1:
        raise ConfigError(f"split.folds={folds} must be a whole number from 1 up.")
    if fold is not None and (not isinstance(fold, int) or fold < 0):
        raise ConfigError(f"split.fold={fold} must be a whole number from 0 up.")
    if kind == "kfold" and folds < 2:
        raise ConfigError(f"split.folds={folds} is too small for split=kfold; give split.folds=5.")


def _typed(section: str, node: DictConfig, schema: type[Any]) -> Any:
    names = [field.name for field in fields(schema)]
    for key in node:
        if key not in names:
            raise ConfigError(_unknown(f"{section}.{key!s}", [f"{section}.{name}" for name in names]))
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), node))
    except OmegaConfBaseException as error:
        field = getattr(error, "full_key", None) or ""
        expected = next((str(f.type) for f in fields(schema) if f.name == field), "another type")
        raise ConfigError(f"{section}.{field}={node.get(field)!r} has the wrong type; expected {expected}.") from error


def _check_keys(section: str, node: dict[str, Any]) -> None:
    target = node.get("_target_")
    if target is None:
        raise ConfigError(f"{section} has no _target_; choose one of the options of its config group.")
    if not any(target == name or (name.endswith(".*") and target.startswith(name[:-1])) for name in ALLOWED):
        raise ConfigError(f"{section}._target_={target} is not allowed; use one of: {', '.join(ALLOWED)}.")
    try:
        cls = get_class(target)
    except Exception as error:
        raise ConfigError(f"{section}._target_={target} cannot be imported ({_sentence(error)})") from error
    signature = inspect.signature(cls)
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        signature = _merged_signature(cls)
    hints = typing.get_type_hints(getattr(cls, "__init__"))  # noqa: B009 - mypy distrusts the attribute
    for key, value in node.items():
        if key in ("_target_", "_partial_", "_args_", "_convert_", "_recursive_"):
            continue
        if key not in signature.parameters:
            names = [f"{section}.{name}" for name in signature.parameters if name not in ("self", "params", "spec")]
            raise ConfigError(_unknown(f"{section}.{key}", names))
        if isinstance(value, dict) and "_target_" in value:
            _check_keys(f"{section}.{key}", value)
        elif key in hints and not _fits(value, hints[key]):
            raise ConfigError(f"{section}.{key}={value!r} has the wrong type; expected {_name(hints[key])}.")


def _merged_signature(cls: type[Any]) -> inspect.Signature:
    """Parameters of a class whose constructor passes keywords on to its bases."""
    merged: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if base is object:
            continue
        own = inspect.signature(getattr(base, "__init__")).parameters.values()  # noqa: B009
        merged |= {p.name: p for p in own if p.kind is not p.VAR_KEYWORD and p.name not in merged}
        if not any(p.kind is p.VAR_KEYWORD for p in own):
            break
    kinds = sorted(merged.values(), key=lambda p: p.kind)
    return inspect.Signature(
        [p.replace(default=None) if p.kind > 1 else p.replace(default=inspect._empty) for p in kinds]
    )


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    if origin is Literal:
        return value in typing.get_args(hint)
    if hint is type(None) or hint is None:
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    if origin in (list, tuple, Sequence):
        inner = typing.get_args(hint)[:1] or (Any,)
        return isinstance(value, (list, tuple)) and all(_fits(item, inner[0]) for item in value)
    return True


def _name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    return getattr(hint, "__name__", str(hint)) if typing.get_origin(hint) is None else str(hint)


def _unknown(key: str, names: list[str]) -> str:
    near = get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]}?" if near else f" Known: {', '.join(names)}."
    return f"{key} is not a setting.{hint}"


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith(".") else f"{text}."
