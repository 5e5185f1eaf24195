"""The commands of the README and the first pages work."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import molsam.models
from molsam.config.compose import compose
from molsam.runs import result
from molsam.wiring.run import start
from tests.paths import ROOT

TORCH, EXTEND = (ROOT / "docs" / "start" / "torch.md", ROOT / "docs" / "extend.md")


def block(page: Path, language: str) -> str:
    """The first unnamed code block of a language on a page."""
    found = re.search(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    assert found is not None
    return found.group(1)


def test_the_optimizer_example_learns(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(block(TORCH, "python"))
    assert float(runpy.run_path(str(tmp_path / "example.py"))["loss"]) < 0.3


def test_a_seventh_model_costs_one_file_and_one_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deepsets.py").write_text(block(EXTEND, "python"))
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "deepsets.yaml").write_text(block(EXTEND, "yaml"))
    monkeypatch.setattr(molsam.models, "__path__", [*molsam.models.__path__, str(tmp_path)])
    settings = ["model=deepsets", "training.epochs=2", "dataset.limit=60", "training.threads=1"]
    cfg = compose([f"hydra.searchpath=[file://{ROOT},file://{tmp_path / 'conf'}]", *settings])
    start(cfg, tmp_path / "run", settings)
    outcome = result.read(tmp_path / "run")
    assert outcome is not None
    assert outcome["model"] == "deepsets"


@pytest.mark.slow
def test_the_batteries_test_the_seventh_model_and_it_passes(tmp_path: Path) -> None:
    for name in ("src", "conf", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "src" / "molsam" / "models" / "deepsets.py").write_text(block(EXTEND, "python"))
    (tmp_path / "conf" / "model" / "deepsets.yaml").write_text(block(EXTEND, "yaml"))
    command = "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/batteries/test_models.py", "-k", "deepsets"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_settings_may_follow_options(capsys: pytest.CaptureFixture[str]) -> None:
    from molsam.commands import main as cli

    assert cli.main(["data", "check", "--cache", "x-not-there", "nothing"]) == 2
    assert "nothing is not a dataset" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["data", "list", "--rot", "x"])


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120
