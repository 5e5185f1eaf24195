"""Every setting of every optimizer, schedule and model changes what is built, or is refused; none is ignored."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import Tensor, nn

from molsam.chem.arrays import Featurizer
from molsam.config.compose import compose
from molsam.config.schema import TrainingConfig
from molsam.errors import ConfigError
from molsam.models.api import DataSpec
from molsam.wiring.build import build, make_optimizer
from tests.batteries.optimizers import NAMES
from tests.paths import ROOT

TOGETHER = {
    "gsam": ["rho_schedule=constant", "optimizer.rho_min=0.01", "optimizer.lr_max=1.0"],
    "compt": ["model.dense_activation=relu", "model.padding=reference"],
    "grover": ["model.readout=self_attention"],
}
"""Settings that have a meaning only together."""
WORDS = [
    "none",
    "linear",
    "tanh",
    "mish",
    "layer",
    "right",
    "mean",
    "sum",
    "pairs",
    "rdkit",
    "v2",
    "attentivefp",
    "self_attention",
    "reference",
    "exact",
    "exp",
]
"""One other value at least of every setting that is a word."""
IMAGES = ("resnet18",)
ELSEWHERE = {"model.pretrained"}
"""Read by the composition root, not by a constructor (tests/models/test_grover_checkpoint.py)."""


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))


def settings(node: Any, prefix: str) -> Iterator[str]:
    """The paths of all settings in a section; an interpolation is a setting of the section that it points to."""
    for key in node:
        if str(key).startswith("_"):
            continue
        if isinstance(node[key], DictConfig):
            if not OmegaConf.is_interpolation(node, key):
                yield from settings(node[key], f"{prefix}.{key}")
        elif f"{prefix}.{key}" not in ELSEWHERE:
            yield f"{prefix}.{key}"


def others(value: Any) -> list[Any]:
    """Values to put in its place; a constructor may refuse some."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value * 2 or 1, value + 1, value / 2 + 0.125]
    if isinstance(value, str):
        return [word for word in WORDS if word != value]
    if isinstance(value, ListConfig):
        return [[*value[:-1], other] for other in others(value[-1])]
    return [3, 0.25, 0.001, *WORDS]


def fingerprint(thing: Any, seen: dict[int, tuple[int, Any]] | None = None) -> Any:
    """All that an object holds, as nested tuples of plain values."""
    seen = {} if seen is None else seen
    if thing is None or isinstance(thing, bool | int | float | str | torch.dtype):
        return repr(thing)
    if id(thing) in seen:
        return f"again {seen[id(thing)][0]}"
    seen[id(thing)] = len(seen), thing  # held, so that no other object gets its id
    if isinstance(thing, Tensor):
        return tuple(thing.shape), hash(thing.detach().numpy().tobytes())
    if isinstance(thing, torch.Generator):
        return thing.get_state().tolist()
    if isinstance(thing, dict):
        return tuple((str(key) if isinstance(key, str) else "", fingerprint(v, seen)) for key, v in thing.items())
    if isinstance(thing, list | tuple):
        return tuple(fingerprint(item, seen) for item in thing)
    if isinstance(thing, type) or (callable(thing) and hasattr(thing, "__qualname__")):
        return thing.__qualname__
    return type(thing).__qualname__, fingerprint(getattr(thing, "__dict__", {}), seen)


def optimizer(cfg: DictConfig) -> Any:
    weight = nn.Parameter(torch.ones(1))
    return fingerprint(make_optimizer(cfg, [weight], steps_per_epoch=4, training=TrainingConfig()))


def lr_schedule(cfg: DictConfig) -> Any:
    return fingerprint(build("lr_schedule", cfg.lr_schedule))


def model(cfg: DictConfig) -> Any:
    if "featurizer" not in cfg.model:
        spec = DataSpec(node_dim=3, edge_dim=0, n_tasks=10, max_atoms=0)
        featurizer: Featurizer | None = None
    else:
        featurizer = build("model.featurizer", cfg.model.featurizer)
        spec = DataSpec(featurizer.node_dim, featurizer.edge_dim, n_tasks=1, max_atoms=50)
    torch.manual_seed(0)
    return fingerprint((featurizer, build("model", cfg.model, spec)))


def assert_all_alive(cfg: DictConfig, sections: list[str], built: Callable[[DictConfig], Any]) -> None:
    """The first other value of each setting that is not refused changes what is built."""
    first = built(cfg)
    assert built(cfg) == first
    for setting in (found for section in sections for found in settings(cfg[section], section)):
        value = OmegaConf.select(cfg, setting)
        for other in others(value):
            changed = OmegaConf.create(OmegaConf.to_container(cfg))
            OmegaConf.update(changed, setting, other)
            with contextlib.suppress(ConfigError):
                assert built(changed) != first, f"{setting}={other} changes nothing"
                break
        else:
            raise AssertionError(f"no value of {setting} is accepted beside {value}")


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_of_an_optimizer_its_base_and_its_schedule_lives(name: str) -> None:
    cfg = compose([f"optimizer={name}", *TOGETHER.get(name, [])])
    schedule = ["rho_schedule"] if "rho_schedule" in cfg.optimizer else []
    assert_all_alive(cfg, ["optimizer", "base_optimizer", *schedule], optimizer)


@pytest.mark.parametrize("name", options("rho_schedule"))
def test_every_setting_of_a_rho_schedule_lives(name: str) -> None:
    assert_all_alive(compose(["optimizer=sam", f"rho_schedule={name}"]), ["rho_schedule"], optimizer)


@pytest.mark.parametrize("name", options("base_optimizer"))
def test_every_setting_of_a_base_optimizer_lives(name: str) -> None:
    for wrapper in ("graphsam", name):
        cfg = compose([f"optimizer={wrapper}", f"base_optimizer={name}"])
        assert_all_alive(cfg, ["base_optimizer"], optimizer)


@pytest.mark.parametrize("name", options("lr_schedule"))
def test_every_setting_of_a_learning_rate_schedule_lives(name: str) -> None:
    assert_all_alive(compose([f"lr_schedule={name}"]), ["lr_schedule"], lr_schedule)


@pytest.mark.parametrize("name", options("model"))
def test_every_setting_of_a_model_lives(name: str) -> None:
    cfg = compose([f"model={name}", *TOGETHER.get(name, []), *(["dataset=cifar10"] if name in IMAGES else [])])
    assert_all_alive(cfg, ["model"], model)


TAKEN_OVER = ("base", "rho_schedule", "seed")
"""Sections of other groups, and what no attribute holds."""


@pytest.mark.parametrize("name", NAMES)
def test_a_class_has_the_defaults_of_its_file(name: str) -> None:
    """An optimizer built in Python is what the command line gives; a default changed in one place is seen."""
    cfg = compose([f"optimizer={name}"])
    written = {key: cfg.optimizer[key] for key in cfg.optimizer if not key.startswith("_") and key not in TAKEN_OVER}
    weight = [nn.Parameter(torch.ones(1))]
    bare = type(make_optimizer(cfg, weight, steps_per_epoch=4, training=TrainingConfig()))(
        weight, partial(torch.optim.SGD, lr=0.1), steps_per_epoch=4, total_steps=4
    )
    stated = make_optimizer(cfg, weight, steps_per_epoch=4, training=TrainingConfig())
    for key in written:
        found = [one.defaults["rho"] if key == "rho" else getattr(one, key, None) for one in (stated, bare)]
        assert found[0] == found[1], key
