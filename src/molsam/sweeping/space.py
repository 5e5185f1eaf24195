"""What a search varies: distributions from the command line, and suggestions as text that Hydra reads back."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.override_parser.types import Override
from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
from omegaconf import DictConfig

from molsam.config.cells import key_of
from molsam.config.compose import plain
from molsam.errors import ConfigError
from molsam.sweeping.overrides import NOT_FOR_JOBS, as_value, parse, values_of
from molsam.sweeping.sampling import NumberSeededSampler

SAMPLERS = ("optuna.samplers.*", "hydra_plugins.hydra_optuna_sweeper.*")
OWN_SEQUENCE = ("QMCSampler",)
"""Samplers whose points follow a sequence that the study itself counts: a seed of their own would break it."""


def search_space(arguments: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Distributions of what is searched, and the overrides that are fixed; what comes later wins."""
    space: dict[str, Any] = {}
    base: dict[str, str] = {}
    for override in parse(arguments):
        text = override.input_line or ""
        key = key_of(text)
        for name in (key, f"+{key}", f"++{key}"):
            space.pop(name, None)
        base.pop(key, None)
        if override.is_sweep_override():
            added = "++" if override.is_force_add() else "+" if override.is_add() else ""
            space[f"{added}{key}"] = distribution(override)
        elif key not in NOT_FOR_JOBS:
            base[key] = text
    return space, list(base.values())


def distribution(override: Override) -> Any:
    """The distribution of an override with choices, a range or an interval. Raises ConfigError if it has none.

    A choice that is no number, truth value or null is kept as the text that an override takes, with quotes if it needs them.
    """
    from optuna.distributions import CategoricalDistribution

    try:
        if not override.is_choice_sweep():
            return create_optuna_distribution_from_override(override)
        values, texts = list(override.sweep_iterator()), values_of(override)
        if not values:
            raise ValueError("it has no choices")
    except (ValueError, TypeError, NotImplementedError, AssertionError) as error:
        raise ConfigError(
            f"{override.input_line} cannot be searched ({' '.join(str(error).split())}); write choices as key=a,b, or "
            "key=interval(0.0,1.0)."
        ) from error
    simple = (bool, int, float, type(None))
    return CategoricalDistribution(
        [value if isinstance(value, simple) else text for value, text in zip(values, texts, strict=True)]
    )


def told(distribution: Any) -> str:
    """`0.0005 to 0.1, log`, or the choices: a distribution for a person."""
    if hasattr(distribution, "choices"):
        return ", ".join(map(str, distribution.choices))
    notes = ["log"] if distribution.log else []
    notes += [f"steps of {distribution.step}"] if distribution.step not in (None, 1) else []
    return ", ".join([f"{distribution.low} to {distribution.high}", *notes])


def suggested(params: Mapping[str, Any]) -> list[str]:
    """The parameters of a trial as overrides."""
    return [f"{name}={as_value(value)}" for name, value in params.items()]


def make_sampler(node: DictConfig) -> Any:
    """The sampler of a node; a seeded one depends on the trial's number."""
    from hydra.utils import instantiate
    from optuna.exceptions import ExperimentalWarning

    def make(seed: int | None) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return instantiate({**settings, "seed": seed}, _convert_="all", _execution_whitelist_=SAMPLERS)

    settings = {key: value for key, value in plain(node).items() if value is not None or key == "seed"}
    seed = settings.get("seed")
    if seed is None or str(settings["_target_"]).endswith(OWN_SEQUENCE):
        return make(seed)
    return NumberSeededSampler(make, int(seed))
