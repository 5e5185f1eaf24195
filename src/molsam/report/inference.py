"""Intervals, p values and power for differences measured on overlapping splits.

Splits of one dataset share most of their training molecules, so their differences are correlated and the naive
standard error is too small. Nadeau and Bengio (2003) correct it: the variance of a mean over n splits is
s^2 (1/n + n_test/n_train). That quotient is `ratio` here; it is 0 for a fixed test set, which gives Student's interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.05
"""Significance level, two-sided."""
POWER = 0.8
"""Power: probability that a planned number of splits detects a true difference."""
MOST = 10_000
"""Largest number of splits that is considered."""


@dataclass(frozen=True)
class Estimate:
    """A mean of n differences with its corrected 95 % interval.

    `spread` is their standard deviation (ddof 1), `error` the standard error of the mean, and `p` the two-sided p value
    for a mean of zero. Below two differences all but `n` and `mean` are None; without any `mean` is None too.
    """

    n: int
    mean: float | None
    spread: float | None = None
    error: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None


def estimate(differences: Sequence[float], ratio: float) -> Estimate:
    """Return the mean of the differences with the corrected resampled t interval; `ratio` is n_test/n_train."""
    from scipy.stats import t

    n = len(differences)
    if n < 2:
        return Estimate(n, float(differences[0]) if n else None)
    mean, spread = float(np.mean(differences)), float(np.std(differences, ddof=1))
    error = standard_error(spread, n, ratio)
    half = float(t.ppf(1 - LEVEL / 2, n - 1)) * error
    if error:
        p = float(2 * t.sf(abs(mean) / error, n - 1))
    else:
        p = 1.0 if mean == 0 else 0.0
    return Estimate(n, mean, spread, error, mean - half, mean + half, p)


def standard_error(spread: float, n: int, ratio: float) -> float:
    """Return the standard error of a mean over n splits."""
    return spread * math.sqrt(1 / n + ratio)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return the p values corrected by Holm's method (1979); None values are skipped."""
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        found[place] = largest
    return found


def power(effect: float, spread: float, n: int, ratio: float, level: float = LEVEL) -> float:
    """Return the probability that n splits detect a true difference `effect` > 0, by the noncentral t distribution."""
    from scipy.stats import nct, t

    shift = effect / standard_error(spread, n, ratio)
    return float(nct.sf(t.ppf(1 - level / 2, n - 1), n - 1, shift))


def splits_for(effect: float, spread: float, ratio: float, level: float = LEVEL) -> int | None:
    """Return the number of splits that detect a difference `effect` > 0 with power 0.8; None if no number can."""
    if spread == 0:
        return 2
    return _smallest(lambda n: power(effect, spread, n, ratio, level) >= POWER)


def splits_for_equality(margin: float, spread: float, ratio: float) -> int | None:
    """Return the number of splits for which two equal rows' interval is within +-margin with power 0.8, or None."""
    from scipy.stats import t

    if spread == 0:
        return 2
    side = 1 - (1 - POWER) / 2  # either end of the interval may leave the margin
    return _smallest(
        lambda n: (t.ppf(1 - LEVEL / 2, n - 1) + t.ppf(side, n - 1)) * standard_error(spread, n, ratio) <= margin
    )


def _smallest(enough: Callable[[int], bool]) -> int | None:
    """Return the smallest n from 2 to MOST that is enough, by bisection; None if MOST is not enough."""
    low, high = 2, MOST
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
