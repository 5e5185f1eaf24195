"""Equal molecules: merged, dropped and grouped, each label accounted for, and never across parts that are given."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from molsam.data.dataset import MoleculeDataset
from molsam.data.split import make_split, notes
from tests.data.helpers import load_rows, write

FILES = {"kind": "files", "valid": 0.5}
COLUMN = {"kind": "predefined", "column": "part"}
OTHERS = [("CCCC", 0.5), ("CCCCC", 1.5), ("CCCCCC", 2.5)]


def labels(data: MoleculeDataset, smiles: str) -> list[list[float]]:
    """The labels of a molecule's rows."""
    return [row.tolist() for row, name in zip(data.targets, data.canonical, strict=True) if name == smiles]


@pytest.mark.parametrize(
    ("cells", "settings", "merged", "told"),
    [
        ([1, 2, 6], {}, 3, "labels that differ are averaged"),
        ([1, 1, ""], {}, 1, ""),
        ([1, 2, 6], {"conflicts": "drop"}, np.nan, "labels that differ are dropped; 1 label lost (1 that differ)"),
        ([">1", "<3"], {"censored": "bound"}, np.nan, "1 label lost (1 with bounds on both sides)"),
        ([">1", ">2"], {"censored": "bound"}, 2, ""),
        ([">1", 2], {"censored": "bound"}, 2, ""),
        (["a", "b", "b"], {"task": "multiclass"}, 1, "of labels that differ the most frequent counts"),
        (
            ["a", "b"],
            {"task": "multiclass"},
            np.nan,
            "of labels that differ the most frequent counts; 1 label lost (1 without a majority)",
        ),
    ],
    ids=str,
)
def test_each_label_of_merged_rows_is_accounted_for(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    cells: list[Any],
    settings: dict[str, Any],
    merged: float,
    told: str,
) -> None:
    others: Sequence[Any] = [(s, "ab"[n % 2]) for n, (s, _) in enumerate(OTHERS)] if "task" in settings else OTHERS
    with caplog.at_level(logging.INFO, logger="molsam"):
        data = load_rows(
            tmp_path, [*others, *(("CC", cell) for cell in cells)], duplicates="merge", targets=["y"], **settings
        )
    np.testing.assert_array_equal(labels(data, "CC"), [[merged]])
    found = data.report.summary()
    assert (found["dropped_duplicates"], found["lost_labels"]) == (len(cells) - 1, int(np.isnan(merged)))
    fewer = "1 row fewer" if len(cells) == 2 else f"{len(cells) - 1} rows fewer"
    assert found["duplicates_note"].endswith(f"merged, {fewer}{told and '; '}{told}.")
    assert found["duplicates_note"] in caplog.text


def test_dropping_keeps_the_first_row_and_counts_what_is_lost(tmp_path: Path) -> None:
    rows = [("CC", 1, ""), ("CC", 2, 5), ("CC", 2, 6), ("C", 1.5, 2.5)]
    data = load_rows(tmp_path, rows, "smiles,a,b", duplicates="drop")
    np.testing.assert_array_equal(data.targets, [[1, np.nan], [1.5, 2.5]])
    assert data.report.found.lost_labels == 1
    assert "2 left out after the first of each, 1 label lost with them" in data.report.found.sentence()


def of_parts(tmp_path: Path, how: str, kind: str, **settings: Any) -> tuple[MoleculeDataset, list[list[list[float]]]]:
    """Two rows of one molecule in training, two in test; the labels of each part."""
    train, test = [("CC", 1), ("C", 0.5), ("CC", 3), *OTHERS], [("CC", 100), ("CCO", 3.5), ("CC", 300)]
    settings |= {"duplicates": how, "targets": ["y"]}
    split = FILES if kind == "files" else COLUMN
    if kind == "files":
        write(tmp_path / "valid.csv", [("CCC", 7)])
        write(tmp_path / "test.csv", test)
        settings |= {"test_path": str(tmp_path / "test.csv"), "valid_path": str(tmp_path / "valid.csv")}
        data = load_rows(tmp_path, train, split=split, **settings)
    else:
        rows = [(*row, part) for part, some in (("train", train), ("test", test)) for row in some]
        rows = [*rows[::2], ("CCC", 7, "valid"), *rows[1::2]]
        data = load_rows(tmp_path, rows, "smiles,y,part", split, **settings)
    parts = make_split(data, split, seed=0, fold=0)
    return data, [sorted(labels_of(data, part)) for part in (parts.train, parts.test)]


def labels_of(data: MoleculeDataset, part: np.ndarray) -> list[list[float]]:
    return [data.targets[row].tolist() for row in part if data.canonical[row] == "CC"]


@pytest.mark.parametrize("kind", ["files", "column"])
@pytest.mark.parametrize(
    ("how", "train", "test", "told"),
    [
        ("keep", [[1], [3]], [[100], [300]], "kept (dataset.duplicates=merge or drop changes that within a part)"),
        ("group", [[1], [3]], [[100], [300]], "kept, each in the part that is given"),
        (
            "merge",
            [[2]],
            [[200]],
            "merged, 2 rows fewer; rows of different parts stay apart; labels that differ are av",
        ),
        ("drop", [[1]], [[100]], "2 left out after the first of each; rows of different parts stay apart"),
    ],
)
def test_no_label_moves_between_parts_that_are_given(
    tmp_path: Path, how: str, kind: str, train: list[list[float]], test: list[list[float]], told: str
) -> None:
    data, found = of_parts(tmp_path, how, kind)
    assert found == [train, test]
    assert told in data.report.found.sentence()
    split = FILES if kind == "files" else COLUMN
    (note,) = notes(data, make_split(data, split, seed=0, fold=0))
    count, is_ = ("1 molecule", "is") if len(test) == 1 else ("2 molecules", "are")
    remedy = "the parts are given, and nothing is moved between them; delete these rows from one of the parts"
    assert note == f"note: {count} of validation or test {is_} also in training; {remedy}."


@pytest.mark.parametrize("order", [1, -1])
def test_a_merged_molecule_is_as_old_as_its_newest_row(tmp_path: Path, order: int) -> None:
    """So that no label of the test period is learnt."""
    rows = [("CC", 1, 2001), *(("C" * n, n / 2, 2000 + n) for n in range(3, 11)), ("CC", 3, 2030)][::order]
    split = {"kind": "time", "column": "year", "fractions": [0.6, 0.2, 0.2]}
    data = load_rows(tmp_path, rows, "smiles,y,year", split, targets=["y"], duplicates="merge")
    assert labels(data, "CC") == [[2]]
    assert "CC" in [data.canonical[row] for row in make_split(data, split, seed=0, fold=0).test]


def test_a_drawn_split_has_a_remedy(tmp_path: Path) -> None:
    rows = [("C" * (n // 2 + 1), n / 2) for n in range(20)]
    split = {"kind": "random", "fractions": [0.5, 0.25, 0.25]}
    data = load_rows(tmp_path, rows)
    (note,) = notes(data, make_split(data, split, seed=0, fold=0))
    assert note.endswith("also in training; dataset.duplicates=drop, merge or group avoids that.")
    for how in ("drop", "merge", "group"):
        data = load_rows(tmp_path, rows, duplicates=how)
        assert not notes(data, make_split(data, split, seed=0, fold=0)), "it does"


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (1, "1 molecule without any label; it trains and judges"),
        (2, "2 molecules without any label; they train and judge"),
    ],
)
def test_molecules_without_labels_are_told(tmp_path: Path, count: int, told: str) -> None:
    rows = [("C" * n, n / 2) for n in range(1, 9)] + [("O" * (n + 1), "") for n in range(count)]
    data = load_rows(tmp_path, rows)
    split = make_split(data, {"kind": "random", "fractions": [0.5, 0.25, 0.25]}, seed=0, fold=0)
    assert notes(data, split) == [f"note: {told} nothing."]


def test_ids_that_occur_twice_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [("C", 0.5, "a"), ("CC", 1, "b"), ("CCC", 2, "b"), ("CO", 2, "c"), ("CCO", 2, "c"), ("O", 2, "c")]
    with caplog.at_level(logging.INFO, logger="molsam"):
        load_rows(tmp_path, rows, "smiles,y,name", id="name")
        assert "dataset.id=name: 2 ids occur more than once; the first, 'b', names 2 molecules." in caplog.text
        caplog.clear()
        load_rows(tmp_path, [*rows[:2], *rows[3:4], ("N", 1, ""), ("NN", 1, "")], "smiles,y,name", id="name")
    assert "more than once" not in caplog.text
