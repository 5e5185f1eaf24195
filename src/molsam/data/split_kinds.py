"""Splits at random, by labels, by time, by a column or by files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from molsam.errors import ConfigError, DataError

Parts = list[np.ndarray]
"""rows of train, valid and test"""


def group_by(keys: Sequence[str] | None, count: int) -> list[np.ndarray]:
    """Return the groups of rows that must stay together: rows of equal keys, or each row alone without keys.

    Groups are in the order of first appearance.
    """
    if keys is None:
        return [np.array([row]) for row in range(count)]
    found: dict[str, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        found[key].append(row)
    return [np.array(rows) for rows in found.values()]


def random_split(groups: Sequence[np.ndarray], share: tuple[float, float], seed: int, fold: int) -> Parts:
    """Return floor(train n) and floor(valid n) random groups, and the rest for test; each (seed, fold) differs."""
    order = np.random.default_rng([seed, fold, 0]).permutation(len(groups))
    first = int(share[0] * len(groups) + 1e-9)
    second = first + int(share[1] * len(groups) + 1e-9)
    return [_rows(groups, order[a:b]) for a, b in ((0, first), (first, second), (second, len(groups)))]


def kfold_split(
    groups: Sequence[np.ndarray], folds: int, valid: float, seed: int, fold: int, strata: np.ndarray | None = None
) -> Parts:
    """Return one fold of a k-fold split: test is block `fold` of one shuffle, valid a random share of the rest.

    The test parts of all folds are disjoint. With `strata` (see `strata_of`) each stratum is spread evenly over the
    blocks.
    """
    if not 0 <= fold < folds:
        raise ConfigError(f"split.fold={fold} does not exist; with split.folds={folds} use 0 to {folds - 1}.")
    if folds < 2:
        raise ConfigError(f"split.folds={folds} leaves nothing to train on; use 2 or more.")
    if len(groups) < folds:
        raise DataError(
            f"{len(groups)} molecules are too few for split.folds={folds}; give more molecules or fewer folds."
        )
    shuffled = np.random.default_rng([seed, 1]).permutation(len(groups))
    if strata is None:
        blocks = np.array_split(shuffled, folds)
    else:
        shuffled = shuffled[np.argsort(strata[shuffled], kind="stable")]
        blocks = [shuffled[start::folds] for start in range(folds)]
    rest = np.concatenate([block for i, block in enumerate(blocks) if i != fold])
    rng = np.random.default_rng([seed, fold, 4])
    if strata is None:
        chosen = rng.permutation(len(rest)) < max(int(valid * len(rest) + 1e-9), 1)
    else:
        order = rng.permutation(len(rest))
        order = order[np.argsort(strata[rest][order], kind="stable")]
        chosen = np.zeros(len(rest), dtype=bool)
        chosen[order[_dealt(len(rest), (1 - valid, valid), rng) == 1]] = True
    return [_rows(groups, some) for some in (rest[~chosen], rest[chosen], blocks[fold])]


def stratified_split(
    groups: Sequence[np.ndarray], strata: np.ndarray, share: tuple[float, float], seed: int, fold: int
) -> Parts:
    """Return parts that contain each stratum in the same proportion, to within one group."""
    rng = np.random.default_rng([seed, fold, 5])
    order = rng.permutation(len(groups))
    order = order[np.argsort(strata[order], kind="stable")]
    dealt = _dealt(len(order), (*share, 1 - sum(share)), rng)
    return [_rows(groups, order[dealt == part]) for part in range(3)]


def strata_of(dataset: Any, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Return int64 [G], the rank of each group by its labels; groups with similar labels have neighbouring ranks.

    Classes are ranked by the task with the rarest class first, so that its few positives are spread evenly. Values of a
    regression are ranked by size.
    """
    first = np.array([rows[0] for rows in groups])
    labels = np.where(np.isnan(dataset.targets[first]), -np.inf, dataset.targets[first])
    rarity = [min(np.unique(column[column > -np.inf], return_counts=True)[1], default=0) for column in labels.T]
    if dataset.task == "regression":
        return np.argsort(np.argsort(labels[:, 0], kind="stable"), kind="stable")
    keys = np.lexsort([labels[:, task] for task in np.argsort(rarity)[::-1]])
    ordered = labels[keys]
    ranks = np.empty(len(keys), dtype=np.int64)
    ranks[keys] = np.concatenate([[0], np.cumsum((ordered[1:] != ordered[:-1]).any(1))])
    return ranks


def _dealt(count: int, shares: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """Return int64 [count], a part for each position, such that any stretch of positions has the given shares.

    The shares are kept to within one.
    """
    owed, dealt = rng.random(len(shares)) * np.array(shares), np.zeros(count, dtype=np.int64)
    for place in range(count):
        owed += shares
        dealt[place] = owed.argmax()
        owed[dealt[place]] -= 1
    return dealt


def time_split(groups: Sequence[np.ndarray], times: np.ndarray, share: tuple[float, float]) -> Parts:
    """Return the oldest groups for train and the newest for test; equal times are in the order of the file.

    A group is as old as its newest molecule.
    """
    order = np.argsort([times[rows].max() for rows in groups], kind="stable")
    first = int(share[0] * len(groups) + 1e-9)
    second = first + int(share[1] * len(groups) + 1e-9)
    return [_rows(groups, order[a:b]) for a, b in ((0, first), (first, second), (second, len(groups)))]


def files_split(groups: Sequence[np.ndarray], parts: np.ndarray | None, valid: float, seed: int, fold: int) -> Parts:
    """Return the files as parts; a part without a file is a random share `valid` of the training file."""
    if parts is None:
        raise ConfigError(
            "split=files needs a file for test; give dataset.test_path=FILE, and dataset.valid_path=FILE if there is "
            "one."
        )
    found = [np.flatnonzero(parts == part) for part in range(3)]
    rng = np.random.default_rng([seed, fold, 6])
    for part in (2, 1):
        if not len(found[part]):
            own = [np.intersect1d(rows, found[0]) for rows in groups]
            own = [rows for rows in own if len(rows)]
            count = max(int(valid * len(own) + 1e-9), 1)
            found[part] = _rows(own, rng.permutation(len(own))[:count])
            found[0] = np.setdiff1d(found[0], found[part])
    return found


def official_split(trains: int, tests: int, share: float, seed: int, fold: int) -> list[np.ndarray]:
    """Return the last `tests` rows as test, and floor(share n) random ones of the n = `trains` before them as valid."""
    if not 0 < share < 1:
        raise ConfigError(f"split.valid={share} must be a share of the training files, between 0 and 1, such as 0.1.")
    order = np.random.default_rng([seed, fold, 3]).permutation(trains)
    count = int(share * trains + 1e-9)
    return [order[count:], order[:count], np.arange(trains, trains + tests)]


def parts_of(names: Sequence[str], column: str, where: Callable[[int], str]) -> np.ndarray:
    """Return int64 [M], the part of each row, by the words train, valid (or val, validation) and test in a column."""
    words = {"train": 0, "training": 0, "valid": 1, "val": 1, "validation": 1, "test": 2}
    parts = np.empty(len(names), dtype=np.int64)
    for row, name in enumerate(names):
        place = words.get(name.strip().lower())
        if place is None:
            raise DataError(
                f"{where(row)}, column {column!r}: {name[:60]!r} is not a part of a split; write train, valid or test."
            )
        parts[row] = place
    return parts


def _rows(groups: Sequence[np.ndarray], chosen: np.ndarray) -> np.ndarray:
    return np.concatenate([groups[g] for g in chosen]) if len(chosen) else np.array([], dtype=np.int64)
