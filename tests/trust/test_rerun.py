"""molsam rerun: the record of a run is enough to repeat it."""

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
    assert "the metrics agree to the bit (1 thread)" in capsys.readouterr().out
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
    assert "has no result.json" in capsys.readouterr().err
    (tmp_path / "result.json").write_text("{")
    assert cli.main(["rerun", str(tmp_path)]) == 5


def test_what_changed_since_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "data.csv"
    rows = "".join(f"{'C' * (i % 9 + 1)}O,{i / 10}\n" for i in range(30))
    path.write_text(f"smiles,y\n{rows}")
    train(settings("gcn", "dataset=csv", f"dataset.path={path}"), tmp_path / "run")
    path.write_text(f"smiles,y\n{rows.replace(',0.7', ',0.9')}")
    assert cli.main(["rerun", str(tmp_path / "run")]) == 1
    assert f"Changed since: {path} was " in capsys.readouterr().out


def test_runs_of_different_data_make_no_ensemble(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, shift in (("a", 0), ("b", 1)):
        rows = "".join(f"{'C' * (i % 9 + 1)}O,{i / 10 + shift}\n" for i in range(30))
        (tmp_path / f"{name}.csv").write_text(f"smiles,y\n{rows}")
        train(settings("gcn", "dataset=csv", f"dataset.path={tmp_path / name}.csv"), tmp_path / "runs" / name / "fold0")
    (tmp_path / "runs" / "b" / "fold0").rename(tmp_path / "runs" / "a" / "fold1")
    for folders in ([tmp_path / "runs" / "a"], [tmp_path / "runs" / "a" / f"fold{k}" for k in range(2)]):
        assert cli.main(["predict", *map(str, folders), str(tmp_path / "a.csv")]) == 2
        assert "mean means nothing" in capsys.readouterr().err
    assert cli.main(["predict", str(tmp_path / "runs" / "a" / "fold0"), str(tmp_path / "a.csv")]) == 0


def test_a_metric_that_is_not_known_here_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(settings("gcn"), tmp_path / "run")
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    found["test"]["worst_error"] = 1.0
    del found["checksum"]
    result.write(tmp_path / "run", found)
    assert cli.main(["rerun", str(tmp_path / "run")]) == 1
    assert "the metric worst_error is not known (--config-dir names the folder of your own)" in capsys.readouterr().out
