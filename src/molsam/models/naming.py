"""Translation between our parameter names and those of the reference implementations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import TypeVar

T = TypeVar("T")
Pairs = Sequence[tuple[str, str]]
"""(part of our name, part of the reference's name), replaced in this order; include the dots, so that only whole parts
match"""


def to_reference_names(tensors: Mapping[str, T], pairs: Pairs) -> dict[str, T]:
    """Return the tensors under the reference's names."""
    return {_replace(name, pairs): value for name, value in tensors.items()}


def from_reference_names(tensors: Mapping[str, T], pairs: Pairs, unused: Sequence[str] = ()) -> dict[str, T]:
    """Return the reference's tensors under our names; those that match a pattern of `unused` are left out."""
    backward = [(theirs, ours) for ours, theirs in pairs]
    kept = {k: v for k, v in tensors.items() if not any(fnmatch(k, pattern) for pattern in unused)}
    return {_replace(name, backward): value for name, value in kept.items()}


def _replace(name: str, pairs: Pairs) -> str:
    dotted = f".{name}"
    for old, new in pairs:
        dotted = dotted.replace(old, new)
    return dotted[1:]
