"""Fast composition of the settings of many jobs: Hydra composes once for all jobs that choose the same groups.

Hydra composes in two steps: the files that the groups choose, then the values of the overrides, in their order. Jobs
that differ only in values share the first step. A value is then set in the resolved settings directly, if no
interpolation refers to its key. Otherwise the settings are resolved again.
"""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf

from molsam.config.compose import plain
from molsam.sweeping.overrides import parse

INNERMOST = re.compile(r"\$\{([^{}]*)\}")
VARYING = "*"
"""Placeholder for the value of an interpolation within another one."""

NAME = r"[\w*][\w.*]*"
KNOWN = re.compile(rf"oc\.select:\s*({NAME})\s*(?:,[^{{}}]*)?|(hydra|oc\.env|oc\.decode|molsam\.\w+):[^{{}}]*|({NAME})")
"""Interpolations that name one key (groups 1 and 3), or none of the run's settings (group 2)."""


@dataclass(frozen=True)
class Change:
    """A value that a job sets: `key=value`, or `++key=value` (`add`) if the key may be new."""

    key: str
    value: Any
    add: bool


@dataclass(frozen=True)
class Settings:
    """The settings of a job.

    Attributes:
        base: the composed settings that several jobs share, including Hydra's own section; never changed.
        changes: the values to set in the base.
        overrides: all of the job's overrides, as Hydra records them.
        values: the settings without Hydra's section, interpolations resolved.
    """

    base: DictConfig
    changes: tuple[Change, ...]
    overrides: tuple[str, ...]
    values: Mapping[str, Any]


@dataclass
class _Base:
    config: DictConfig
    values: dict[str, Any]
    named: frozenset[str] | None
    """keys to which interpolations refer; None if one of them cannot be parsed"""
    scratch: DictConfig
    """a copy of the settings without Hydra's, for setting and reading single values"""
    read: dict[tuple[str, str], Any] = field(default_factory=dict)


class Composer:
    """Composes the jobs of one sweep.

    Args:
        loader: Hydra's loader of configuration files.
        master: the settings of the sweep.
        common: overrides of all jobs, applied before a job's own.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig, common: Sequence[str]) -> None:
        self.loader, self.master, self.common = loader, master, tuple(common)
        self._bases: dict[tuple[str, ...], _Base] = {}
        self._resolved: dict[tuple[tuple[str, ...], tuple[str, ...]], _Base] = {}
        self._groups: dict[str, bool] = {}
        self._parsed: dict[str, Override] = {}

    def settings(self, own: Sequence[str]) -> Settings:
        """Return the settings of a job from the common overrides and its own. Raises Hydra's errors."""
        overrides = self._parse(own)
        changes = [self._change(override) for override in overrides]
        values = [o for o, change in zip(overrides, changes, strict=True) if change is not None]
        groups = tuple(_text(o) for o, change in zip(overrides, changes, strict=True) if change is None)
        whole = (*self.common, *own)
        keys = [override.key_or_group for override in overrides if not self._is_group(override.key_or_group)]
        if not _disjoint(keys) or any(map(_depends_on_order, overrides)):
            base = self._base(tuple(own))
            return Settings(base.config, (), whole, base.values)
        base = self._base(groups)
        free = [base.named is not None and _is_free(o.key_or_group, base) for o in values]
        if not all(free):
            bound = tuple(_text(o) for o, is_free in zip(values, free, strict=True) if not is_free)
            base = self._with(groups, bound, base)
        resolved = base.values
        for override, is_free in zip(values, free, strict=True):
            if is_free:
                resolved = _put(resolved, override.key_or_group.split("."), self._value(base, override))
        return Settings(self._base(groups).config, tuple(c for c in changes if c is not None), whole, resolved)

    def _parse(self, texts: Sequence[str]) -> list[Override]:
        new = [text for text in texts if text not in self._parsed]
        self._parsed |= zip(new, parse(new), strict=True)
        return [self._parsed[text] for text in texts]

    def _change(self, override: Override) -> Change | None:
        """Return an override as a value to set; None if it is more than that, such as the choice of a group."""
        key = override.key_or_group
        plain_key = re.fullmatch(r"[\w.]+", key) and override.package is None and not key.startswith("hydra.")
        if not plain_key or not (_is_change(override) or override.is_force_add()) or self._is_group(key):
            return None
        value = override.value()
        alone = not isinstance(value, dict) and "${" not in str(value)
        return Change(key, value, override.is_force_add()) if alone else None

    def _is_group(self, key: str) -> bool:
        if key not in self._groups:
            chosen = self.master.hydra.runtime.choices
            self._groups[key] = key in chosen or bool(self.loader.get_group_options(key))
        return self._groups[key]

    def _base(self, groups: tuple[str, ...]) -> _Base:
        if groups not in self._bases:
            config = self.loader.load_sweep_config(self.master, [*self.common, *groups])
            task = _task(config)
            self._bases[groups] = _Base(config, resolve(task, config), _named(task), task)
        return self._bases[groups]

    def _with(self, groups: tuple[str, ...], bound: tuple[str, ...], base: _Base) -> _Base:
        """Return a base in which some values were set before it was resolved."""
        key = groups, bound
        if key not in self._resolved:
            # A new copy, because `scratch` contains other jobs' values.
            task = _task(base.config)
            for override in self._parse(bound):
                put(task, Change(override.key_or_group, override.value(), override.is_force_add()))
            self._resolved[key] = _Base(base.config, resolve(task, base.config), base.named, base.scratch, base.read)
        return self._resolved[key]

    def _value(self, base: _Base, override: Override) -> Any:
        """Return the value of a key after it was set, because the schema may convert it (1 to 1.0, say)."""
        key = override.key_or_group, _text(override)
        if key not in base.read:
            put(base.scratch, Change(override.key_or_group, override.value(), override.is_force_add()))
            found = OmegaConf.select(base.scratch, override.key_or_group)
            is_node = isinstance(found, (DictConfig, ListConfig))
            base.read[key] = OmegaConf.to_container(found, resolve=True) if is_node else found
        return base.read[key]


def put(config: DictConfig, change: Change) -> None:
    """Set a value, as Hydra does for an override on the command line. Raises Hydra's ConfigCompositionException."""
    from hydra.errors import ConfigCompositionException
    from omegaconf.errors import OmegaConfBaseException

    try:
        OmegaConf.update(config, change.key, change.value, merge=True, force_add=change.add)
    except OmegaConfBaseException as error:
        raise ConfigCompositionException(f"Could not override '{change.key}'.") from error


def resolve(task: DictConfig, hydra: DictConfig) -> dict[str, Any]:
    """Return settings as plain values; ${hydra:...} refers to the section of `hydra`."""
    with as_job(hydra):
        return plain(task)


@contextmanager
def as_job(config: DictConfig) -> Iterator[None]:
    """Make ${hydra:...} refer to the job's own Hydra settings within the context."""
    hydra = HydraConfig.instance()
    before = hydra.cfg
    hydra.set_config(config)
    try:
        yield
    finally:
        hydra.cfg = before


def _task(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


def _text(override: Override) -> str:
    return override.input_line or ""


def _is_change(override: Override) -> bool:
    return not (override.is_add() or override.is_delete() or override.is_force_add() or override.is_sweep_override())


def _depends_on_order(override: Override) -> bool:
    """Return whether the effect of an override depends on earlier ones: an addition or a removal."""
    return (override.is_add() and not override.is_force_add()) or override.is_delete()


def _disjoint(keys: Sequence[str]) -> bool:
    """Return whether no key equals another one or is nested in it."""
    ordered = sorted(f"{key}." for key in keys)
    return not any(later.startswith(earlier) for earlier, later in itertools.pairwise(ordered))


def _named(task: DictConfig) -> frozenset[str] | None:
    """Return the keys to which interpolations refer; None if one of them cannot be parsed."""
    found: set[str] = set()
    held: list[Any] = [OmegaConf.to_container(task, resolve=False)]
    while held:
        value = held.pop()
        held += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        while isinstance(value, str) and (inner := INNERMOST.search(value)):
            match = KNOWN.fullmatch(inner.group(1).strip())
            if match is None:
                return None
            if name := match.group(1) or match.group(3):
                # Of a name with varying parts, what comes before the first one counts.
                found.add(name.partition(VARYING)[0].rstrip("."))
            value = value[: inner.start()] + VARYING + value[inner.end() :]
    return None if "" in found else frozenset(found)


def _is_free(key: str, base: _Base) -> bool:
    """Return whether setting a key changes nothing else, because no interpolation refers to it or contains it."""
    assert base.named is not None
    if any(f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.") for other in base.named):
        return False
    node: Any = base.config
    for part in key.split(".")[:-1]:
        if not isinstance(node, DictConfig) or node._is_interpolation() or part not in node:
            return False
        node = node._get_node(part)
    return isinstance(node, DictConfig) and not node._is_interpolation()


def _put(values: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """Return a copy of nested values with one of them replaced; unaffected parts are shared."""
    first, *rest = path
    return {**values, first: _put(values[first], rest, value) if rest else copy.copy(value)}
