"""Whether the paper's claims hold in our runs: differences paired by dataset, fold and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from molsam.report import published
from molsam.report.specs import Claim
from molsam.report.table import Table

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95
LESS_IS_BETTER = ("seconds_per_epoch", "seconds", "gradient_passes", "passes_per_step")


@dataclass(frozen=True)
class Check:
    """A claim on one dataset.

    `mean` is the mean paired difference, positive where the claim is right (errors and times are turned
    round), with its confidence interval (`low`, `high`, None below two pairs); `paper` is the same
    difference of the printed means.
    """

    claim: Claim
    dataset: str
    n: int
    mean: float | None
    low: float | None
    high: float | None
    paper: float | None

    @property
    def holds(self) -> bool | None:
        """Whether the mean difference has the claimed sign; None without pairs."""
        return None if self.mean is None else self.mean > 0

    @property
    def clear(self) -> bool:
        """Whether the confidence interval leaves zero out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def verdict(self) -> str:
        """In words."""
        if self.holds is None:
            return "no pair of cells"
        if self.clear:
            return "holds" if self.holds else "the opposite holds"
        return "holds in the mean" if self.holds else "does not hold"


def check(table: Table) -> list[Check]:
    """Every claim of a table on every dataset."""
    return [
        _check(table, claim, dataset)
        for claim in table.spec.claims
        for dataset in claim.datasets or table.spec.datasets
    ]


def interval(differences: Sequence[float]) -> tuple[float | None, float | None]:
    """The 95 % confidence interval of a mean by Student's t; (None, None) below two values."""
    from scipy.stats import t

    n = len(differences)
    if n < 2:
        return None, None
    mean, error = float(np.mean(differences)), float(np.std(differences, ddof=1)) / np.sqrt(n)
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return mean - half, mean + half


def paired(runs: pd.DataFrame, claim: Claim, dataset: str) -> list[float]:
    """Differences of a claim's rows in the folds and seeds that both have, positive where it is right."""
    if claim.metric not in runs:
        return []
    own = runs[runs["dataset"] == dataset]
    sides = [own[own["row"] == row].set_index(["fold", "seed"]) for row in (claim.better, claim.than)]
    pairs = sides[0].join(sides[1], how="inner", lsuffix="_better", rsuffix="_than")
    sign = _sign(claim.metric, str(own["direction"].iloc[0]) if len(own) else "max")
    found = sign * (pairs[f"{claim.metric}_better"].astype(float) - pairs[f"{claim.metric}_than"].astype(float))
    return [float(value) for value in found.sort_index() if np.isfinite(value)]


def _check(table: Table, claim: Claim, dataset: str) -> Check:
    differences = paired(table.runs, claim, dataset)
    low, high = interval(differences)
    mean = float(np.mean(differences)) if differences else None
    return Check(claim, dataset, len(differences), mean, low, high, _paper(table, claim, dataset))


def _paper(table: Table, claim: Claim, dataset: str) -> float | None:
    if claim.metric not in table.spec.columns:
        return None
    numbers = [table.entry(row, dataset, claim.metric).paper for row in (claim.better, claim.than)]
    if numbers[0] is None or numbers[1] is None:
        return None
    direction = "min" if published.is_error(dataset) else "max"
    return _sign(claim.metric, direction) * (numbers[0].mean - numbers[1].mean)


def _sign(metric: str, direction: str) -> int:
    if metric == "score":
        return 1 if direction == "max" else -1
    return -1 if metric in LESS_IS_BETTER else 1
