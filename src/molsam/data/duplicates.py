"""Rows with the same molecule: they are counted, then kept, dropped or merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from molsam.data.labels import Labels
from molsam.errors import ConfigError, counted


@dataclass
class Duplicates:
    """Counts of equal molecules, and how they were treated."""

    rows: int = 0
    """rows after the first one with the same canonical SMILES"""
    molecules: int = 0
    """distinct molecules that occur more than once"""
    contradictions: int = 0
    """number of these with two known labels of one task that differ"""
    unequal: int = 0
    """number of these whose rows differ in a label, or in which labels are missing"""
    dropped: int = 0
    """rows that were left out"""
    lost_labels: int = 0
    """labels of dropped rows for tasks in which the kept row has no label"""
    how: str = "keep"
    groups: list[np.ndarray] = field(default_factory=list)
    """positions of each molecule that occurs more than once"""

    def sentence(self, noun: str = "molecule") -> str:
        """Return one line for people; empty if there is nothing to say."""
        if not self.rows:
            return ""
        done = {
            "keep": "kept (dataset.duplicates=group, merge or drop treats them)",
            "group": "kept on one side of the split",
            "drop": f"{self.dropped} left out",
            "merge": f"merged, {counted(self.dropped, 'row')} fewer",
        }[self.how]
        lost = f", {counted(self.lost_labels, 'label')} lost with them (dataset.duplicates=merge keeps them)"
        return (
            f"duplicates: {counted(self.molecules, noun)} in {self.molecules + self.rows} rows, {self.contradictions} "
            f"of them with labels that differ; {done}{lost if self.lost_labels else ''}."
        )

    def summary(self) -> dict[str, Any]:
        """Return what result.json stores of it."""
        return {
            "duplicates": self.rows,
            "contradictions": self.contradictions,
            "dropped_duplicates": self.dropped,
            "lost_labels": self.lost_labels,
            "duplicates_note": self.sentence(),
        }


def find(canonical: Sequence[str], labels: Labels) -> Duplicates:
    """Count equal molecules, and those whose labels differ."""
    counts = Counter(canonical)
    places: dict[str, list[int]] = {name: [] for name, count in counts.items() if count > 1}
    for place, name in enumerate(canonical):
        if name in places:
            places[name].append(place)
    found = Duplicates(groups=[np.array(rows) for rows in places.values()])
    found.molecules = len(found.groups)
    found.rows = sum(len(rows) - 1 for rows in found.groups)
    for rows in found.groups:
        values = labels.values[rows]
        found.unequal += not all(np.array_equal(values[0], other, equal_nan=True) for other in values[1:])
        found.contradictions += any(_differ(values[:, t], _signs(labels, rows, t)) for t in range(values.shape[1]))
    return found


def treat(found: Duplicates, count: int, labels: Labels, settings: Mapping[str, Any]) -> np.ndarray:
    """Return the positions of the molecules to keep, of `count`.

    `merge` writes the merged labels into the first row of each molecule, in place.
    Raises ConfigError if dataset.conflicts does not fit the task.
    """
    found.how = settings.get("duplicates") or "keep"
    keep = np.ones(count, dtype=bool)
    if found.how not in ("drop", "merge"):
        return np.flatnonzero(keep)
    how = settings.get("conflicts") or ("mean" if labels.task == "regression" else "majority")
    if (how == "mean") != (labels.task == "regression") and how != "drop":
        fits = "mean or drop" if labels.task == "regression" else "majority or drop"
        raise ConfigError(f"dataset.conflicts={how} does not fit a {labels.task} dataset; use {fits}.")
    for rows in found.groups:
        keep[rows[1:]] = False
        for t in range(labels.values.shape[1]):
            values, signs = labels.values[rows, t], _signs(labels, rows, t)
            if found.how == "drop":
                found.lost_labels += int(np.isnan(values[0]) and not np.isnan(values[1:]).all())
                continue
            value, sign = _merged(values, signs, how)
            labels.values[rows[0], t] = value
            if labels.bounds is not None:
                labels.bounds[rows[0], t] = sign
    found.dropped = int((~keep).sum())
    return np.flatnonzero(keep)


def _signs(labels: Labels, rows: np.ndarray, task: int) -> np.ndarray:
    return np.zeros(len(rows), dtype=np.int8) if labels.bounds is None else labels.bounds[rows, task]


def _differ(values: np.ndarray, signs: np.ndarray) -> bool:
    """Return whether known labels of one molecule contradict each other: two values, or a value beyond a bound."""
    low, high = _range(values, signs)
    exact = np.unique(values[(signs == 0) & ~np.isnan(values)])
    return len(exact) > 1 or low > high or any(value < low or value > high for value in exact)


def _range(values: np.ndarray, signs: np.ndarray) -> tuple[float, float]:
    """Return the largest lower bound and the smallest upper bound."""
    return max(values[signs > 0], default=-np.inf), min(values[signs < 0], default=np.inf)


def _merged(values: np.ndarray, signs: np.ndarray, how: str) -> tuple[float, int]:
    """Return one label for several, and its sign if it is a bound. Exact values take precedence over bounds."""
    exact = values[(signs == 0) & ~np.isnan(values)]
    if _differ(values, signs) and how == "drop":
        return np.nan, 0
    if len(exact):
        if how == "majority":
            found, counts = np.unique(exact, return_counts=True)
            best = found[counts == counts.max()]
            return (float(best[0]), 0) if len(best) == 1 else (np.nan, 0)
        return (float(exact[0]) if len(np.unique(exact)) == 1 else float(exact.mean())), 0
    low, high = _range(values, signs)
    if np.isfinite(low) and np.isfinite(high):
        return np.nan, 0
    return (float(low), 1) if np.isfinite(low) else (float(high), -1) if np.isfinite(high) else (np.nan, 0)
