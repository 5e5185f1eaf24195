"""Parsing of SMILES: what is refused and why, and that nothing is printed."""

from __future__ import annotations

import contextlib
import io

import pytest
from rdkit import Chem

from molsam.chem.molecule import MAX_CHARACTERS, canonical_smiles, parse
from molsam.errors import InvalidMolecule

BAD = {
    "": "the SMILES is empty",
    " \t": "the SMILES is empty",
    "CCO ethanol": "the SMILES holds a blank",
    "C(C": "extra open parentheses",
    "c1ccc": "unclosed ring",
    "C)": "extra close parentheses|syntax error",
    "CC(C)(C)(C)C": "Explicit valence for atom # 1 C, 5, is greater than permitted",
    "c1cccc1": "Can't kekulize mol",
    "C1CC(=1)C#": "syntax error|ring closure",
    "[Xx]": "syntax error around position 2",
    "=SUM(A1)": "syntax error around position 1",
    "C\0C": r"the SMILES holds '\\x00'",
    "\u0441": r"the SMILES holds '\\u0441'",  # a Cyrillic letter that looks like c
    "\ud800": r"the SMILES holds '\\ud800'",
    "C" * (MAX_CHARACTERS + 1): f"{MAX_CHARACTERS} are allowed",
}


@pytest.mark.parametrize("smiles", BAD, ids=lambda s: ascii(s[:12]))
def test_a_refusal_says_why_and_prints_nothing(smiles: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidMolecule, match=BAD[smiles]) as caught:
        parse(smiles)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert capfd.readouterr() == ("", "")


def test_warnings_of_rdkit_are_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    parse("[H][H].[Fe+99]")
    assert capfd.readouterr() == ("", "")


def test_rdkit_speaks_again_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidMolecule):
        parse("C(C")
    with contextlib.redirect_stderr(io.StringIO()) as python:
        Chem.MolFromSmiles("C(C")
    assert "SMILES Parse Error" in capfd.readouterr().err
    assert python.getvalue() == "", "its messages go where they went before"


def test_outer_blanks_do_not_matter() -> None:
    assert canonical_smiles(parse(" OCC \r\n")) == "CCO"


def test_equal_molecules_have_equal_canonical_smiles() -> None:
    assert canonical_smiles(parse("C(O)C")) == canonical_smiles(parse("OCC"))
    assert canonical_smiles(parse("F/C=C/F")) != canonical_smiles(parse("F/C=C\\F"))
    assert canonical_smiles(parse("C[C@H](N)O")) != canonical_smiles(parse("C[C@@H](N)O"))
