"""Checks of the dataset section."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

from molsam.errors import ConfigError

CHOICES: dict[str, tuple[str | None, ...]] = {
    "task": ("regression", "classification", "multiclass", None),
    "on_invalid": ("drop", "error"),
    "duplicates": ("keep", "drop", "group", "merge"),
    "conflicts": (None, "mean", "majority", "drop"),
    "censored": (None, "bound"),
    "standardize": (None, "none", "largest_fragment", "full"),
}


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise ConfigError, naming field, value and remedy, for a value that is not allowed."""
    for name, allowed in CHOICES.items():
        value = settings.get(name, allowed[0])
        if value not in allowed:
            words = [word for word in allowed if word is not None]
            near = get_close_matches(str(value), words, n=1)
            hint = f"did you mean {near[0]}?" if near else f"use {' or '.join(words)}."
            raise ConfigError(f"dataset.{name}={value} is not known; {hint}")
    for name in ("limit", "max_atoms"):
        value = settings.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigError(f"dataset.{name}={value} must be a whole number from 1 up, or null.")
    for name in ("root", "path", "descriptors", "valid_path", "test_path"):
        value = settings.get(name)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"dataset.{name}={value} must be a path, or null.")


def spread(limit: int | None, total: int) -> np.ndarray:
    """Return the rows that dataset.limit selects of `total`, int64.

    They are evenly spaced, because many files are sorted by class.
    """
    count = total if limit is None else min(limit, total)
    return np.arange(count) * total // max(count, 1)
