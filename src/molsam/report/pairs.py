"""Pairs of runs: repeats are averaged, two rows are matched by split and training seed, then averaged over seeds.

A repeat is a run of equal identity made on another occasion (another day, processor or number of threads). Its rounding
differs, so another epoch may be best on validation. Repeats count as one measurement; their spread is the repeat noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from molsam.report.inference import Estimate, estimate

if TYPE_CHECKING:
    import pandas as pd

Units = Mapping[tuple[str, int], float]
"""(split, training seed) -> the value measured with them."""
SCORES = ("score", "late")
"""Columns that are averaged over repeats. Costs are those of the cell's own run."""
LESS_IS_BETTER = ("seconds_per_epoch", "seconds", "gradient_passes", "passes_per_step")
FIXED_TEST = ("official", "predefined")
"""Kinds of split that have the same test set in every run."""


@dataclass(frozen=True)
class Noise:
    """Repeat noise: standard deviation between repeats on a dataset, pooled over the `settings` that have repeats."""

    dataset: str
    metric: str
    spread: float
    settings: int
    runs: int


@dataclass(frozen=True)
class Paired:
    """Differences between two rows, one per split (or per training seed, if the test set is fixed).

    `ratio` is n_test/n_train for the correction of overlapping splits; 0 for a fixed test set.
    """

    differences: tuple[float, ...]
    ratio: float
    fixed: bool

    @property
    def estimate(self) -> Estimate:
        """Their mean with its interval."""
        return estimate(self.differences, self.ratio)


def repeats(cells: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Return every run of `frame` with the identity of one of the cells, without copies."""
    same = frame[frame["identity"].isin(set(cells["identity"])) & (frame["smoke"].isin(set(cells["smoke"])))]
    return same.drop_duplicates(["identity", "finished", "seconds", "score"])


def pool(cells: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the cells with the mean scores of their repeats, and a column `repeats` with the number of runs."""
    if cells.empty:
        return cells.assign(repeats=0)
    groups = repeats(cells, frame).groupby("identity")
    counts = groups.size()
    means = groups[list(SCORES)].mean()
    changed = {score: cells["identity"].map(means[score]) for score in SCORES}
    return cells.assign(**changed, repeats=cells["identity"].map(counts).astype(int))


def noise(cells: pd.DataFrame, frame: pd.DataFrame) -> list[Noise]:
    """Return the repeat noise of every dataset that has repeats, from runs with the cells' own settings."""
    found = []
    runs = repeats(cells, frame).dropna(subset=["score"])
    for (dataset, metric), own in runs.groupby(["dataset", "metric"]):
        groups = own.groupby("identity")["score"]
        sizes = groups.size()
        several = sizes[sizes > 1]
        if several.empty:
            continue
        squares = (groups.var(ddof=1)[several.index] * (several - 1)).sum()
        spread = float(np.sqrt(squares / (several - 1).sum()))
        found.append(Noise(str(dataset), str(metric), spread, len(several), int(several.sum())))
    return found


def paired(runs: pd.DataFrame, better: str, than: str, metric: str, dataset: str) -> Paired:
    """Return the differences of two rows over equal splits and seeds, positive if `better` is better."""
    own = runs[runs["dataset"] == dataset]
    if metric not in runs or own.empty:
        return Paired((), 0.0, False)
    sides = [own[own["row"] == row] for row in (better, than)]
    first, second = (
        {(str(split), seed): float(value) for split, seed, value in zip(s["split"], s["seed"], s[metric], strict=True)}
        for s in sides
    )
    ratio = float((sides[0]["n_test"] / sides[0]["n_train"]).mean()) if first else 0.0
    sign = _sign(metric, str(own["direction"].iloc[0]))
    return matched(first, second, sign, ratio, fixed=str(own["split_kind"].iloc[0]) in FIXED_TEST)


def matched(better: Units, than: Units, sign: int, ratio: float, *, fixed: bool) -> Paired:
    """Return the differences of two rows' values over equal splits and seeds, times `sign`.

    `ratio` is n_test/n_train. `fixed`: whether all splits have the same test set; a single split with several training
    seeds counts as such too.
    """
    gaps: dict[str, list[float]] = {}
    for unit in sorted(better.keys() & than.keys()):
        gap = sign * (better[unit] - than[unit])
        if np.isfinite(gap):
            gaps.setdefault(unit[0], []).append(gap)
    return averaged(gaps, ratio, fixed=fixed)


def averaged(values: Mapping[str, Sequence[float]], ratio: float, *, fixed: bool) -> Paired:
    """Return one value per split, the mean over its training seeds; with a fixed test set one per training seed."""
    if fixed or (len(values) == 1 and len(next(iter(values.values()))) > 1):
        return Paired(tuple(float(value) for own in values.values() for value in own), 0.0, True)
    return Paired(tuple(float(np.mean(own)) for own in values.values()), ratio, False)


def _sign(metric: str, direction: str) -> int:
    if metric in SCORES:
        return 1 if direction == "max" else -1
    return -1 if metric in LESS_IS_BETTER else 1
