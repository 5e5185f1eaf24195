"""The counts of the MoleculeNet files equal the documented ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from molsam.commands.data import check, dataset_settings
from tests.paths import MOLECULENET, needs_moleculenet

SMALL = ("bbbp", "sider", "clintox", "esol", "bace", "freesolv")
LARGE = ("tox21", "lipo", "qm7", "qm8")
OURS = {"lipo": "lipophilicity"}


def documented(section: str) -> dict[str, dict[str, str]]:
    """The table of one section of SOURCES.md: cells by file and column name."""
    text = (MOLECULENET / "SOURCES.md").read_text(encoding="utf-8")
    lines = [line for line in re.split(r"^## ", text, flags=re.M)[int(section)].splitlines() if line.startswith("|")]
    header, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].removesuffix(".csv"): dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def number(cell: str) -> float:
    return float(cell.split()[0].replace(",", ""))


def compare(name: str, cache: Path) -> None:
    expected = documented("2")[name]
    ours = check(dataset_settings(str(MOLECULENET))[OURS.get(name, name)], str(cache))
    assert ours["verified copy"]
    assert ours["tasks"] == number(documented("1")[name]["tasks"])
    same = {
        "rows": "rows",
        "fail": "rows that are no molecule",
        "missing labels": "missing labels",
        "extra duplicate rows": "duplicates",
        "duplicate groups with unequal labels": "contradicting duplicates",
        "max atoms": "atoms at most",
        "median": "atoms, median",
        "max bonds": "bonds at most",
        "single atom": "single atoms",
        "no bond": "molecules without bonds",
        "100 atoms or more": "molecules of 100 atoms or more",
        "multi-fragment": "molecules of several fragments",
    }
    assert {theirs: ours[mine] for theirs, mine in same.items()} == {key: number(expected[key]) for key in same}
    assert len(ours["failures"]) == ours["rows that are no molecule"] == ours["rows"] - ours["molecules"]
    assert ours["atoms, mean"] == pytest.approx(number(expected["mean atoms"]), abs=0.0051)
    assert ours["bonds, mean"] == pytest.approx(number(expected["mean bonds"]), abs=0.0051)


@needs_moleculenet
@pytest.mark.parametrize("name", SMALL)
def test_counts(name: str, tmp_path: Path) -> None:
    compare(name, tmp_path)


@needs_moleculenet
@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_counts_of_the_large_sets(name: str, tmp_path: Path) -> None:
    compare(name, tmp_path)
