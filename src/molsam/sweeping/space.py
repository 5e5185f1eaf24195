"""The search space: distributions from the command line, and suggestions as text that Hydra parses."""

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
"""Samplers whose points follow a sequence over all trials, which a new seed for each trial would break."""


def search_space(arguments: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Return the distributions of the searched settings, and the fixed overrides. Later arguments take precedence."""
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
    """Return the distribution of an override with choices, a range or an interval. Raises ConfigError if it has none.

    A choice other than a number, boolean or null is kept as text for an override, in quotes if it needs them.
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


def in_words(distribution: Any) -> str:
    """Return a distribution in words: `0.0005 to 0.1, log`, or its choices."""
    if hasattr(distribution, "choices"):
        return ", ".join(map(str, distribution.choices))
    notes = ["log"] if distribution.log else []
    notes += [f"steps of {distribution.step}"] if distribution.step not in (None, 1) else []
    return ", ".join([f"{distribution.low} to {distribution.high}", *notes])


def suggested(params: Mapping[str, Any]) -> list[str]:
    """Return the parameters of a trial as overrides."""
    return [f"{name}={as_value(value)}" for name, value in params.items()]


def make_sampler(node: DictConfig) -> Any:
    """Return the sampler of a configuration node. A seeded one is seeded anew by each trial's number."""
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
