"""The meaning of a column's cells: numbers, decimal commas, bounds, true and false, words, classes, ids."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from molsam.data.dataset import MoleculeDataset
from molsam.errors import ConfigError, DataError
from tests.data.helpers import load_rows

CHAIN = ["C" * n for n in range(1, 30)]


def of(tmp_path: Path, cells: list[Any], **settings: Any) -> MoleculeDataset:
    """A dataset with these cells as its only labels."""
    settings = {"targets": ["y"], **settings}
    return load_rows(tmp_path, [(CHAIN[i], f'"{cell}"') for i, cell in enumerate(cells)], **settings)


PAIRS = [
    (["active", "inactive", "Active"], [1, 0, 1]),
    (["Yes", "no", ""], [1, 0, np.nan]),
    (["True", "False", "true"], [1, 0, 1]),
    (["toxic", "non-toxic", "toxic"], [1, 0, 1]),
    (["soluble", "insoluble", "NA"], [1, 0, np.nan]),
    (["+", "-", "+"], [1, 0, 1]),
]


@pytest.mark.parametrize(("cells", "values"), PAIRS, ids=lambda v: str(v[0]))
def test_two_words_are_two_classes(tmp_path: Path, cells: list[str], values: list[float]) -> None:
    data = of(tmp_path, cells)
    assert data.task == "classification"
    np.testing.assert_array_equal(data.targets[:, 0], values)
    assert data.classes is not None
    assert data.classes[0][1].casefold() == cells[0].casefold()


def test_the_positive_class_may_be_told(tmp_path: Path) -> None:
    cells = ["binder", "decoy", "decoy"]
    with pytest.raises(
        DataError, match="has the classes 'binder' and 'decoy'; say which one is positive, as in dataset"
    ):
        of(tmp_path, cells)
    assert of(tmp_path, cells, positive="binder").targets[:, 0].tolist() == [1, 0, 0]
    assert of(tmp_path, cells, positive="DECOY").targets[:, 0].tolist() == [0, 1, 1]
    assert of(tmp_path, cells, positive={"y": "decoy"}).targets[:, 0].tolist() == [0, 1, 1]
    with pytest.raises(ConfigError, match=r"dataset\.positive=ligand is not a class of column 'y'"):
        of(tmp_path, cells, positive="ligand")
    assert of(tmp_path, [1, 0, 0], positive=0, task="classification").targets[:, 0].tolist() == [0, 1, 1]


def test_two_numbers_may_be_classes(tmp_path: Path) -> None:
    assert of(tmp_path, [1, -1, 1]).task == "regression"
    assert of(tmp_path, [1, -1, "1.0"], task="classification").targets[:, 0].tolist() == [1, 0, 1]
    told = of(tmp_path, [1, 2, 2], task="classification", positive=2)
    assert told.targets[:, 0].tolist() == [0, 1, 1]


def test_several_classes(tmp_path: Path) -> None:
    data = of(tmp_path, ["low", "mid", "High", "high", ""], task="multiclass")
    assert data.classes == [["High", "low", "mid"]]
    np.testing.assert_array_equal(data.targets[:, 0], [1, 2, 0, 0, np.nan])
    assert (data.spec.n_tasks, data.metric) == (3, "accuracy")
    numbers = of(tmp_path, [10, 9, 2, 10], task="multiclass")
    assert numbers.classes == [["2", "9", "10"]], "numbers in the order of numbers"
    with pytest.raises(DataError, match=r"'low' is not a number, .* 3 different words; set dataset\.task=multiclass"):
        of(tmp_path, ["low", "mid", "high"])
    with pytest.raises(DataError, match="29 different values in 29 rows, too many for classes"):
        of(tmp_path, list(range(29)), task="multiclass")
    with pytest.raises(DataError, match="'y' has only one class"):
        of(tmp_path, ["a", "a"], task="multiclass")


def test_classes_and_numbers_are_not_learnt_together(tmp_path: Path) -> None:
    rows = [("C", 0, 1.5), ("CC", 1, 2), ("CCC", 0, 3)]
    with pytest.raises(DataError, match=r"column 'a' has classes and 'b' has numbers, .*dataset\.task=regression"):
        load_rows(tmp_path, rows, "smiles,a,b")
    assert load_rows(tmp_path, rows, "smiles,a,b", task="regression").task == "regression"
    ones = [("C", 1, 1.5), ("CC", "", 2)]
    assert load_rows(tmp_path, ones, "smiles,a,b").task == "regression", "a lone 1 is no class"


def test_bounds_are_refused_or_kept_as_bounds(tmp_path: Path) -> None:
    cells = [1.5, ">10", "< 0.1", ">=7", "≤2", ""]
    with pytest.raises(
        DataError, match=r"row 1 \(line 3\), column 'y': '>10' is a bound, .*has 4\); set dataset\.censored"
    ):
        of(tmp_path, cells)
    data = of(tmp_path, cells, censored="bound")
    np.testing.assert_array_equal(data.targets[:, 0], [1.5, 10, 0.1, 7, 2, np.nan])
    assert data.bounds is not None
    assert data.bounds[:, 0].tolist() == [0, 1, -1, 1, -1, 0]
    assert data.report.bounds == 4


@pytest.mark.parametrize("cells", [["1,5", "2", "-0,25"], ["1,250", "3,5", "7"], ["0,125", "0,250", "1,375"]])
def test_decimal_commas(tmp_path: Path, cells: list[str]) -> None:
    data = of(tmp_path, cells)
    assert data.targets[:, 0].tolist() == [float(cell.replace(",", ".")) for cell in cells]


@pytest.mark.parametrize(
    ("cells", "why"),
    [
        (["1,000", "2,500", "3"], "the comma may be a decimal or a thousands separator"),
        (["1,5", "2.5", "3"], "other cells have a decimal point"),
    ],
)
def test_commas_of_two_meanings_are_refused(tmp_path: Path, cells: list[str], why: str) -> None:
    with pytest.raises(DataError, match=rf"row 0 \(line 2\), column 'y': '1,\d+' is ambiguous \({why}"):
        of(tmp_path, cells)


def test_label_columns_by_default(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only columns of numbers that are no ids; what is left out is said."""
    header = ",smiles,no,CAS_ID,note,empty,pIC50,flag,"
    rows = [(i, CHAIN[i], 7 + i, 900 + 7 * i, f"batch {i % 3}", "", 1.5 * i % 4, "", "") for i in range(6)]
    with caplog.at_level(logging.INFO, logger="molsam"):
        data = load_rows(tmp_path, rows, header)
    assert data.task_names == ["pIC50"]
    text = caplog.text
    for part in (
        "the nameless column 1",
        "no (an id)",
        "CAS_ID (an id)",
        "note (no numbers: 'batch 0')",
        "empty (empty)",
        "column 9",
    ):
        assert part in text
    assert load_rows(tmp_path, rows, header, targets=["no"]).task_names == ["no"]
    with pytest.raises(DataError, match=r"has no label column beside 'smiles' \(left out: id \(an id\)\)"):
        load_rows(tmp_path, [(i, CHAIN[i]) for i in range(5)], "id,smiles")


def test_a_lone_rising_column_is_learnt_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="molsam"):
        assert load_rows(tmp_path, [(CHAIN[i], i) for i in range(5)]).task_names == ["y"]
    assert "y looks like an id" in caplog.text


def test_one_wrong_cell_among_numbers_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 2 \(line 4\), column 'y': 'n\.d\.' is not a number"):
        of(tmp_path, [1, 2, "n.d.", 4], targets=None)


def test_all_cells_that_are_no_numbers_are_counted_at_once(tmp_path: Path) -> None:
    words = [1, "nd", 2, 3, "n.d.", 4, "nd", 5, 6, "1e30"]
    with pytest.raises(
        DataError, match=r"'nd' is not a number \(nor 3 other cells: 'n\.d\.', 'nd', '1e30'\); correct it"
    ):
        of(tmp_path, words, targets=None)
    with pytest.raises(DataError, match=r"'1e30' is not a finite number below 1e\+12; correct it"):
        of(tmp_path, [1, 2, 3, "1e30"], targets=None)


def test_names_are_text(tmp_path: Path) -> None:
    """Columns whose names the command line reads as numbers, true or null are found, as they are read back."""
    header = "smiles,1e3,null,true,123,a=b"
    rows = [(CHAIN[i], *(i % 3 + 0.5 * k for k in range(5))) for i in range(6)]
    data = load_rows(tmp_path, rows, header, targets=[1000.0, None, True, 123, "a=b"])
    assert data.task_names == ["1e3", "null", "true", "123", "a=b"]
    assert load_rows(tmp_path, rows, header, targets="1e3").task_names == ["1e3"]
    with pytest.raises(
        ConfigError,
        match=r"targets=1000\.0 matches the columns '1e3' and '1000.0'; put the name in two kinds of quotes",
    ):
        load_rows(tmp_path, [(*row, 1) for row in rows], f"{header},1000.0", targets=[1000.0])


def test_ids_and_rows(tmp_path: Path) -> None:
    """A row keeps its number in the file, whatever is left out before it, and its id."""
    path = tmp_path / "data.csv"
    path.write_text("smiles,y,name\n\nC,1,a\n,,\nC(,2,b\n\nCC,3.5,c\n")
    from molsam.chem.chemprop import ChempropFeaturizer
    from molsam.data.dataset import load

    data = load({"path": str(path), "smiles": "smiles", "id": "name"}, ChempropFeaturizer(), str(tmp_path / "c"))
    assert data.rows.tolist() == [0, 3]
    assert data.ids == ["a", "c"]
    assert data.where(1) == "row 3 (line 7), id c"


def test_words_for_nothing_are_missing_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cells = ["1,5", "#N/A", "n.a.", "<NA>", "#DIV/0!", "None", "", "\u22122,5"]
    with caplog.at_level(logging.INFO, logger="molsam"):
        data = of(tmp_path, cells)
    np.testing.assert_array_equal(data.targets[:, 0], [1.5, *[np.nan] * 6, -2.5])
    assert "y: read as missing labels: '#N/A' (1), 'n.a.' (1), '<NA>' (1), '#DIV/0!' (1), 'None' (1)." in caplog.text
    caplog.clear()
    of(tmp_path, [1.5, "", 2])
    assert "missing" not in caplog.text, "an empty cell is plain"


@pytest.mark.parametrize("cells", [[1, 2, 2, 1], [-1, 1, 1, -1]])
def test_two_numbers_may_be_meant_as_classes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, cells: list[int]
) -> None:
    assert of(tmp_path, cells).task == "regression"
    assert f"y has only the values {min(cells)} and {max(cells)}, which are used as numbers; if they" in caplog.text
    caplog.clear()
    of(tmp_path, cells, task="classification", positive=1)
    assert "used as numbers" not in caplog.text
    of(tmp_path, [1, 2])
    assert "used as numbers" not in caplog.text, "two rows have two values"


def test_signs_in_a_column_of_their_own_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As in ChEMBL's tables: the sign is in another column than the number."""
    signs, numbers = ["'='", "'>'", "=", "<"], [5.5, 4.1, 6, 7]
    rows = list(zip(CHAIN, signs, numbers, strict=False))
    assert load_rows(tmp_path, rows, "smiles,Standard Relation,y").task_names == ["y"]
    assert "Standard Relation is '>' in 2 of 4 rows, but the labels are used as exact values" in caplog.text
    caplog.clear()
    load_rows(tmp_path, [(s, "=", y) for s, _, y in rows], "smiles,relation,y")
    load_rows(tmp_path, [(s, ">b" if y == 6 else "=", y) for s, _, y in rows], "smiles,note,y")
    assert "used as exact values" not in caplog.text


def test_numbers_with_leading_zeros_are_ids(tmp_path: Path) -> None:
    rows = [(CHAIN[i], f"{i // 2:03d}", 1.5 * i) for i in range(6)]
    assert load_rows(tmp_path, rows, "smiles,batch,y").task_names == ["y"]


def test_what_is_no_number_is_shown(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"y \[nM\] \(no numbers: '12%'\)") as caught:
        load_rows(tmp_path, [("C", "12%"), ("CC", "14%")], "smiles,y [nM]")
    assert "as in \"dataset.targets=['y [nM]']\"" in str(caught.value), "as it is typed in a shell"
    with pytest.raises(DataError, match="left out: 'a, b' \\(no numbers"):
        load_rows(tmp_path, [("C", "12%"), ("CC", "14%")], 'smiles,"a, b"')


SHUFFLED = [3, 1, 4, 0, 5, 2, 7, 6]


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("order", SHUFFLED),
        ("rank", [n + 100 for n in SHUFFLED]),
        ("cid", [n * n + 7 for n in SHUFFLED]),
        ("CompoundID", [n * n for n in SHUFFLED]),
        ("mol_id", [*(n * n for n in SHUFFLED[1:]), ""]),
        ("batch", [f"00{n // 2}" for n in SHUFFLED]),
    ],
)
def test_ids_in_any_order_are_no_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, cells: list[Any]
) -> None:
    rows = [(CHAIN[i], cell, 1.5 * i % 4) for i, cell in enumerate(cells)]
    with caplog.at_level(logging.INFO, logger="molsam"):
        assert load_rows(tmp_path, rows, f"smiles,{name},y").task_names == ["y"]
    assert f"label column: y; left out: {name} (an id)" in caplog.text
    test = tmp_path / "test.csv"
    test.write_text(f"smiles,{name},y\n" + "".join(f"O{smiles},{cell},{y}\n" for smiles, cell, y in rows))
    assert load_rows(tmp_path, rows, f"smiles,{name},y", test_path=str(test)).task_names == ["y"], "they begin anew"


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("rings", [1, 2, 2, 0, 1, 3, 1, 0]),
        ("percent", [n * n for n in SHUFFLED]),
        ("paid", [n * n for n in SHUFFLED]),
        ("few", [*SHUFFLED[1:], ""]),
        ("half", [n + 0.5 for n in SHUFFLED]),
    ],
)
def test_whole_numbers_may_be_labels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, cells: list[Any]
) -> None:
    rows = [(CHAIN[i], cell, 1.5 * i % 4) for i, cell in enumerate(cells)]
    with caplog.at_level(logging.INFO, logger="molsam"):
        assert load_rows(tmp_path, rows, f"smiles,{name},y").task_names == [name, "y"]
    assert f"label columns: {name}, y" in caplog.text


def test_a_lone_label_column_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="molsam"):
        load_rows(tmp_path, [(CHAIN[i], i % 4 + 0.5) for i in range(6)])
    assert "label column: y\n" in caplog.text


WORDS = [("active", "toxic", "a"), ("inactive", "safe", "b"), ("active", "safe", "a"), ("", "toxic", "b")]


def of_words(tmp_path: Path, targets: list[str], positive: Any) -> list[list[float]]:
    rows = [(CHAIN[i], *row) for i, row in enumerate(WORDS)]
    return load_rows(tmp_path, rows, "smiles,hERG,tox,c", targets=targets, positive=positive).targets.T.tolist()


@pytest.mark.parametrize(
    "positive", ["toxic", "TOXIC", ["toxic"], ["active", "toxic"], {"tox": "toxic"}, {"tox": "Toxic", "hERG": "active"}]
)
def test_positive_words_of_several_columns(tmp_path: Path, positive: Any) -> None:
    herg, tox = of_words(tmp_path, ["hERG", "tox"], positive)
    np.testing.assert_array_equal(herg, [1, 0, 1, np.nan])
    assert tox == [1, 0, 0, 1]


def test_positive_words_are_chosen_for_each_column(tmp_path: Path) -> None:
    herg, tox, c = of_words(tmp_path, ["hERG", "tox", "c"], ["safe", "inactive", "b"])
    np.testing.assert_array_equal(herg, [0, 1, 0, np.nan])
    assert (tox, c) == ([0, 1, 1, 0], [0, 1, 0, 1])
    rows = [("C", "active", "inactive"), ("CC", "inactive", "inactive")]
    with pytest.raises(
        DataError, match=r"'inactive' is not a number, and the column holds no other word; set dataset\.ta"
    ):
        load_rows(tmp_path, rows, "smiles,p,q", targets=["p", "q"], positive="active")
    one = load_rows(tmp_path, rows, "smiles,p,q", targets=["p", "q"], positive="active", task="classification")
    assert one.targets.tolist() == [[1, 0], [0, 0]], "the other class of a column of one class is known"


@pytest.mark.parametrize(
    ("targets", "positive", "error", "told"),
    [
        (["hERG", "tox"], None, DataError,
         r"column 'tox' has the classes 'safe' and 'toxic'; say which one is positive, as in dataset\.positive=safe"),
        (["tox", "c"], None, DataError,
         (r"column 'tox' has .*, and column 'c' has the classes 'a' and 'b'; say which ones are positive, "
          r"as in 'dataset\.positive=\[safe,a\]'")),
        (["tox", "c"], "toxic", DataError, r"column 'c' has the classes 'a' and 'b'; say which one is positive"),
        (["tox", "c"], ["toxic", "safe"], ConfigError,
         r"toxic and safe are both classes of column 'tox'; give one, or"),
        (["tox", "c"], ["toxic", "d"], ConfigError, r"dataset\.positive: d is not a class of 'tox' and 'c'; give"),
        (["tox", "c"], {"tix": "toxic"}, ConfigError, r"names 'tix', which is no label column; use 'tox' and 'c'"),
        (["tox", "c"], {"tox": "a", "c": "a"}, ConfigError,
         r"dataset\.positive=a is not a class of column 'tox'; use 'safe'"),
    ],
)  # fmt: skip
def test_positive_words_that_do_not_fit(
    tmp_path: Path, targets: list[str], positive: Any, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        of_words(tmp_path, targets, positive)
