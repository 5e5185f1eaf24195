"""Overrides of a command line: which values they sweep, and values as text that Hydra parses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from molsam.config.cells import key_of, quote
from molsam.errors import ConfigError

SMOKE = {"dataset.limit": 64, "training.epochs": 1}
"""Settings that smoke=true adds to every job, unless the command line sets them."""

NOT_FOR_JOBS = ("overwrite", "dry_run", "smoke")
"""Settings of the sweep itself, which jobs do not get."""


def parse(arguments: Iterable[str]) -> list[Override]:
    """Return the parsed overrides of a command line."""
    return OverridesParser.create().parse_overrides(list(arguments))


def values_of(override: Override) -> list[str]:
    """Return the values an override gives its key, as text for another override."""
    if override.is_sweep_override():
        if not override.is_discrete_sweep():
            raise ConfigError(
                f"{override.input_line} is not a list of values; a grid needs choices such as "
                f"{override.key_or_group}=1,2,3; or choose a sampler with hydra/sweeper/sampler=tpe."
            )
        texts = [str(text) for text in override.sweep_string_iterator()]
        return [as_text(value, text) for value, text in zip(override.sweep_iterator(), texts, strict=True)]
    return [as_text(override.value(), override.get_value_element_as_str())]


def as_text(value: Any, text: str) -> str:
    """Return a value as text for an override: a string in quotes if it needs them, other values as `text`."""
    if not isinstance(value, str):
        return text
    try:
        (read,) = parse([f"key={value}"])
        bare = not read.is_sweep_override() and read.value() == value
    except HydraException:
        bare = False
    return value if bare else quote(value)


def fixed(overrides: Iterable[Override]) -> list[str]:
    """Return the overrides that are the same for all jobs."""
    return [
        o.input_line or ""
        for o in overrides
        if not o.is_sweep_override() and key_of(o.input_line or "") not in NOT_FOR_JOBS
    ]


def shrink(base: Sequence[str]) -> list[str]:
    """Return the overrides of smoke=true for settings that the command line does not set."""
    given = {key_of(text) for text in base}
    return [f"{key}={value}" for key, value in SMOKE.items() if key not in given]


def as_value(value: Any) -> str:
    """Return a number, boolean or None as text for an override; a string must be such text already."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def destination(folder: str, name: str) -> tuple[str, str]:
    """Return the overrides that set a job's run folder to `name` in a sweep's folder."""
    return f"hydra.sweep.dir={quote(folder)}", f"hydra.sweep.subdir={quote(name)}"
