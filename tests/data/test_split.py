"""Splits: pure functions of their inputs, every row once, groups whole, leakage counted."""

from __future__ import annotations

import functools
import operator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from molsam.data.scaler import TargetScaler
from molsam.data.split import Split, kfold_split, make_split, random_split, scaffold_split
from molsam.errors import ConfigError, DataError
from tests.data.helpers import load_rows

RANDOM: dict[str, Any] = {"kind": "random", "fractions": [0.8, 0.1, 0.1]}
SCAFFOLD: dict[str, Any] = {"kind": "scaffold", "fractions": [0.6, 0.2, 0.2], "balanced": True}
# 20 molecules, of which the last six repeat the first three.
ALKANES = [("C" * n, n) for n in range(1, 15)] + [("C", 1), ("CC", 2), ("CCC", 3)] * 2
RINGS = [
    (f"{tail}{ring}", i)
    for i, (ring, tail) in enumerate(
        [("C1CC1", "C" * n) for n in range(6)] + [("C1CCC1", "O" + "C" * n) for n in range(3)]
        + [(f"C1{'C' * n}1", "") for n in range(4, 12)] + [("c1ccccc1", "C"), ("c1ccncc1", "C"), ("CCO", "")]
    )
]  # fmt: skip


def singles(n: int) -> list[np.ndarray]:
    return [np.array([row]) for row in range(n)]


def parts(split: Split) -> list[list[int]]:
    return [part.tolist() for part in (split.train, split.valid, split.test)]


def assert_partition(split: Split, n: int) -> None:
    assert sorted(functools.reduce(operator.iadd, parts(split), [])) == list(range(n))
    assert all(part == sorted(part) for part in parts(split))


def test_random_sizes() -> None:
    for n in (10, 11, 19, 1128, 2039, 4200):
        train, valid, test = random_split(singles(n), (0.8, 0.1), seed=0, fold=0)
        assert (len(train), len(valid)) == (n * 8 // 10, n // 10)
        assert sorted([*train, *valid, *test]) == list(range(n))


def test_random_depends_on_seed_and_fold_alone(tmp_path: Path) -> None:
    data = load_rows(tmp_path, ALKANES)
    drawn = {(s, f): make_split(data, RANDOM, seed=s, fold=f) for s in range(3) for f in range(3)}
    np.random.seed(5)  # noqa: NPY002 - no global state may matter
    for (seed, fold), split in drawn.items():
        assert_partition(split, 20)
        assert parts(make_split(data, RANDOM, seed=seed, fold=fold)) == parts(split)
    assert len({split.hash for split in drawn.values()}) == 9


def test_the_first_split_stays_what_it_is() -> None:
    """Stored splits and published numbers of this project depend on it."""
    train, valid, test = random_split(singles(20), (0.8, 0.1), seed=0, fold=0)
    order = np.random.Generator(np.random.PCG64(np.random.SeedSequence([0, 0, 0]))).permutation(20)
    assert [*train, *valid, *test] == order.tolist()


def test_kfold_covers_every_row_once(tmp_path: Path) -> None:
    data = load_rows(tmp_path, ALKANES)
    settings = {"kind": "kfold", "folds": 5}
    splits = [make_split(data, settings, seed=3, fold=fold) for fold in range(5)]
    for split in splits:
        assert_partition(split, 20)
        assert [len(part) for part in parts(split)] == [12, 4, 4]
    assert sorted(functools.reduce(operator.iadd, (parts(s)[2] for s in splits), [])) == list(range(20))
    assert sorted(functools.reduce(operator.iadd, (parts(s)[1] for s in splits), [])) == list(range(20))
    assert parts(make_split(data, settings, seed=4, fold=0)) != parts(splits[0])


def test_fewer_molecules_than_folds() -> None:
    with pytest.raises(DataError, match=r"4 molecules are too few for split\.folds=5"):
        kfold_split(singles(4), 5, 0, 0)


@pytest.mark.parametrize(("folds", "fold"), [(5, 5), (5, -1), (2, 0)])
def test_folds_that_do_not_exist(folds: int, fold: int) -> None:
    with pytest.raises(ConfigError, match=r"split\.folds=\d"):
        kfold_split(singles(20), folds, 0, fold)


def test_leakage_is_counted(tmp_path: Path) -> None:
    data = load_rows(tmp_path, ALKANES)
    for seed in range(5):
        split = make_split(data, RANDOM, seed=seed, fold=0)
        known = {data.canonical[row] for row in split.train}
        assert split.leaked == sum(data.canonical[row] in known for row in [*split.valid, *split.test])
    assert any(make_split(data, RANDOM, seed=seed, fold=0).leaked for seed in range(5))


@pytest.mark.parametrize("settings", [RANDOM, {"kind": "kfold", "folds": 4}, SCAFFOLD], ids=lambda s: s["kind"])
def test_groups_are_never_separated(tmp_path: Path, settings: dict[str, Any]) -> None:
    data = load_rows(tmp_path, ALKANES if settings["kind"] != "scaffold" else RINGS + RINGS[:5], duplicates="group")
    for seed in range(8):
        split = make_split(data, settings, seed=seed, fold=seed % 4)
        assert_partition(split, len(data))
        assert split.leaked == 0
        sides = [{data.canonical[row] for row in part} for part in parts(split)]
        assert not sides[0] & sides[1] and not sides[1] & sides[2] and not sides[0] & sides[2]  # noqa: PT018


def test_scaffolds_are_never_separated(tmp_path: Path) -> None:
    from molsam.chem.molecule import parse
    from molsam.chem.scaffold import scaffold

    data = load_rows(tmp_path, RINGS)
    names = [scaffold(parse(smiles)) for smiles in data.smiles]
    assert len(set(names)) == 13
    splits = [make_split(data, SCAFFOLD, seed=seed, fold=0) for seed in range(5)]
    for split in splits:
        assert_partition(split, len(data))
        sides = [{names[row] for row in part} for part in parts(split)]
        assert sum(map(len, sides)) == 13
    assert len({split.hash for split in splits}) > 1
    assert parts(make_split(data, SCAFFOLD, seed=0, fold=0)) == parts(splits[0])
    by_size = {**SCAFFOLD, "balanced": False}
    fixed = [make_split(data, by_size, seed=seed, fold=seed) for seed in range(3)]
    assert len({split.hash for split in fixed}) == 1
    assert set(range(9)) <= set(fixed[0].train.tolist()), "the two large scaffolds go to train"


def test_scaffolds_by_size() -> None:
    names = ["a"] * 5 + ["b"] * 3 + ["c"] * 1 + ["d"] * 1
    train, valid, test = scaffold_split(names, (0.6, 0.2), balanced=False, seed=0, fold=0)
    # a fills train to 5 of 6; b fits nowhere but in test; c fills train, d valid.
    assert (train.tolist(), valid.tolist(), test.tolist()) == ([0, 1, 2, 3, 4, 8], [9], [5, 6, 7])


def test_large_scaffolds_do_not_fill_valid_or_test() -> None:
    names = ["a"] * 3 + ["b"] * 3 + [str(n) for n in range(14)]
    for seed in range(20):
        train, valid, test = scaffold_split(names, (0.6, 0.2), balanced=True, seed=seed, fold=0)
        assert set(range(6)) <= set(train.tolist())
        assert (len(train), len(valid), len(test)) == (12, 4, 4)


def test_a_column_may_say_it(tmp_path: Path) -> None:
    rows = [("C", 1, "train"), ("C(", 2, "test"), ("CC", 3, " Test "), ("CCC", 4, "val"), ("CCCC", 5, "training")]
    settings = {"kind": "predefined", "column": "part"}
    data = load_rows(tmp_path, rows, "smiles,y,part", targets=["y"])
    assert parts(make_split(data, settings, seed=0, fold=0)) == [[0, 3], [2], [1]]
    with pytest.raises(DataError, match="has no column 'split'"):
        make_split(data, {"kind": "predefined", "column": "split"}, seed=0, fold=0)
    data = load_rows(tmp_path, [*rows, ("O", 1, "holdout")], "smiles,y,part", targets=["y"])
    with pytest.raises(
        DataError, match=r"row 5 \(line 7\), column 'part': 'holdout' is no part of a split; write train, valid"
    ):
        make_split(data, settings, seed=0, fold=0)


@pytest.mark.parametrize("kind", ["random", "scaffold"])
def test_too_few_molecules_are_refused(tmp_path: Path, kind: str) -> None:
    settings = {"kind": kind, "fractions": [0.8, 0.1, 0.1], "balanced": False, "folds": 5}
    data = load_rows(tmp_path, [("C", 1), ("CC", 2), ("CCC", 3)])
    with pytest.raises(DataError, match=rf"The \w+ part of the {kind} split is empty \(3 molecules\); give more"):
        make_split(data, settings, seed=0, fold=0)


@pytest.mark.parametrize(
    "fractions", [[0.8, 0.2], [0.8, 0.1, 0.2], [1, 0, 0], [0.9, -0.1, 0.2], "abc", None, [0.8, 0.1, "x"]]
)
def test_fractions_that_cannot_be(tmp_path: Path, fractions: Any) -> None:
    data = load_rows(tmp_path, ALKANES)
    with pytest.raises(ConfigError, match=r"split\.fractions=.* must be three positive numbers that add up to 1"):
        make_split(data, {**RANDOM, "fractions": fractions}, seed=0, fold=0)


def test_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"split\.kind=butina is not a split; use random"):
        make_split(load_rows(tmp_path, ALKANES), {"kind": "butina"}, seed=0, fold=0)


def test_what_is_stored(tmp_path: Path) -> None:
    split = make_split(load_rows(tmp_path, ALKANES), RANDOM, seed=0, fold=0)
    stored = split.as_dict(np.arange(20) * 10, [f"m{i}" for i in range(20)])
    assert [stored["train"], stored["valid"], stored["test"]] == [[10 * i for i in part] for part in parts(split)]
    assert stored["ids"]["test"] == [f"m{i}" for i in split.test]
    assert "ids" not in split.as_dict(np.arange(20))
    assert (stored["kind"], stored["sizes"], stored["hash"]) == ("random", [16, 2, 2], split.hash)
    moved = split._replace(train=split.train[1:], valid=np.sort([*split.valid, split.train[0]]))
    assert moved.hash != split.hash


def test_scaling() -> None:
    targets = np.array([[1.0, 7.0, np.nan], [3.0, 7.0, np.nan], [np.nan, 7.0, np.nan]])
    scaler = TargetScaler.fit(targets, "regression")
    assert scaler.mean.tolist() == [2, 7, 0]
    assert scaler.std.tolist() == [1, 1, 1]
    wide = TargetScaler.fit(targets * 10, "regression")
    np.testing.assert_allclose(wide.transform(targets * 10)[:2, 0], [-1, 1])
    np.testing.assert_allclose(wide.inverse(wide.transform(targets)), targets)
    again = TargetScaler.from_state(wide.state())
    np.testing.assert_array_equal(again.transform(targets), wide.transform(targets))
    assert isinstance(wide.state()["mean"], list)


def test_constant_targets_with_rounding_noise() -> None:
    targets = np.full((1000, 1), 0.1) + 1e-17
    assert TargetScaler.fit(targets * 1e9, "regression").std.tolist() == [1]


def test_classes_are_not_scaled() -> None:
    scaler = TargetScaler.fit(np.array([[0.0], [1.0], [1.0]]), "classification")
    assert (scaler.mean.tolist(), scaler.std.tolist()) == ([0], [1])


def test_order_of_seeds_is_not_their_sum(tmp_path: Path) -> None:
    """Seed 0 fold 1 and seed 1 fold 0 are different draws."""
    data = load_rows(tmp_path, ALKANES)
    hashes = [make_split(data, RANDOM, seed=s, fold=f).hash for s, f in ((0, 1), (1, 0), (1, 1), (0, 2))]
    assert all(a != b for a, b in pairwise(hashes))
    assert len(set(hashes)) == 4
