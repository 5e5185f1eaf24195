"""The command `molsam`: training is one of its commands, and hints name the command that was typed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from molsam.commands import main as cli
from molsam.config import command
from tests.paths import ROOT

TYPED = {
    "/home/me/molsam/train.py": "python train.py",
    "train.py": "python train.py",
    "/home/me/.venv/bin/molsam": "molsam train",
    "/home/me/.venv/lib/python3.13/site-packages/molsam/__main__.py": "python -m molsam train",
    "/home/me/.venv/lib/python3.13/site-packages/molsam/commands/train.py": "molsam train",
    "/home/me/.venv/lib/python3.13/site-packages/pytest/__main__.py": "molsam train",
}


@pytest.mark.parametrize("path", TYPED)
def test_hints_name_the_command_that_was_typed(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [path])
    assert command.training() == TYPED[path]


def test_train_is_the_hydra_application(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/molsam", "train", "modle=gcn"])
    assert cli.main() == 2
    assert "Did you mean model? `molsam train --help` lists them all." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--multirun", "--cfg", "job"], "to see settings with --cfg or --info, leave --multirun and --run out."),
        (["--multirun", "--info", "all", "seed=1,2"], "leave --multirun and --run out."),
        (["--cfg", "hydra", "--run"], "leave --multirun and --run out."),
        (["--resolve"], "can only be used in conjunction with --cfg"),
        (["training=3"], "training=3 names no option of its config group; type one, as model=gcn."),
    ],
)
def test_what_hydra_refuses_is_no_defect(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/molsam", "train", *words])
    assert cli.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("molsam: ")
    assert message in line


def test_a_value_error_of_molsam_is_a_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def wrong(*_: object) -> None:
        raise ValueError("x")

    monkeypatch.setattr("molsam.wiring.run.run", wrong)
    monkeypatch.setattr(sys, "argv", ["/bin/molsam", "train", f"hydra.run.dir={tmp_path}"])
    assert cli.main() == 70
    assert "this is a defect of molsam" in capsys.readouterr().err


def test_the_help_names_every_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["/lib/molsam/__main__.py"])
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert "python -m molsam train --help" in shown
    for name in ("train", *cli.COMMANDS):
        assert re.search(rf"^ +{name}\b", shown, re.M)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("molsam train model=g", {"model=gcn", "model=grover"}),
        ("molsam train split.fol", {"split.fold=", "split.folds="}),
        ("molsam rep", {"train", *cli.COMMANDS}),
        ("molsam report --ta", set()),
    ],
)
def test_tab_completes(
    line: str, words: set[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setattr(sys, "argv", ["/bin/molsam"])
    assert cli.main(["-sc", "query=bash"]) == 0
    assert set(capsys.readouterr().out.split()) == words


def test_train_py_is_completed_too() -> None:
    # Hydra's completion script looks for this word in a Python file before it runs it.
    assert "@hydra.main" in (ROOT / "train.py").read_text()


def test_python_m_molsam_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "molsam", "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("molsam ")
