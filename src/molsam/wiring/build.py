"""Build objects from `_target_` nodes: only known classes, checked names and types, complaints in one sentence."""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import re
import types
import typing
from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any, Literal, Union

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from molsam.config.compose import plain
from molsam.config.schema import TrainingConfig
from molsam.config.trust import TRUSTED, trusted
from molsam.config.wording import wrong_type
from molsam.errors import ConfigError, MolsamError, nearest
from molsam.models.api import MoleculeModel

ROOMS = ("chem", "diagnostics", "images", "models", "optim", "training")
"""Parts of molsam whose classes a `_target_` may name, by the address where they are defined."""
OTHERS = ("torch.optim.Adam", "torch.optim.AdamW", "torch.optim.SGD")
NOT_CONSTRUCTOR = {"model": ("featurizer", "pretrained")}


def build(section: str, node: Any, *args: Any, **kwargs: Any) -> Any:
    """Instantiate a `_target_` node, its complaints worded as one sentence that names the section."""
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{section}={node} has no _target_; choose one of the options of its config group.")
    settings = {key: value for key, value in plain(node).items() if key not in NOT_CONSTRUCTOR.get(section, ())}
    allowed = _allow(section, settings)
    _check_keys(section, settings)
    try:
        return instantiate(settings, *args, **kwargs, _convert_="all", _execution_whitelist_=allowed)
    except MolsamError:
        raise
    except Exception as error:
        cause = error.__cause__ if isinstance(error.__cause__, MolsamError | ValueError | TypeError) else error
        if isinstance(cause, MolsamError):
            raise cause from error
        raise ConfigError(f"{section}: {sentence(cause)}") from error


def make_optimizer(cfg: DictConfig, params: Any, *, steps_per_epoch: int, training: TrainingConfig) -> Any:
    """Return the optimizer of a run over a module or a list of parameters."""
    factory = build("optimizer", cfg.optimizer)
    if not isinstance(factory, partial):
        raise ConfigError("optimizer needs `_partial_: true` in its YAML, because the parameters come later.")
    groups, module = params, None
    if (training.freeze or training.encoder_lr is not None) and isinstance(params, torch.nn.Module):
        groups, module = parameter_groups(params, training), params
    try:
        return factory(
            groups,
            steps_per_epoch=steps_per_epoch,
            total_steps=steps_per_epoch * training.epochs,
            max_grad_norm=training.max_grad_norm,
            nonfinite=training.nonfinite,
            **({} if module is None else {"module": module}),
        )
    except MolsamError:
        raise
    except Exception as error:
        raise ConfigError(f"optimizer: {sentence(error)}") from error


def parameter_groups(model: torch.nn.Module, training: TrainingConfig) -> list[dict[str, Any]]:
    """Return the parameters that are trained: the encoder's with their own learning rate, then those of the head.

    Raises ConfigError if the model's head and encoder cannot be told apart.
    """
    if not isinstance(model, MoleculeModel):
        raise ConfigError("training.freeze and training.encoder_lr fit models of molecules only; leave them out.")
    head, encoder = model.parts()
    if training.freeze:
        model.freeze()
        return [{"params": head}]
    return [{"params": encoder, "lr": training.encoder_lr}, {"params": head}]


def _allow(section: str, node: Any) -> list[str]:
    """Return the targets of a node, at any depth.

    Nothing else is ever called, so a stranger's settings cannot run code. Raises ConfigError if one of
    them is not a class of ROOMS or OTHERS, named where it is defined.
    """
    if isinstance(node, list):
        return [target for place, item in enumerate(node) for target in _allow(f"{section}[{place}]", item)]
    if not isinstance(node, dict):
        return []
    found = [target for key, item in node.items() for target in _allow(f"{section}.{key!s}", item)]
    if "_target_" in node:
        _class(section, node["_target_"])
        found.append(node["_target_"])
    return found


def _class(section: str, target: Any) -> type[Any]:
    address = str(target)
    room = re.match(r"molsam\.(\w+)\.", address)
    own = trusted(address)
    if address not in OTHERS and not own and (room is None or room[1] not in ROOMS):
        raise ConfigError(
            f"{section}._target_={address} is not allowed; use a class of molsam.{', molsam.'.join(ROOMS)}, or one of: "
            f"{', '.join(OTHERS)}. If you wrote it yourself, trust its package: {TRUSTED}={address.split('.')[0]}."
        )
    module, _, name = address.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(f"{section}._target_={address} cannot be imported ({sentence(error)})") from error
    if not isinstance(cls, type) or (address not in OTHERS and f"{cls.__module__}.{cls.__qualname__}" != address):
        raise ConfigError(
            f"{section}._target_={address} is not a class that is defined there; give the name of a class."
        )
    return cls


def check_device(setting: str, name: str) -> None:
    """Raise ConfigError if torch cannot compute on a device; `setting` is what names it."""
    if name.split(":")[0].lower() == "gpu":
        raise ConfigError(f"{setting}={name} is not a torch device; use {setting}=cuda, or cuda:1 for the second GPU.")
    try:
        torch.zeros(1, device=name).item()
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{setting}={name} cannot be used ({sentence(reason)}) Use {setting}=cpu.") from error


def _check_keys(section: str, node: dict[str, Any]) -> None:
    target = node.get("_target_")
    if target is None:
        raise ConfigError(f"{section} has no _target_; choose one of the options of its config group.")
    cls = _class(section, target)
    parameters, hints = _constructor(typing.cast(Hashable, cls))
    for key, value in node.items():
        if key in ("_target_", "_partial_", "_args_", "_convert_", "_recursive_"):
            continue
        if key not in parameters:
            names = [f"{section}.{name}" for name in parameters if name not in ("self", "params", "spec")]
            raise ConfigError(_unknown(f"{section}.{key}", names))
        if isinstance(value, dict) and "_target_" in value:
            _check_keys(f"{section}.{key}", value)
        elif key in hints and not _fits(value, hints[key]):
            raise ConfigError(wrong_type(f"{section}.{key}={value!r}", hints[key]))
        _check_range(f"{section}.{key}", value)


@functools.cache
def _constructor(cls: Any) -> tuple[list[str], dict[str, Any]]:
    """Names and types of a constructor's parameters, those of its bases included where it passes keywords on."""
    signature = inspect.signature(cls)
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        signature = _merged_signature(cls)
    hints: dict[str, Any] = {}
    for base in reversed(cls.__mro__[:-1]):
        hints |= typing.get_type_hints(getattr(base, "__init__"))  # noqa: B009 - mypy distrusts the attribute
    return list(signature.parameters), hints


def _check_range(name: str, value: Any) -> None:
    """Numbers that no constructor wants, whatever it is: not finite, a share beyond 1, nothing of something."""
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        if not math.isfinite(number):
            raise ConfigError(f"{name}={value} is not finite; give a number.")
        if name.endswith("dropout") and not 0 <= number <= 1:
            raise ConfigError(f"{name}={value} is not a probability; give a number from 0 to 1.")
        if name.startswith("model.") and name.endswith(("size", "sizes", "heads", "d_model")) and number < 1:
            raise ConfigError(f"{name}={value} is too small; it must be at least 1.")


def _merged_signature(cls: type[Any]) -> inspect.Signature:
    """Parameters of a class whose constructor passes keywords on to its bases."""
    merged: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if base is object:
            continue
        own = inspect.signature(getattr(base, "__init__")).parameters.values()  # noqa: B009
        named = [p for p in own if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        merged |= {p.name: p for p in named if p.name not in merged}
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
        return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is str:
        return isinstance(value, str) and "\0" not in value
    if origin in (list, tuple, Sequence):
        inner = typing.get_args(hint)[:1] or (Any,)
        return isinstance(value, (list, tuple)) and all(_fits(item, inner[0]) for item in value)
    # Other types are objects, which only a node with a _target_ can make.
    kind = origin or hint
    if getattr(kind, "_is_protocol", False):
        return False
    return isinstance(value, kind) if isinstance(kind, type) else True


def _unknown(key: str, names: list[str]) -> str:
    near = "base_optimizer.lr" if key.split(".")[-1] in ("lr", "learning_rate") else nearest(key, names, least=0.5)
    hint = f" Did you mean {near}?" if near else f" Known: {', '.join(names)}."
    return f"{key} is not a setting.{hint}"


def sentence(error: BaseException | str) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith(".") else f"{text}."
