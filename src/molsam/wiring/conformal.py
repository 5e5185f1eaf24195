"""Split conformal prediction: intervals and sets of classes from a run's validation part.

Source: Vovk, Gammerman and Shafer 2005; Lei and others, J. Am. Stat. Assoc. 2018, algorithm 2.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from molsam.errors import ConfigError, StorageError
from molsam.tracking.plots import BOUND

VALID = "valid_predictions.csv"
OF_TRUTH = "probability_of_target"
"""Its column with the probability of the true one of several classes."""


def scores(folders: Sequence[Path], task: str, names: Sequence[str]) -> list[np.ndarray]:
    """Return how far the runs' predictions are from the labels of their validation parts, of each task [n].

    Regression: absolute errors; labels that are bounds have none. Classes: 1 - probability of the true class. Those of
    several runs are pooled.
    Raises StorageError if a run has none.
    """
    found: dict[str, list[float]] = {name: [] for name in names}
    for folder in folders:
        try:
            with (folder / VALID).open(newline="", encoding="utf-8") as file:
                for line in csv.DictReader(file):
                    if line["target"] and not line.get(BOUND):
                        found[line["task"]].append(_score(task, line))
        except (OSError, KeyError, ValueError, TypeError) as error:
            raise StorageError(
                f"{folder / VALID} cannot be read ({type(error).__name__}: {error}); intervals need the validation "
                "predictions that a run writes at its end, so train it again."
            ) from error
    return [np.array(values) for values in found.values()]


def _score(task: str, line: dict[str, str]) -> float:
    if task == "multiclass":
        return 1 - float(line[OF_TRUTH])
    target, prediction = float(line["target"]), float(line["prediction"])
    if task == "regression":
        return abs(target - prediction)
    return 1 - (prediction if target else 1 - prediction)


def radius(values: np.ndarray, coverage: float) -> float:
    """Return the ceil((n + 1) coverage)-th smallest of n scores; infinite if n is too small for this coverage.

    A new molecule exchangeable with those n has a score of at most this with probability `coverage` or more.
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"--interval={coverage} is not a coverage; give a number between 0 and 1, such as 0.9.")
    rank = math.ceil((len(values) + 1) * coverage)
    return math.inf if rank > len(values) else float(np.partition(values, rank - 1)[rank - 1])
