"""Train, valid and test: pure functions of the molecules, the settings, the seed and the fold."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from molsam.chem.molecule import parse
from molsam.chem.scaffold import scaffold
from molsam.errors import ConfigError, DataError

PARTS = ("train", "valid", "test")


class Split(NamedTuple):
    """Rows of a dataset."""

    kind: str
    train: np.ndarray
    """int64, ascending"""
    valid: np.ndarray
    test: np.ndarray
    leaked: int
    """molecules of valid and test that also stand in train (equal canonical SMILES)"""

    @property
    def hash(self) -> str:
        """Hex digest of which row is where."""
        text = "|".join(",".join(map(str, getattr(self, part))) for part in PARTS)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def summary(self) -> dict[str, Any]:
        """For result.json."""
        sizes = [len(getattr(self, part)) for part in PARTS]
        return {"kind": self.kind, "hash": self.hash, "sizes": sizes, "leaked": self.leaked}

    def as_dict(self, rows: np.ndarray, ids: Sequence[str] | None = None) -> dict[str, Any]:
        """For split.json: each part's rows of the file, and ids.

        Args:
            rows: int64 [M], the row of the file of each molecule.
            ids: of each molecule, if the file has some.
        """
        parts = {part: rows[getattr(self, part)].tolist() for part in PARTS}
        named = {} if ids is None else {"ids": {part: [ids[i] for i in getattr(self, part)] for part in PARTS}}
        return {**self.summary(), **parts, **named}


def make_split(dataset: Any, settings: Mapping[str, Any], seed: int, fold: int) -> Split:
    """The split of a dataset by the settings of conf/split; their own seed, if they have one, takes the place of `seed`.

    Raises:
        ConfigError: a setting does not fit.
        DataError: a part would be empty.
    """
    kind, own = settings["kind"], settings.get("seed")
    seed = seed if own is None else own
    groups = group_by(dataset.canonical if dataset.duplicates == "group" else None, len(dataset))
    if kind == "random":
        parts = random_split(groups, fractions(settings), seed, fold)
    elif kind == "kfold":
        parts = kfold_split(groups, settings["folds"], seed, fold)
    elif kind == "scaffold":
        scaffolds = [scaffold(parse(smiles)) for smiles in dataset.smiles]
        parts = scaffold_split(scaffolds, fractions(settings), settings["balanced"], seed, fold)
    elif kind == "predefined":
        cells = dataset.split_column(settings["column"])
        parts = predefined_split(cells, settings["column"], dataset.where)
    elif kind == "official":
        parts = official_split(len(dataset) - dataset.tests, dataset.tests, settings["valid"], seed, fold)
    else:
        raise ConfigError(f"split.kind={kind} is not a split; use random, kfold, scaffold, predefined or official.")
    for part, rows in zip(PARTS, parts, strict=True):
        if not len(rows):
            raise DataError(
                f"The {part} part of the {kind} split is empty ({len(dataset)} {dataset.noun}s); give more of "
                "them or other fractions."
            )
    train, valid, test = (np.sort(rows) for rows in parts)
    return Split(kind, train, valid, test, leaked(dataset.canonical, parts))


def fractions(settings: Mapping[str, Any]) -> tuple[float, float]:
    """(train, valid), checked; test is the rest."""
    try:
        train, valid, test = (float(share) for share in settings["fractions"])
    except (TypeError, ValueError):
        train = valid = test = 0.0
    if not (min(train, valid, test) > 0 and abs(train + valid + test - 1) < 1e-6):
        raise ConfigError(f"split.fractions={settings['fractions']} must be three positive numbers that add up to 1.")
    return train, valid


def group_by(keys: Sequence[str] | None, count: int) -> list[np.ndarray]:
    """Rows that must stay together: one group a row, or equal keys; in order of first appearance."""
    if keys is None:
        return [np.array([row]) for row in range(count)]
    found: dict[str, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        found[key].append(row)
    return [np.array(rows) for rows in found.values()]


def random_split(groups: Sequence[np.ndarray], share: tuple[float, float], seed: int, fold: int) -> list[np.ndarray]:
    """floor(train n) and floor(valid n) groups at random, the rest for test; another draw for every (seed, fold)."""
    order = np.random.default_rng([seed, fold, 0]).permutation(len(groups))
    first = int(share[0] * len(groups) + 1e-9)
    second = first + int(share[1] * len(groups) + 1e-9)
    return [_rows(groups, order[a:b]) for a, b in ((0, first), (first, second), (second, len(groups)))]


def kfold_split(groups: Sequence[np.ndarray], folds: int, seed: int, fold: int) -> list[np.ndarray]:
    """Test is block `fold` of one shuffle, valid the next block, train the rest; the tests of all folds are disjoint."""
    if not 0 <= fold < folds:
        raise ConfigError(f"split.fold={fold} does not exist; with split.folds={folds} use 0 to {folds - 1}.")
    if folds < 3:
        raise ConfigError(f"split.folds={folds} leaves no training part beside valid and test; use 3 or more.")
    if len(groups) < folds:
        raise DataError(
            f"{len(groups)} molecules are too few for split.folds={folds}; give more molecules or fewer folds."
        )
    blocks = np.array_split(np.random.default_rng([seed, 1]).permutation(len(groups)), folds)
    valid = (fold + 1) % folds
    train = np.concatenate([block for i, block in enumerate(blocks) if i not in (fold, valid)])
    return [_rows(groups, chosen) for chosen in (train, blocks[valid], blocks[fold])]


def scaffold_split(
    scaffolds: Sequence[str], share: tuple[float, float], balanced: bool, seed: int, fold: int
) -> list[np.ndarray]:
    """Whole scaffolds, large ones first into train, then valid, then test.

    balanced: scaffolds of more than half the size of valid or test go to train, the others in random order
    (so that seeds and folds differ), as in chemprop's and GROVER's scaffold_balanced.
    """
    sets = sorted(group_by(scaffolds, len(scaffolds)), key=lambda rows: (-len(rows), rows[0]))
    total = len(scaffolds)
    sizes = [share[0] * total, share[1] * total]
    if balanced:
        limit = min(sizes[1], total - sum(sizes)) / 2
        large, small = [s for s in sets if len(s) > limit], [s for s in sets if len(s) <= limit]
        rng = np.random.default_rng([seed, fold, 2])
        sets = [s for group in (large, small) for s in (group[i] for i in rng.permutation(len(group)))]
    parts: list[list[np.ndarray]] = [[], [], []]
    filled = [0, 0]
    for rows in sets:
        place = next((p for p in (0, 1) if filled[p] + len(rows) <= sizes[p] + 1e-9), 2)
        parts[place].append(rows)
        if place < 2:
            filled[place] += len(rows)
    return [np.concatenate(part) if part else np.array([], dtype=np.int64) for part in parts]


def official_split(trains: int, tests: int, share: float, seed: int, fold: int) -> list[np.ndarray]:
    """The last rows are the test part; floor(share n) of the n before them, at random, are for validation."""
    if not 0 < share < 1:
        raise ConfigError(f"split.valid={share} must be a share of the training files, between 0 and 1.")
    order = np.random.default_rng([seed, fold, 3]).permutation(trains)
    count = int(share * trains + 1e-9)
    return [order[count:], order[:count], np.arange(trains, trains + tests)]


def predefined_split(names: Sequence[str], column: str, where: Callable[[int], str]) -> list[np.ndarray]:
    """Rows by the words train, valid (or val, validation) and test in a column of the file."""
    words = {"train": 0, "training": 0, "valid": 1, "val": 1, "validation": 1, "test": 2}
    parts: list[list[int]] = [[], [], []]
    for row, name in enumerate(names):
        place = words.get(name.strip().lower())
        if place is None:
            raise DataError(
                f"{where(row)}, column {column!r}: {name[:60]!r} is no part of a split; write train, valid or test."
            )
        parts[place].append(row)
    return [np.array(part, dtype=np.int64) for part in parts]


def leaked(canonical: Sequence[str], parts: Sequence[np.ndarray]) -> int:
    """Molecules of valid and test with an equal one in train."""
    known = {canonical[row] for row in parts[0]}
    return sum(canonical[row] in known for part in parts[1:] for row in part)


def _rows(groups: Sequence[np.ndarray], chosen: np.ndarray) -> np.ndarray:
    return np.concatenate([groups[g] for g in chosen]) if len(chosen) else np.array([], dtype=np.int64)
