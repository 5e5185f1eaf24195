"""The late score of a run: the mean test metric over its last epochs, which no choice of an epoch has touched."""

from __future__ import annotations

SHARE, LEAST = 5, 3
"""The last fifth of the epochs, and three at least."""


def last_epochs(epochs: int) -> range:
    """The epochs (from 0) of a run of so many that its late score is about."""
    return range(max(epochs - max(LEAST, -(-epochs // SHARE)), 0), epochs)


def late_score(tests: dict[int, float], epochs: int) -> float | None:
    """The mean of the test metric over the last epochs of a run that ended after `epochs`.

    None if one of them was not evaluated (the run stopped early), or there are too few.
    """
    last = last_epochs(epochs)
    if len(last) < LEAST or any(epoch not in tests for epoch in last):
        return None
    return sum(tests[epoch] for epoch in last) / len(last)
