"""Overrides of a command line: what they vary, and values as text that Hydra reads back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from molsam.config.cells import key_of, quote
from molsam.errors import ConfigError

SMOKE = {"dataset.limit": 64, "training.epochs": 1}
"""What smoke=true adds to every job, unless the command line says otherwise."""

NOT_FOR_JOBS = ("overwrite", "dry_run", "smoke")
"""Settings of the sweep itself."""


def parse(arguments: Iterable[str]) -> list[Override]:
    """The overrides of a command line."""
    return OverridesParser.create().parse_overrides(list(arguments))


def values_of(override: Override) -> list[str]:
    """The values an override gives its key, as text for another override."""
    if override.is_sweep_override():
        if not override.is_discrete_sweep():
            raise ConfigError(
                f"{override.input_line} has no list of values; a grid needs choices such as "
                f"{override.key_or_group}=1,2,3, or choose a sampler with hydra/sweeper/sampler=tpe."
            )
        texts = [str(text) for text in override.sweep_string_iterator()]
        return [as_text(value, text) for value, text in zip(override.sweep_iterator(), texts, strict=True)]
    return [as_text(override.value(), override.get_value_element_as_str())]


def as_text(value: Any, text: str) -> str:
    """A value as text for an override: quoted where it is a string that would not be read as itself; else `text`."""
    if not isinstance(value, str):
        return text
    try:
        (read,) = parse([f"key={value}"])
        bare = not read.is_sweep_override() and read.value() == value
    except HydraException:
        bare = False
    return value if bare else quote(value)


def fixed(overrides: Iterable[Override]) -> list[str]:
    """The overrides that are the same for all jobs."""
    return [
        o.input_line or ""
        for o in overrides
        if not o.is_sweep_override() and key_of(o.input_line or "") not in NOT_FOR_JOBS
    ]


def shrink(base: Sequence[str]) -> list[str]:
    """The overrides of smoke=true that the command line does not make itself."""
    given = {key_of(text) for text in base}
    return [f"{key}={value}" for key, value in SMOKE.items() if key not in given]


def as_value(value: Any) -> str:
    """A number, truth value or null as an override's value; other text is taken for such a value already."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def destination(folder: str, name: str) -> tuple[str, str]:
    """The overrides that send a job to the folder `name` of a sweep."""
    return f"hydra.sweep.dir={quote(folder)}", f"hydra.sweep.subdir={quote(name)}"
