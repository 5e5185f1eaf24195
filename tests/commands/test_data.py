"""molsam data list | fetch | check."""

from __future__ import annotations

from pathlib import Path

import pytest

from molsam.commands.data import dataset_settings
from molsam.commands.main import main
from tests.data.helpers import write


def test_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "downloads").mkdir()
    write(tmp_path / "downloads" / "bace.csv", [("C", 1)], "mol,Class")
    assert main(["data", "list", "--cache", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for name in dataset_settings():
        assert name in shown
    assert shown.count("ships with molsam") == 4
    assert "molsam data fetch DATASET" in shown


def test_check_of_a_dataset_that_ships(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "freesolv", "--cache", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "rows                            642" in shown
    assert "single atoms                    3" in shown


def test_check_of_ones_own_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("CCO", "1"), ("OCC", "0"), ("C(", "1"), ("C.C", "")] + [("C1", "0")] * 20
    path = write(tmp_path / "own.csv", rows, "structure,active")
    assert main(["data", "check", str(path), "--smiles", "structure", "--cache", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for line in (
        "molecules                       3",
        "rows that are no molecule       21",
        "task                            classification",
        "missing labels                  1",
        "duplicates                      1",
        "contradicting duplicates        1",
        "molecules of several fragments  1",
        "row 2 (line 4): C(: ",
        "... and 1 more",
    ):
        assert line in shown


def test_mistakes_end_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code, message in (
        (["check", "esool"], 2, "esool is not a dataset; choose from: bace"),
        (["fetch"], 2, "needs the name of a dataset"),
        (["fetch", "nothing"], 2, "nothing is not a dataset"),
        (["check", "bbbp", "--root", str(tmp_path / "absent")], 3, "is not a folder"),
    ):
        assert main(["data", *arguments, "--cache", str(tmp_path)]) == code
        assert message in capsys.readouterr().err


def test_fetch_of_what_is_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "fetch", "esol", "--cache", str(tmp_path)]) == 0
    assert "is here already" in capsys.readouterr().out
