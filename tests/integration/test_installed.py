"""The installed package, without its sources and without DGL, in a user's folder."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from molsam.runs import result
from tests.paths import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the wheel, as pyproject.toml lays them out, and a DGL that cannot be imported."""
    folder = tmp_path_factory.mktemp("site-packages")
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    placed = {name: Path(name).name for name in wheel["packages"]} | wheel["force-include"]
    for source, place in placed.items():
        shutil.copytree(ROOT / source, folder / place, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "dgl.py").write_text("raise ImportError('there is no DGL for this Python')\n")
    return folder


CALLS = """
import io, json, os, sys
from contextlib import redirect_stderr, redirect_stdout
from molsam.commands.main import main

told = []
for env, words in json.loads(sys.argv[1]):
    os.environ.update(env)
    sys.argv = ["molsam", *words]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main()
    told.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(told))
"""


def calls(installed: Path, here: Path, *commands: tuple[dict[str, str], list[str]]) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of several commands of the installed package, in one process: imports are slow."""
    done = python(installed, here, "-c", CALLS, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    return [tuple(told) for told in json.loads(done.stdout.splitlines()[-1])]


def python(installed: Path, here: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python arguments` in a folder, with the installed package."""
    clean = {name: value for name, value in os.environ.items() if name != "PROJECT_ROOT"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=here,
        env={**clean, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_own_model_trains_in_an_own_folder(installed: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
    part = page[page.index("## Without a clone") :].partition("\n## ")[0]
    for name, text in re.findall(r"^```\w+ ([\w./]+\.(?:py|yaml))\n(.*?)^```", part, re.M | re.S):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = re.search(r"^MOLSAM_TRUSTED=(\w+) molsam (train .*)$", part, re.M)
    assert found is not None
    words = [*found[2].split(), "training.epochs=1", "hydra.run.dir=run"]
    (tmp_path / "new.csv").write_text("smiles\nCCO\n")
    trust = {"MOLSAM_TRUSTED": found[1]}
    (metric,) = re.findall(r"^MOLSAM_TRUSTED=\w+ molsam (train .* dataset\.metric=.*)$", part, re.M)
    chosen = [*metric.split(), "training.epochs=1", "hydra.run.dir=judged"]
    commands = ({}, words), (trust, words), (trust, ["predict", "run", "new.csv"]), (trust, chosen)
    refused, done, again, judged = calls(installed, tmp_path, *commands)
    assert refused[0] == 2
    assert f"MOLSAM_TRUSTED={found[1]}" in refused[2]
    assert done[0] == 0, done[2]
    outcome = result.read(tmp_path / "run")
    assert outcome is not None
    assert outcome["config"]["model"]["_target_"].startswith(f"{found[1]}.")
    assert again[1].startswith("smiles,"), again[2]
    assert judged[0] == 0, judged[2]
    told = result.read(tmp_path / "judged")
    assert told is not None
    assert told["direction"] == "min"
    with open(tmp_path / "judged" / "test_predictions.csv", newline="", encoding="utf-8") as file:
        gaps = [abs(float(row["target"]) - float(row["prediction"])) for row in csv.DictReader(file)]
    assert told["test"][told["metric"]] == pytest.approx(max(gaps))


def test_a_table_is_found(installed: Path, tmp_path: Path) -> None:
    done = python(installed, tmp_path, "-m", "molsam", "report", "--table", "3")
    assert "python -m molsam train --multirun sweeps=table3" in done.stdout + done.stderr


def test_a_batchs_graph_says_that_there_is_no_dgl(monkeypatch: pytest.MonkeyPatch) -> None:
    from molsam.errors import ConfigError
    from tests.reference.molecules import random_molecules

    monkeypatch.setitem(sys.modules, "dgl", None)
    with pytest.raises(ConfigError, match=r"needs DGL.*pip install dgl==1.1.3"):
        random_molecules(1, [3, 2]).batch([0, 1]).graph  # noqa: B018
