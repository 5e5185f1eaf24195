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
from molsam.data.split import Split, make_split
from molsam.data.split_groups import clusters, deepchem_split, scaffold_split
from molsam.data.split_kinds import kfold_split, random_split, stratified_split, time_split
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
    settings = {"kind": "kfold", "folds": 5, "valid": 0.25}
    splits = [make_split(data, settings, seed=3, fold=fold) for fold in range(5)]
    for split in splits:
        assert_partition(split, 20)
        assert [len(part) for part in parts(split)] == [12, 4, 4]
    assert sorted(functools.reduce(operator.iadd, (parts(s)[2] for s in splits), [])) == list(range(20))
    assert parts(make_split(data, settings, seed=4, fold=0)) != parts(splits[0])


def test_fewer_molecules_than_folds() -> None:
    with pytest.raises(DataError, match=r"4 molecules are too few for split\.folds=5"):
        kfold_split(singles(4), 5, 0.1, 0, 0)


@pytest.mark.parametrize(("folds", "fold"), [(5, 5), (5, -1), (1, 0)])
def test_folds_that_do_not_exist(folds: int, fold: int) -> None:
    with pytest.raises(ConfigError, match=r"split\.folds=\d"):
        kfold_split(singles(20), folds, 0.1, 0, fold)


def test_leakage_is_counted(tmp_path: Path) -> None:
    data = load_rows(tmp_path, ALKANES)
    for seed in range(5):
        split = make_split(data, RANDOM, seed=seed, fold=0)
        known = {data.canonical[row] for row in split.train}
        assert split.leaked == sum(data.canonical[row] in known for row in [*split.valid, *split.test])
    assert any(make_split(data, RANDOM, seed=seed, fold=0).leaked for seed in range(5))


@pytest.mark.parametrize(
    "settings", [RANDOM, {"kind": "kfold", "folds": 4, "valid": 0.2}, SCAFFOLD], ids=lambda s: s["kind"]
)
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
    with pytest.raises(DataError, match=r"^split\.column=split: .*has no column 'split'"):
        make_split(data, {"kind": "predefined", "column": "split"}, seed=0, fold=0)
    data = load_rows(tmp_path, [*rows, ("O", 1, "holdout")], "smiles,y,part", targets=["y"])
    with pytest.raises(
        DataError, match=r"row 5 \(line 7\), column 'part': 'holdout' is not a part of a split; write train, valid"
    ):
        make_split(data, settings, seed=0, fold=0)


@pytest.mark.parametrize("kind", ["random", "scaffold"])
def test_too_few_molecules_are_refused(tmp_path: Path, kind: str) -> None:
    settings = {"kind": kind, "fractions": [0.8, 0.1, 0.1], "balanced": False, "folds": 5}
    data = load_rows(tmp_path, [("C", 1), ("CC", 2), ("CCC", 3)])
    with pytest.raises(
        DataError, match=rf"The \w+ part of the {kind} split is empty \(3 molecules\); give more|without rings has 3"
    ):
        make_split(data, settings, seed=0, fold=0)


@pytest.mark.parametrize(
    "fractions", [[0.8, 0.2], [0.8, 0.1, 0.2], [1, 0, 0], [0.9, -0.1, 0.2], "abc", None, [0.8, 0.1, "x"]]
)
def test_fractions_that_cannot_be(tmp_path: Path, fractions: Any) -> None:
    data = load_rows(tmp_path, ALKANES)
    with pytest.raises(ConfigError, match=r"split\.fractions=.* must be three positive numbers that add up to 1"):
        make_split(data, {**RANDOM, "fractions": fractions}, seed=0, fold=0)


def test_an_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"split\.kind=butina is not a split; use random, kfold, stratified, scaffold, cluster, time"
    ):
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


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_kfold_tests_a_kth_and_validates_a_share_of_the_rest(folds: int) -> None:
    for fold in range(folds):
        train, valid, test = kfold_split(singles(60), folds, 0.1, seed=1, fold=fold)
        rest = 60 - 60 // folds
        assert (len(test), len(valid), len(train)) == (60 // folds, rest // 10, rest - rest // 10)
    valids = [kfold_split(singles(60), folds, 0.1, seed=1, fold=fold)[1].tolist() for fold in range(folds)]
    assert len({str(valid) for valid in valids}) == folds


def test_strata_are_shared_out_evenly(tmp_path: Path) -> None:
    """Rare positives of several tasks, in every part and every fold as many as its share, to within one."""
    rng = np.random.default_rng(0)
    rows = [("C" * (1 + i % 40) + "O" * (i // 40), int(i % 10 == 0), int(rng.random() < 0.4)) for i in range(200)]
    data = load_rows(tmp_path, rows, "smiles,rare,common")
    share = {"kind": "stratified", "fractions": [0.8, 0.1, 0.1]}
    for seed in range(5):
        split = make_split(data, share, seed=seed, fold=0)
        assert_partition(split, 200)
        positives = [int(data.targets[part, 0].sum()) for part in (split.train, split.valid, split.test)]
        assert all(abs(found - wanted) <= 1 for found, wanted in zip(positives, (16, 2, 2), strict=True))
        assert [abs(len(part) - size) <= 1 for part, size in zip(parts(split), (160, 20, 20), strict=True)] == [
            True
        ] * 3
    folds = {"kind": "kfold", "folds": 5, "valid": 0.1, "stratify": True}
    splits = [make_split(data, folds, seed=0, fold=fold) for fold in range(5)]
    assert [int(data.targets[split.test, 0].sum()) for split in splits] == [4] * 5
    assert all(1 <= data.targets[split.valid, 0].sum() <= 2 for split in splits)
    assert sorted(row for split in splits for row in split.test.tolist()) == list(range(200))
    for split in splits:
        assert_partition(split, 200)
    assert make_split(data, share, seed=0, fold=0).hash != make_split(data, share, seed=0, fold=1).hash


def test_strata_of_values() -> None:
    values = np.arange(100)
    train, valid, test = stratified_split(singles(100), values, (0.8, 0.1), seed=3, fold=0)
    for part in (train, valid, test):
        assert abs(values[part].mean() - 49.5) < 6
    for part in (valid, test):
        assert np.diff(np.sort(values[part])).max() <= 20


def test_time(tmp_path: Path) -> None:
    order, _, newest = time_split(singles(10), np.array([5, 3, 9, 1, 1, 7, 8, 2, 6, 4.0]), (0.6, 0.2))
    assert order.tolist() == [3, 4, 7, 1, 9, 0]
    assert newest.tolist() == [6, 2]
    rows = [("C" * (i + 1), i * 1.5 % 4, f"20{24 - i}-0{1 + i % 9}-01") for i in range(10)]
    data = load_rows(tmp_path, rows, "smiles,y,when", targets=["y"])
    settings = {"kind": "time", "column": "when", "fractions": [0.8, 0.1, 0.1]}
    split = make_split(data, settings, seed=0, fold=0)
    assert parts(split) == [list(range(2, 10)), [1], [0]]
    data = load_rows(tmp_path, [*rows, ("N", 1, "soon")], "smiles,y,when", targets=["y"])
    with pytest.raises(DataError, match=r"row 10 \(line 12\), column 'when': 'soon' is neither a number nor a date"):
        make_split(data, settings, seed=0, fold=0)


def test_a_date_with_points_has_the_day_first(tmp_path: Path) -> None:
    """11.2.2020 is in February; with slashes the order is not known, so they stop the run."""
    rows = [("C" * (i + 1), i % 4 + 0.5, f"{12 - i}.{i + 1}.2020") for i in range(7)]
    settings = {"kind": "time", "column": "when", "fractions": [0.6, 0.2, 0.2]}
    data = load_rows(tmp_path, rows, "smiles,y,when", targets=["y"])
    assert parts(make_split(data, settings, seed=0, fold=0))[0][:3] == [0, 1, 2]
    for wrong in ("31.13.2019", "03/04/2019", "1.2.19"):
        data = load_rows(tmp_path, [*rows, ("N", 1, wrong)], "smiles,y,when", targets=["y"])
        with pytest.raises(DataError, match=r"neither a number nor a date; write .* or 31\.05\.2024"):
            make_split(data, settings, seed=0, fold=0)


def test_clusters_are_butinas(tmp_path: Path) -> None:
    """As RDKit's own, which keeps all distances in memory; similar molecules stay together."""
    from rdkit import Chem
    from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator
    from rdkit.DataStructs import BulkTanimotoSimilarity
    from rdkit.ML.Cluster import Butina

    from molsam.data.sources import EMBEDDED
    from molsam.data.table import read_table

    smiles = read_table(EMBEDDED / "esol.csv").column("smiles")[::9]
    mols = [Chem.MolFromSmiles(text) for text in smiles]
    names = clusters(mols, 0.6)
    prints = [GetMorganGenerator(radius=2, fpSize=2048).GetFingerprint(mol) for mol in mols]
    distances = [1 - s for i in range(1, len(prints)) for s in BulkTanimotoSimilarity(prints[i], prints[:i])]
    found = Butina.ClusterData(distances, len(prints), 0.6, isDistData=True)
    ours = sorted((sorted(i for i, name in enumerate(names) if name == one) for one in set(names)), key=len)
    assert sorted(map(len, found)) == sorted(map(len, ours))
    assert max(map(len, found)) > 4
    assert sorted(max(found, key=len)) == ours[-1]
    data = load_rows(tmp_path, [(text, i % 7 + 0.5) for i, text in enumerate(smiles)])
    split = make_split(data, {"kind": "cluster", "cutoff": 0.6, "balanced": True, "fractions": [0.6, 0.2, 0.2]}, 0, 0)
    sides = [{names[row] for row in part} for part in parts(split)]
    assert sum(map(len, sides)) == len(set(names))


def test_deepchems_scaffolds() -> None:
    """Against the loop of DeepChem's ScaffoldSplitter, written out."""
    rng = np.random.default_rng(2)
    for _ in range(20):
        names = [str(name) for name in rng.integers(0, 12, 60) ** 2 // 9]
        sets: dict[str, list[int]] = {}
        for row, name in enumerate(names):
            sets.setdefault(name, []).append(row)
        train: list[int] = []
        valid: list[int] = []
        test: list[int] = []
        for rows in sorted(sets.values(), key=lambda one: (len(one), one[0]), reverse=True):
            if len(train) + len(rows) > 0.8 * 60:
                if len(train) + len(valid) + len(rows) > 0.9 * 60:
                    test += rows
                else:
                    valid += rows
            else:
                train += rows
        assert [part.tolist() for part in deepchem_split(names, (0.8, 0.1))] == [train, valid, test]


def test_a_scaffold_that_is_too_large_is_named(tmp_path: Path) -> None:
    settings = {"kind": "scaffold", "fractions": [0.8, 0.1, 0.1], "balanced": True}
    rows = [("C" * (i + 1), i % 3 + 0.5) for i in range(9)] + [("C1CC1", 1)]
    with pytest.raises(
        DataError, match=r"molecules without rings has 9 of 10 molecules, .*begins with 0\.8\); use split=random"
    ):
        make_split(load_rows(tmp_path, rows), settings, seed=0, fold=0)
    rings = [("C1CC1" + "C" * i, i % 3 + 0.5) for i in range(9)] + [("C", 1)]
    with pytest.raises(DataError, match=r"The scaffold 'C1CC1' has 9 of 10 molecules"):
        make_split(load_rows(tmp_path, rings), settings, seed=0, fold=0)


def test_files_of_their_own(tmp_path: Path) -> None:
    """Each file is a part; rows keep the numbers of their own file; classes and columns are shared."""
    from tests.data.helpers import write

    for name, start, header in (("valid", 20, "Smiles,y"), ("test", 30, "y,smiles,extra")):
        rows = [("C" * (start + i), ["no", "yes"][i % 2]) for i in range(3)]
        more = [(y, smiles, 1) if header.startswith("y") else (smiles, y) for smiles, y in rows]
        write(tmp_path / f"{name}.csv", more, header)
    rows = [("C" * (i + 1), ["yes", "no"][i % 2]) for i in range(10)]
    own = {"test_path": str(tmp_path / "test.csv"), "targets": ["y"]}
    both = load_rows(tmp_path, rows, valid_path=str(tmp_path / "valid.csv"), **own)
    split = make_split(both, {"kind": "files", "valid": 0.2}, seed=0, fold=0)
    assert parts(split) == [list(range(10)), [10, 11, 12], [13, 14, 15]]
    assert both.rows[split.test].tolist() == [0, 1, 2]
    assert both.targets[split.test, 0].tolist() == [0, 1, 0]
    assert both.where(13) == "test.csv, row 0 (line 2)"
    one = load_rows(tmp_path, rows, **own)
    split = make_split(one, {"kind": "files", "valid": 0.2}, seed=0, fold=0)
    assert (len(split.train), len(split.valid), split.test.tolist()) == (8, 2, [10, 11, 12])
    for given in ({"targets": ["y"]}, {}):  # the file that lacks the labels is named, and not the first one
        write(tmp_path / "test.csv", [("C", 1)], "smiles,other")
        with pytest.raises(DataError, match=r"test\.csv lacks 'y' of .*data\.csv"):
            load_rows(tmp_path, [("C" * (i + 1), i / 3) for i in range(10)], test_path=own["test_path"], **given)
    with pytest.raises(ConfigError, match=r"split=files needs a file for test; give dataset\.test_path=FILE"):
        make_split(load_rows(tmp_path, rows, targets=["y"]), {"kind": "files", "valid": 0.2}, seed=0, fold=0)
