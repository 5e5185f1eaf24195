"""Malformed CSV files are read correctly, or refused in one sentence with file, line, column, value and remedy."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

import numpy as np
import pytest

from molsam.data.columns import smiles_column
from molsam.data.table import Table, read_table
from molsam.errors import DataError
from tests.data.helpers import numbers_of


def read(tmp_path: Path, content: bytes | str, name: str = "data.csv") -> Table:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path)


GOOD = {
    "plain": b"smiles,y\nCCO,1.5\nC,2\n",
    "no final newline": b"smiles,y\nCCO,1.5\nC,2",
    "BOM": b"\xef\xbb\xbfsmiles,y\nCCO,1.5\nC,2\n",
    "CRLF": b"smiles,y\r\nCCO,1.5\r\nC,2\r\n",
    "old Mac": b"smiles,y\rCCO,1.5\rC,2\r",
    "quotes": b'"smiles","y"\n"CCO","1.5"\n"C","2"\n',
    "semicolons": b"smiles;y\nCCO;1.5\nC;2\n",
    "tabs": b"smiles\ty\nCCO\t1.5\nC\t2\n",
    "bars": b"smiles|y\nCCO|1.5\nC|2\n",
    "blank lines": b"\n\nsmiles,y\n\nCCO,1.5\n  \nC,2\n\n\n",
    "blanks": b" smiles , y \n CCO , 1.5 \n C , 2 \n",
    "gzip": gzip.compress(b"smiles,y\nCCO,1.5\nC,2\n"),
    "gzip of BOM and CRLF": gzip.compress(b"\xef\xbb\xbfsmiles,y\r\nCCO,1.5\r\nC,2\r\n"),
    "other columns": b'y,"name, of it",smiles\n1.5,"a,""b""",CCO\n2,"two\nlines",C\n',
}


@pytest.mark.parametrize("content", GOOD.values(), ids=GOOD)
def test_all_shapes_of_one_table(tmp_path: Path, content: bytes) -> None:
    table = read(tmp_path, content)
    assert [cell.strip() for cell in table.column("smiles")] == ["CCO", "C"]
    assert numbers_of(table, ["y"]).tolist() == [[1.5], [2.0]]


def test_quoted_commas_do_not_hide_the_separator(tmp_path: Path) -> None:
    table = read(tmp_path, '"a, b, c, d";smiles\n1;C\n')
    assert table.columns == ["a, b, c, d", "smiles"]


def test_one_column(tmp_path: Path) -> None:
    assert read(tmp_path, "smiles\nCCO\nC\n").column("smiles") == ["CCO", "C"]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    assert list(read(tmp_path, 'smiles,y\n\nC,1\n"C\nC",2\nCC,3\n').lines) == [3, 5, 6]


def test_missing_labels_and_numbers(tmp_path: Path) -> None:
    cells = ["", "  ", "NaN", "nan", "NA", "n/a", "null", "None", "?", "-1e-3", "+2", "1E2", ".5", "0"]
    table = read(tmp_path, "smiles,y\n" + "".join(f"C,{cell}\n" for cell in cells))
    expected = [np.nan] * 9 + [-0.001, 2, 100, 0.5, 0]
    np.testing.assert_array_equal(numbers_of(table, ["y"])[:, 0], expected)


BAD_LABELS = [
    "active",
    "inf",
    "-Infinity",
    "1e999",
    "1e13",
    "=1+1",
    "1_000",
    "0x10",
    "12 nM",
    "TRUE",
    "1.2.3",
]


@pytest.mark.parametrize("cell", BAD_LABELS)
def test_a_label_that_is_no_number_is_named(tmp_path: Path, cell: str) -> None:
    table = read(tmp_path, f'smiles,y\nC,1\nCC,"{cell}"\n')
    with pytest.raises(DataError) as caught:
        numbers_of(table, ["y"])
    message = str(caught.value)
    assert f"{tmp_path / 'data.csv'}, row 1 (line 3), column 'y': {cell!r}" in message
    assert "leave the cell empty" in message


BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty; give a CSV file with a header line"),
    "blank": (b" \n \r\n", "is empty"),
    "only a BOM": (b"\xef\xbb\xbf", "is empty"),
    "only a header": (b"smiles,y\n", "has a header but no rows; give at least one molecule"),
    "latin-1": (b"smiles,y\nC,1\nC,\xb51\n", r"is not UTF-8 text \(line 3, byte 15\); save it as UTF-8"),
    "NUL": (b"smiles,y\nC\0,1\n", "contains NUL characters"),
    "cell too many": (b"smiles,y\nC,1\nCC,2,3\n", "line 3: 3 cells where the header has 2; quote cells"),
    "cell too few": (b"smiles,y\nC\n", "line 2: 1 cell where the header has 2"),
    "open quote": (b'smiles,y\n"C,1\nC,2\n', "correct the quotes"),
    "text after a quote": (b'smiles,y\n"C"C,1\n', "line 2: .*correct the quotes"),
    "truncated gzip": (
        gzip.compress(b"smiles,y\nC,1\n" * 99)[:-12],
        "is a damaged gzip file .*; download or copy it again",
    ),
    "flipped gzip": (gzip.compress(b"smiles,y\nC,1\n")[:-8] + b"\0" * 8, "is a damaged gzip file"),
    "only gzip's magic": (b"\x1f\x8b", "is a damaged gzip file"),
    "a huge cell": (b'smiles,y\n"' + b"C" * 1_000_001 + b'",1\n', "line 2: field larger"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    content, message = BAD_FILES[name]
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "data.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molsam.data.unpack.ALWAYS", 1000)
    content = gzip.compress(b"smiles,y\n" + b"C,1\n" * 1000)
    assert len(read(tmp_path, content)) == 1000, "an ordinary share"
    monkeypatch.setattr("molsam.data.unpack.RATIO", 20)
    with pytest.raises(
        DataError, match=r"unpacks to more than [0-9,]+ bytes, 20 times its own size; unpack it yourself"
    ):
        read(tmp_path, content)


def test_missing_and_repeated_columns(tmp_path: Path) -> None:
    table = read(tmp_path, "smiles,pIC50,y,y\nC,1,2,3\n")
    with pytest.raises(DataError, match="has no column 'pic50'; did you mean 'pIC50'"):
        table.column("pic50")
    with pytest.raises(DataError, match="has no column 'logD'; it has: 'smiles', 'pIC50', 'y', 'y'"):
        table.column("logD")
    with pytest.raises(DataError, match="has 2 columns named 'y'; rename them"):
        numbers_of(table, ["y"])
    assert numbers_of(table, ["y"], first=True).tolist() == [[2.0]]


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv cannot be read \(No such file or directory\); check the path"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="is not a file; give the path of the data file"):
        read_table(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is not a file"):
        read_table(tmp_path / "pipe")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("CCO,1\nCCN,2\n", "has no header: its first line contains the molecule 'CCO'"),
        ("canonical_smiles,y\nCCO,1\n", "if it is 'canonical_smiles', add dataset.smiles=canonical_smiles"),
        ("structure,P,N\nCCO,1,2\n", "has no column 'smiles'; it has: 'structure', 'P', 'N'"),
        ("smiles_a,smiles_b\nCCO,CCN\n", "has no column 'smiles'; did you mean"),
        ("<!DOCTYPE html>\n<html>404</html>\n", "is a web page or XML, not a table"),
    ],
)
def test_what_is_taken_for_a_table_by_mistake_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "in.csv").write_text(text)
    with pytest.raises(DataError, match=re.escape(sentence)):
        smiles_column(read_table(tmp_path / "in.csv"))


@pytest.mark.parametrize("name", ["Structure (SMILES)", "structure (smiles)"])
def test_titles_above_the_header_are_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / "lead.csv"
    path.write_text("Assay: hERG binding,,\n\nDate: 2026,,\nid,Structure (SMILES),y\n1,CCO,2\n")
    with pytest.raises(DataError, match=r"the header with .* is line 4, not the first line; remove the lines above it"):
        read_table(path).place(name)
    with pytest.raises(DataError, match="has no column 'z'; it has: "):
        read_table(path).place("z")
