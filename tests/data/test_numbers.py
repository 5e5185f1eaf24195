"""Signs in numbers: decimal commas, points and commas that separate thousands, units; for each file on its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from molsam.chem.chemprop import ChempropFeaturizer
from molsam.data.dataset import MoleculeDataset, load
from molsam.errors import DataError

THOUSANDS = r"each point has three digits behind it, as one that separates thousands, and "


def write(path: Path, columns: dict[str, list[str]]) -> Path:
    """A table with semicolons, as Excel writes it where commas are decimal."""
    count = len(next(iter(columns.values())))
    pd.DataFrame({"smiles": ["C" * (n + 1) for n in range(count)], **columns}).to_csv(path, sep=";", index=False)
    return path


def of(path: Path, *targets: str, **settings: Any) -> MoleculeDataset:
    own = {"path": str(path), "smiles": "smiles", "targets": list(targets), **settings}
    return load(own, ChempropFeaturizer(), str(path.parent / "cache"))


@pytest.mark.parametrize("cells", [["1.500", "25.000"], ["120", "1.500"], [">1.500", "980", "12"], ["-7.200", ""]])
@pytest.mark.parametrize("more", [[], ["logP"]])
def test_points_beside_a_column_of_decimal_commas_are_refused(
    tmp_path: Path, cells: list[str], more: list[str]
) -> None:
    """Whether that column is a label or not."""
    commas = ["-4,69", "3,8", "12"][: len(cells)]
    pointed = next(cell for cell in cells if "." in cell)
    path = write(tmp_path / "de.csv", {"nM": cells, "logP": commas})
    with pytest.raises(DataError, match=rf"de\.csv, row \d \(line \d\), column 'nM': '{pointed}' is ambiguous") as told:
        of(path, "nM", *more)
    assert THOUSANDS + "column 'logP' has decimal commas); write " in str(told.value)
    assert f"or {pointed}0 if it is a decimal point" in str(told.value)
    assert of(path, "logP").targets[0, 0] == -4.69


@pytest.mark.parametrize("cells", [["120", "1.500", "25.000"], ["1", "2", "33.266", ""], ["980", "<1.500"]])
def test_points_among_whole_numbers_are_refused(tmp_path: Path, cells: list[str]) -> None:
    with pytest.raises(DataError, match=THOUSANDS + "the numbers without a point are whole"):
        of(write(tmp_path / "t.csv", {"y": cells}), "y", censored="bound")


PLAIN = [
    ["1.234", "0.567", "12.345", "7"],
    ["1.234", "2.345", "12.345"],
    ["1.234", "0", "12.345"],
    ["1.500", "2000", "7"],
    ["1.234", "1.5", "7"],
    ["1.5000", "7"],
    ["1.500e3", "7"],
    ["1234.500", "7"],
    [".125", "7", "1.125"],
]


@pytest.mark.parametrize("cells", PLAIN)
def test_points_that_are_decimal_are_read(tmp_path: Path, cells: list[str]) -> None:
    data = of(write(tmp_path / "t.csv", {"y": cells, "note": ["a,b", "1,2", "", ""][: len(cells)]}), "y")
    assert data.targets[:, 0].tolist() == [float(cell) for cell in cells]


def test_another_label_shows_that_points_are_decimal(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"a": ["7", "1.125"], "b": ["0.5", "3"]})
    assert of(path, "a", "b").targets[1, 0] == 1.125


def test_numbers_of_a_typed_file_are_what_they_are(tmp_path: Path) -> None:
    frame = pd.DataFrame({"smiles": ["C", "CC"], "y": [7.0, 1.125], "text": ["7", "1.125"]})
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    assert of(tmp_path / "t.parquet", "y").targets[:, 0].tolist() == [7, 1.125]
    with pytest.raises(DataError, match=r"'text': '1\.125' is ambiguous"):
        of(tmp_path / "t.parquet", "text")


def test_each_file_has_its_own_decimal_sign(tmp_path: Path) -> None:
    train = write(tmp_path / "train.csv", {"y": ["1.5", "-0.25"]})
    test = write(tmp_path / "test.csv", {"y": ["2,5", "7", "0,125"]})
    for files, values in (((train, test), [1.5, -0.25, 2.5, 7, 0.125]), ((test, train), [2.5, 7, 0.125, 1.5, -0.25])):
        assert of(files[0], "y", test_path=str(files[1])).targets[:, 0].tolist() == values
    write(test, {"y": ["7", "2,500"]})
    with pytest.raises(DataError, match=r"test\.csv, row 1 \(line 3\), column 'y': '2,500' is ambiguous") as told:
        of(train, "y", test_path=str(test))
    assert "train.csv" not in str(told.value)
    write(test, {"y": ["7", "n.d."]})
    with pytest.raises(DataError, match=rf"^{test}, row 1 .*'n\.d\.' is not a number"):
        of(train, "y", test_path=str(test))


def test_rows_of_several_files_are_counted_together(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = write(tmp_path / "train.csv", {"y": ["1.5", "-0.25"]})
    (tmp_path / "test.csv").write_text("smiles,y\nbad,1\n")
    of(train, "y", test_path=str(tmp_path / "test.csv"))
    assert "2 files: 1 of 3 rows has no valid molecule: test.csv, row 0 (line 2): bad" in caplog.text


@pytest.mark.parametrize(
    ("form", "hint"),
    [
        ("3.3{n}.595,5", "no thousands separator"),
        ("3 3{n} 596", "no thousands separator"),
        ("3'3{n}'595.5", "no thousands separator"),
        (">3,3{n},596", "no thousands separator"),
        ("-4.{n}%", "write the number without '%'"),
        ("-4.{n} µM", "write the number without 'µM'"),
        ("4,{n} °C", "write the number without '°C'"),
        ("(4.{n})", "write numbers such as 0.52"),
    ],
)
def test_numbers_with_separators_or_units_are_no_classes(tmp_path: Path, form: str, hint: str) -> None:
    cells = [form.replace("{n}", str(n)) for n in range(10, 70)]
    with pytest.raises(DataError, match=r"row 0 \(line 2\), column 'y': .* is not a number; write") as told:
        of(write(tmp_path / "t.csv", {"y": cells}), "y")
    assert hint in str(told.value)
    assert "multiclass" not in str(told.value)
    one = ["0.5", "1.5", cells[0]]
    with pytest.raises(DataError, match="is not a number") as told:
        of(write(tmp_path / "t.csv", {"y": one}), "y")
    assert hint in str(told.value) or hint.endswith("0.52")


def test_few_words_may_be_classes(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"'class 0' is not a number, and the column holds 3 .*dataset\.task=multiclass"
    ):
        of(write(tmp_path / "t.csv", {"y": [f"class {n % 3}" for n in range(9)]}), "y")


def test_decimal_signs_of_many_cells(tmp_path: Path) -> None:
    """The same numbers in both ways of writing are the same numbers."""
    values = np.random.default_rng(0).normal(0, 100, 60).round(3)
    point = of(write(tmp_path / "a.csv", {"y": [str(value) for value in values]}), "y")
    comma = of(write(tmp_path / "b.csv", {"y": [str(value).replace(".", ",") for value in values]}), "y")
    np.testing.assert_array_equal(point.targets, comma.targets)
