"""molsam rerun: the record of a run is enough to make it again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from molsam.commands import main as cli
from molsam.commands.rerun import difference
from molsam.runs import result
from tests.trust.helpers import settings, train


def test_a_run_is_made_again_to_the_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(settings("gcn", "diagnostics=gradients"), tmp_path / "run")
    assert cli.main(["rerun", str(tmp_path / "run")]) == 0
    assert "the metrics agree to the bit (1 threads)" in capsys.readouterr().out
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    found["test"]["rmse"] *= 1 + 1e-6
    found["versions"]["torch"] = "1.0"
    del found["checksum"]
    result.write(tmp_path / "run", found)
    assert cli.main(["rerun", str(tmp_path / "run"), "-o", str(tmp_path / "again")]) == 1
    shown = capsys.readouterr().out
    assert "test rmse agrees to a relative 1.0e-06" in shown
    assert "torch 1.0 -> " in shown
    assert result.read(tmp_path / "again") is not None


def test_each_fold_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(settings("gcn", "split.folds=2"), tmp_path / "run")
    assert cli.main(["rerun", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.count("agree to the bit") == 2


def test_a_missing_number_is_a_difference() -> None:
    assert difference({"valid": {"rmse": None}}, {"valid": {"rmse": 0.0}}) == (float("inf"), "valid rmse")
    assert difference({"test": {"rmse": 2.0}}, {"test": {"rmse": 2.0}}) == (0.0, "")
    assert difference({"test_per_task": {"a": 2.0}}, {"test_per_task": {"a": -2.0}})[0] == 2.0


def test_without_a_result_there_is_nothing_to_repeat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rerun", str(tmp_path)]) == 5
    assert "holds no result.json" in capsys.readouterr().err
    (tmp_path / "result.json").write_text("{")
    assert cli.main(["rerun", str(tmp_path)]) == 5
