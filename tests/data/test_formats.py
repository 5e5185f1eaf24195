"""Files of many formats give the same table, and rows keep their number."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from rdkit import Chem

from molsam.chem.molecule import parse
from molsam.data.columns import smiles_column
from molsam.data.table import read_table
from molsam.data.unpack import OTHERS
from molsam.errors import DataError, InvalidMolecule
from tests.data.helpers import load_rows

TEXT = "smiles,y\nCCO,1.5\nC,2\n"


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def parquet() -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"smiles": ["CCO", "C"], "y": [1.5, 2.0]}), buffer)
    return buffer.getvalue()


def sdf() -> bytes:
    text = io.StringIO()
    with Chem.SDWriter(text) as writer:
        for smiles, y in (("CCO", "1.5"), ("C", "2")):
            mol = Chem.MolFromSmiles(smiles)
            mol.SetProp("y", y)
            writer.write(mol)
    return text.getvalue().encode()


KINDS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "UTF-16": ("d.csv", lambda: TEXT.encode("utf-16")),
    "UTF-16 without a mark": ("d.csv", lambda: TEXT.encode("utf-16-le")),
    "big-endian UTF-16": ("d.csv", lambda: b"\xfe\xff" + TEXT.encode("utf-16-be")),
    "sep=": ("d.csv", lambda: ("sep=;\n" + TEXT.replace(",", ";")).encode()),
    "quoted sep=": ("d.csv", lambda: ('\ufeff"sep=;"\r\n' + TEXT.replace(",", ";")).encode()),
    "zip": ("d.zip", lambda: zipped({"inner.csv": TEXT.encode(), "__MACOSX/._inner.csv": b"x"})),
    "zip of UTF-16 semicolons": ("d.zip", lambda: zipped({"a/b.csv": TEXT.replace(",", ";").encode("utf-16")})),
    "Parquet": ("d.parquet", parquet),
    "Parquet of another name": ("d.csv", parquet),
    "zip of Parquet": ("d.zip", lambda: zipped({"x.parquet": parquet()})),
    "SDF": ("d.sdf", sdf),
    "gzip of SDF": ("d.sdf.gz", lambda: gzip.compress(sdf())),
    ".smi": ("d.smi", lambda: b"CCO 1.5\nC 2\n"),
    ".smi with tabs and a header": ("d.smi", lambda: b"smiles\ty\nCCO\t1.5\nC\t2\n"),
    ".smi with blanks and a header": ("d.smi", lambda: b"smiles y\nCCO 1.5\nC 2\n"),
    "blanks": ("d.txt", lambda: b"smiles   y \n  CCO 1.5\nC       2  \n"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_the_same_table(tmp_path: Path, kind: str) -> None:
    name, make = KINDS[kind]
    (tmp_path / name).write_bytes(make())
    table = read_table(tmp_path / name)
    assert table.column(smiles_column(table)) == ["CCO", "C"]
    assert [float(cell) for cell in table.cells[1]] == [1.5, 2]
    assert list(table.numbers) == [0, 1]


DELIMITED = {
    "smiles;IC50, nM;Ki, nM\nC;1;2\nCC;3;4\n": ["smiles", "IC50, nM", "Ki, nM"],
    "a;b;smiles,y,z\n1;1;C,1,2\n": ["a;b;smiles", "y", "z"],
    "name, of; it\tsmiles\nx, y; z\tC\n": ["name, of; it", "smiles"],
    "SMILES;x, y, z\nC;1\n": ["SMILES", "x, y, z"],
    "smiles|1,2,3\nC|1\n": ["smiles", "1,2,3"],
}


@pytest.mark.parametrize("text", DELIMITED)
def test_the_delimiter_is_the_one_that_makes_smiles_a_column(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.csv").write_text(text)
    assert read_table(tmp_path / "d.csv").columns == DELIMITED[text]


def test_the_named_column_counts_too(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("mol;a, b, c\nC;1\n")
    assert read_table(tmp_path / "d.csv", smiles="mol").columns == ["mol", "a, b, c"]


def test_rows_are_counted_as_pandas_counts(tmp_path: Path) -> None:
    import pandas as pd

    text = 'smiles,y\n\nC,1\n,\n   \n"C\nC",2\n\n\nCC,3\n'
    (tmp_path / "d.csv").write_text(text)
    table, frame = read_table(tmp_path / "d.csv"), pd.read_csv(tmp_path / "d.csv")
    assert list(table.numbers) == frame.index[frame["smiles"].notna()].tolist() == [0, 2, 3]
    assert list(table.lines) == [3, 7, 10]
    assert list(read_table(tmp_path / "d.csv", keep_empty=True).numbers) == frame.index.tolist()


def test_the_block_of_an_sdf_is_read_and_its_properties_are_columns(tmp_path: Path) -> None:
    text = io.StringIO()
    with Chem.SDWriter(text) as writer:
        for number, smiles in enumerate(["C[C@H](O)F", "c1ccccc1", "[Na+].[Cl-]"]):
            mol = Chem.MolFromSmiles(smiles)
            mol.SetProp("_Name", f"mol {number}")
            mol.SetProp("smiles", "wrong")
            if number != 1:
                mol.SetProp("y", str(number))
            writer.write(mol)
    bad = (
        "bad\n  x\n\n  2  1  0  0  0  0  0  0  0  0999 V2000\nbroken\nM  END\n> <y> (4)\n5\n\n>  <note>\na\nb\n\n$$$$\n"
    )
    five = Chem.MolToMolBlock(Chem.MolFromSmiles("CF")).replace("  1  2  1", "  1  2  4") + "> <y>\n7\n\n$$$$\n"
    (tmp_path / "d.sdf").write_text(text.getvalue() + bad + five)
    table = read_table(tmp_path / "d.sdf")
    assert table.columns == ["smiles", "name", "smiles_2", "y", "note"]
    assert table.column("smiles")[:3] == ["C[C@H](O)F", "c1ccccc1", "[Cl-].[Na+]"]
    assert table.column("name") == ["mol 0", "mol 1", "mol 2", "bad", ""]
    assert table.column("y") == ["0", "", "2", "5", "7"], "a block that cannot be read does not lose the properties"
    assert table.column("note") == ["", "", "", "a\nb", ""]
    with pytest.raises(InvalidMolecule, match="RDKit cannot read its atoms and bonds"):
        parse(table.column("smiles")[3])
    assert list(table.numbers) == [0, 1, 2, 3, 4]
    assert table.lines is not None
    lines = (tmp_path / "d.sdf").read_text().splitlines()
    assert all(line == 1 or lines[line - 2] == "$$$$" for line in table.lines)


def test_parquet_keeps_numbers_words_and_nothing(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"SMILES": ["C", "CC"], "y": [0.1, None], "flag": [True, False], "n": [1, 2]}, index=[5, 9])
    frame.to_parquet(tmp_path / "d.parquet")
    table = read_table(tmp_path / "d.parquet")
    assert table.columns == ["SMILES", "y", "flag", "n", ""], "the index has no name"
    assert table.rows == [["C", "0.1", "true", "1", "5"], ["CC", "", "false", "2", "9"]]
    assert table.where(1) == "row 1"


def test_parquet_columns_that_are_no_text_do_not_spoil_the_file(tmp_path: Path) -> None:
    """Lists, bytes and times beside the molecules: nobody learns them, and predict keeps them."""
    import pandas as pd

    frame = pd.DataFrame({"smiles": ["C", "CC"], "bits": [[0, 1], None], "raw": [b"\xff\xfe", b"ok"]})
    frame["when"], frame["took"] = pd.to_datetime(["2020-01-01", None]), pd.to_timedelta([1, None], unit="s")
    frame["count"], frame["kind"] = pd.array([1, None], dtype="Int64"), pd.Categorical(["a", None])
    frame.to_parquet(tmp_path / "d.parquet")
    table = read_table(tmp_path / "d.parquet")
    assert table.column("smiles") == ["C", "CC"]
    assert table.column("bits") == ["[0, 1]", ""]
    assert table.column("raw")[0] == str(b"\xff\xfe")
    assert table.column("when")[0].startswith("2020-01-01")
    assert (table.column("count"), table.column("kind")) == (["1", ""], ["a", ""])
    assert table.column("took")[1] == ""


BAD: dict[str, tuple[str, bytes, str]] = {
    "Excel": ("d.xlsx", zipped({"[Content_Types].xml": b"x", "xl/a.xml": b"y"}),
              "is an Excel workbook; save its sheet as CSV"),
    "two files": ("d.zip", zipped({"a.csv": b"x", "b.csv": b"y"}),
                  r"holds 2 files \(a\.csv, b\.csv\); give an archive with one"),
    "cut zip": ("d.zip", zipped({"a.csv": TEXT.encode() * 50})[:-30], "is a damaged zip file"),
    "cut Parquet": ("d.parquet", b"PAR1" + b"\0" * 40, "cannot be read as Parquet"),
    "empty SDF": ("d.sdf", b" \n", "is empty"),
    "zip of nothing": ("d.zip", zipped({}), "holds 0 files"),
    "JSON": ("d.json", b'[{"smiles": "C", "y": 1}]', "is JSON, not a table; save it as CSV"),
    "JSON lines": ("d.jsonl", b'{"smiles": "C", "y": 1}\n', "is JSON, not a table; save it as CSV"),
    "XML": ("d.xml", b"<?xml version='1.0'?><a/>", "is a web page or XML, not a table"),
    "a title": ("d.csv", b"My assay\n\n" + TEXT.encode(),
                "line 3 looks like the header, but is not the first line; delete"),
    "comments": ("d.csv", b"# a, b\n# c\n" + TEXT.encode(),
                "line 3 looks like the header"),
    "one cell": ("d.csv", TEXT.encode() + b"CC\n", "line 4: 1 cell where the header has 2"),
    **{told: ("d.csv", magic + b"\0" * 40, f"is {told}") for magic, told in OTHERS.items()},
    "half UTF-16": ("d.csv", TEXT.encode("utf-16") + b"\0", "is not UTF-16 text"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    file, content, message = BAD[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_table(tmp_path / file)
    assert "\n" not in str(caught.value)


def test_a_zip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    (tmp_path / "d.zip").write_bytes(zipped({"a.csv": TEXT.encode() + b"C,1\n" * 5_000_000}))
    with pytest.raises(DataError, match="unpacks to more than 16,000,000 bytes, 100 times its own size"):
        read_table(tmp_path / "d.zip")


def test_the_smiles_column_in_any_case(tmp_path: Path) -> None:
    assert load_rows(tmp_path, [("C", 1), ("CC", 2)], "SMILES,y").smiles == ["C", "CC"]
    assert load_rows(tmp_path, [("C", 1), ("CC", 2)], "smiles,Smiles", targets=["Smiles"]).smiles == ["C", "CC"]
    with pytest.raises(DataError, match="has no column 'smiles'; did you mean 'Smiles'"):
        load_rows(tmp_path, [("C", "C", 2)], "Smiles,SMILES,y")
    with pytest.raises(DataError, match=r"has no column 'smiles'"):
        load_rows(tmp_path, [("C", 2)], "structure,y")
