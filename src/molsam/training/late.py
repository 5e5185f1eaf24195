"""The late score of a run: the mean test metric over its last epochs, without any selection of an epoch."""

from __future__ import annotations

SHARE, LEAST = 5, 3
"""The last fifth of the epochs, but at least three."""


def last_epochs(epochs: int) -> range:
    """Return the epochs (from 0) that the late score of a run of `epochs` epochs averages."""
    return range(max(epochs - max(LEAST, -(-epochs // SHARE)), 0), epochs)


def late_score(tests: dict[int, float], epochs: int) -> float | None:
    """Return the mean test metric over the last epochs of a run of `epochs` epochs.

    None if one of them was not evaluated (because the run stopped early), or if there are too few.
    """
    last = last_epochs(epochs)
    if len(last) < LEAST or any(epoch not in tests for epoch in last):
        return None
    return sum(tests[epoch] for epoch in last) / len(last)
