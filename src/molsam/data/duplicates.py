"""Rows with the same molecule: they are counted, then kept, dropped or merged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from molsam.data.given import Given
from molsam.data.labels import Labels
from molsam.errors import ConfigError, counted

RESOLVED = {
    "": "",
    "mean": "; labels that differ are averaged",
    "majority": "; of labels that differ the most frequent counts",
    "drop": "; labels that differ are dropped",
}


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
    lost: Counter[str] = field(default_factory=Counter)
    """labels of dropped rows for tasks in which the kept row has no label, by the reason"""
    how: str = "keep"
    conflicts: str = ""
    """how labels that differ were merged: mean, majority or drop; empty if there were none"""
    fixed: bool = False
    """whether files or a column give the parts, so that rows of different parts stay apart"""
    groups: list[np.ndarray] = field(default_factory=list)
    """positions of each molecule that occurs more than once"""

    def sentence(self, noun: str = "molecule") -> str:
        """Return one line for people; empty if there is nothing to say."""
        if not self.rows:
            return ""
        apart = "; rows of different parts stay apart" if self.fixed else ""
        others = "merge or drop changes that within a part" if self.fixed else "group, merge or drop changes that"
        done = {
            "keep": f"kept (dataset.duplicates={others})",
            "group": "kept, each in the part that is given" if self.fixed else "kept on one side of the split",
            "drop": f"{self.dropped} left out after the first of each{apart}",
            "merge": f"merged, {counted(self.dropped, 'row')} fewer{apart}{RESOLVED[self.conflicts]}",
        }[self.how]
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.lost.items())
        lost = f"; {counted(self.lost_labels, 'label')} lost ({reasons})"
        if self.how == "drop":
            lost = f", {counted(self.lost_labels, 'label')} lost with them (dataset.duplicates=merge keeps them)"
        return (
            f"duplicates: {counted(self.molecules, noun)} in {self.molecules + self.rows} rows, {self.contradictions} "
            f"of them with labels that differ; {done}{lost if self.lost_labels else ''}."
        )

    @property
    def lost_labels(self) -> int:
        """Number of labels of dropped rows for tasks in which the kept row has no label."""
        return self.lost.total()

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


def treat(
    found: Duplicates, count: int, labels: Labels, settings: Mapping[str, Any], given: Given | None = None
) -> np.ndarray:
    """Return the positions of the molecules to keep, of `count`.

    `merge` writes the merged labels into the row that is kept, in place: the first row of each molecule, or the newest
    of a split by time, so that no later label gets into an earlier part. Rows of different given parts stay apart.
    Raises ConfigError if dataset.conflicts does not fit the task.
    """
    found.how, given = settings.get("duplicates") or "keep", given or Given()
    found.fixed = given.parts is not None
    keep = np.ones(count, dtype=bool)
    if found.how not in ("drop", "merge"):
        return np.flatnonzero(keep)
    how = settings.get("conflicts") or ("mean" if labels.task == "regression" else "majority")
    if (how == "mean") != (labels.task == "regression") and how != "drop":
        fits = "mean or drop" if labels.task == "regression" else "majority or drop"
        raise ConfigError(f"dataset.conflicts={how} does not fit a {labels.task} dataset; use {fits}.")
    for rows in _apart(found.groups, given.parts):
        if found.how == "merge" and given.times is not None:
            rows = rows[np.argsort(-given.times[rows], kind="stable")]
        keep[rows[1:]] = False
        for t in range(labels.values.shape[1]):
            values, signs = labels.values[rows, t], _signs(labels, rows, t)
            if found.how == "drop":
                found.lost["with dropped rows"] += int(np.isnan(values[0]) and not np.isnan(values[1:]).all())
                continue
            value, sign, lost = _merged(values, signs, how)
            found.lost[lost] += bool(lost)
            found.conflicts = how if _differ(values, signs) else found.conflicts
            labels.values[rows[0], t] = value
            if labels.bounds is not None:
                labels.bounds[rows[0], t] = sign
    found.lost = +found.lost
    found.dropped = int((~keep).sum())
    return np.flatnonzero(keep)


def _apart(groups: Sequence[np.ndarray], parts: np.ndarray | None) -> Iterator[np.ndarray]:
    """Yield the groups of rows, each divided into those of one part."""
    for rows in groups:
        if parts is None:
            yield rows
        else:
            yield from (rows[parts[rows] == part] for part in np.unique(parts[rows]))


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


def _merged(values: np.ndarray, signs: np.ndarray, how: str) -> tuple[float, int, str]:
    """Return one label for several, its sign if it is a bound, and why it was lost, if it was.

    Exact values take precedence over bounds.
    """
    exact = values[(signs == 0) & ~np.isnan(values)]
    if _differ(values, signs) and how == "drop":
        return np.nan, 0, "that differ"
    if len(exact):
        if how == "majority":
            found, counts = np.unique(exact, return_counts=True)
            best = found[counts == counts.max()]
            return (float(best[0]), 0, "") if len(best) == 1 else (np.nan, 0, "without a majority")
        return (float(exact[0]) if len(np.unique(exact)) == 1 else float(exact.mean())), 0, ""
    low, high = _range(values, signs)
    if np.isfinite(low) and np.isfinite(high):
        return np.nan, 0, "with bounds on both sides"
    if np.isfinite(low):
        return float(low), 1, ""
    return (float(high), -1, "") if np.isfinite(high) else (np.nan, 0, "")
