"""Any file or SMILES gives a dataset or one sentence, never a traceback or a silent error."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molsam.chem.compt import ComptFeaturizer
from molsam.chem.dgllife import DgllifeFeaturizer
from molsam.chem.grover import GroverFeaturizer
from molsam.chem.molecule import canonical_smiles, parse
from molsam.data.dataset import load
from molsam.data.table import parse_table
from molsam.errors import InvalidMolecule, MolsamError
from tests.data.helpers import numbers_of

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
LONG = settings(max_examples=3500, deadline=None, suppress_health_check=list(HealthCheck))
PATH = Path("fuzz.csv")

PIECES = [
    "smiles", "y", ",", ";", "\t", "|", "\n", "\r\n", "\r", '"', '""', " ", "C", "CCO", "c1ccccc1", "1", "0",
    "-1.5e3", "nan", "inf", "1e400", "=1+1", "\ufeff", "\0", "\u00b5", "\u2028", "1,5", "active", "-", "#", "'", "\\",
    "\x1c", "\x85",
]  # fmt: skip
TEXT = st.lists(st.sampled_from(PIECES), max_size=40).map("".join)
CONTENT = st.one_of(
    TEXT.map(lambda text: text.encode()),
    TEXT.map(lambda text: b"smiles,y\n" + text.encode()),
    st.binary(max_size=200),
    st.tuples(TEXT, st.binary(max_size=5), TEXT).map(lambda t: t[0].encode() + t[1] + t[2].encode()),
    st.binary(max_size=60).map(lambda tail: b"\x1f\x8b" + tail),
)
TOKENS = [
    "C", "N", "O", "c", "n", "[nH]", "s", "F", "Cl", "Br", "[Na+]", "[O-]", "[C@H]", "[C@@]", "*", "(", ")", "1", "2",
    "%10", "=", "#", "$", "/", "\\", ".", ":", "-", "~", "->", "<-", "[Fe+3]", "[2H]", "[Og-6]", "[13CH3]", "[", "]",
    "@", "+", " ", "x", "[CH5]", "[*:3]", "[#6]", "[U]", "c1ccccc1", "C1CC1", "(C)", "(=O)",
]  # fmt: skip
SMILES = st.lists(st.sampled_from(TOKENS), max_size=25).map("".join) | st.text(max_size=20)
CELL = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=8)


def read_anything(content: bytes) -> None:
    try:
        table = parse_table(PATH, content)
        values = numbers_of(table, table.columns[-1:])
    except MolsamError as error:
        assert str(error).startswith("fuzz.csv")  # noqa: PT017 - it need not be raised
        return
    assert values.shape == (len(table.rows), 1)
    assert not np.isinf(values).any()
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert len(table.lines) == len(table.rows)


def featurize_anything(smiles: str) -> None:
    try:
        mol = parse(smiles)
    except InvalidMolecule as error:
        assert str(error)  # noqa: PT017
        return
    name = canonical_smiles(mol)
    if "~" not in name:  # RDKit writes the bond of any order where it cannot read it, as in [2H]1CC~1
        assert canonical_smiles(parse(name)) == canonical_smiles(parse(canonical_smiles(parse(name))))
    for featurizer in (ComptFeaturizer(), GroverFeaturizer(), DgllifeFeaturizer("attentivefp")):
        try:
            one = featurizer(mol)
        except InvalidMolecule as error:
            assert "charge" in str(error)  # noqa: PT017 - the only reason for it
            continue
        assert len(one.nodes) == mol.GetNumAtoms()
        assert np.isfinite(one.nodes).all()


def read_back(header: list[str], rows: list[list[str]], delimiter: str, end: str, bom: bool) -> None:
    """What Python's own writer wrote comes back as it was, blanks around the header aside."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([header, *rows])
    table = parse_table(PATH, (b"\xef\xbb\xbf" if bom else b"") + text.getvalue().encode())
    assert table.columns == [name.strip() for name in header]
    assert table.rows == [row for row in rows if any(cell.strip() for cell in row)]


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]], str, str, bool]:
    width = draw(st.integers(2, 4))
    name = CELL.filter(lambda cell: cell.strip() and not set(cell) & set('\r\n"'))
    header = draw(st.lists(name, min_size=width, max_size=width))
    rows = draw(st.lists(st.lists(CELL, min_size=width, max_size=width), max_size=5))
    delimiter, end = draw(st.sampled_from(",;\t|")), draw(st.sampled_from(["\n", "\r\n"]))
    return header, [*rows, ["C"] * width], delimiter, end, draw(st.booleans())


def load_anything(folder: Path, content: bytes) -> None:
    path = folder / "fuzz.csv"
    path.write_bytes(content)
    try:
        data = load({"path": str(path), "smiles": "smiles", "targets": None}, GroverFeaturizer(), str(folder / "cache"))
    except MolsamError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert len(data) == len(data.targets) == len(data.packed) == len(data.canonical) > 0
    assert len(data) + len(data.report.invalid) == data.report.rows


@QUICK
@given(CONTENT)
def test_any_file(content: bytes) -> None:
    read_anything(content)


@QUICK
@given(tables())
def test_any_written_table_comes_back(table: Any) -> None:
    read_back(*table)


@QUICK
@given(SMILES)
def test_any_smiles(smiles: str) -> None:
    featurize_anything(smiles)


@QUICK
@given(st.lists(st.tuples(SMILES, CELL), max_size=4), CONTENT)
def test_any_dataset(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], content: bytes) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    load_anything(folder, _text(rows))
    load_anything(folder, content)


MANY = {
    "files": lambda folder: given(CONTENT)(read_anything),
    "molecules": lambda folder: given(SMILES)(featurize_anything),
    "tables": lambda folder: given(tables())(lambda table: read_back(*table)),
    "datasets": lambda folder: given(st.lists(st.tuples(SMILES, CELL), max_size=4))(
        lambda rows: load_anything(folder, _text(rows))
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MANY)
def test_many_thousand(tmp_path: Path, kind: str) -> None:
    LONG(MANY[kind](tmp_path))()


def _text(rows: list[tuple[str, str]]) -> bytes:
    text = "smiles,y\n" + "".join(f'"{s}",{y}\n' for s, y in [*rows, ("C", "1")])
    return text.encode(errors="surrogatepass")
