"""Images through the loop that trains molecules, and Table 11's sweep on generated ones."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from molsam.config.compose import compose
from molsam.runs import result
from molsam.training import checkpoint
from molsam.training.loop import Trainer
from molsam.wiring.run import start
from tests.images.files import write
from tests.paths import ROOT

TINY = ("model=resnet18", "model.width=2", "split=official", "training.batch_size=16", "training.threads=1")


def train(folder: Path, root: Path, *overrides: str) -> dict[str, Any]:
    start(compose([*TINY, "dataset=cifar10", f"dataset.root={root}", *overrides]), folder, [])
    found = result.read(folder)
    assert found is not None
    return found


def test_a_resumed_run_is_the_same_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With shifted and mirrored images, BatchNorm, and GraphSAM's memory."""
    write(tmp_path / "cifar", 10, "bin", size=8)
    settings = ("optimizer=graphsam", "training.epochs=2", "training.checkpoint_steps=2")
    whole = train(tmp_path / "whole", tmp_path / "cifar", *settings)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_keep_best", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(tmp_path / "parts", tmp_path / "cifar", *settings)
    parts = train(tmp_path / "parts", tmp_path / "cifar", *settings)
    steps = 3  # 36 training images, 16 a step
    assert whole["gradient_passes"] == 2 * (steps + 1)
    for key in ("valid", "test", "best_epoch", "gradient_passes", "split", "data"):
        assert whole[key] == parts[key]
    one, other = (checkpoint.read(tmp_path / name / "best" / "model.safetensors") for name in ("whole", "parts"))
    assert all((one["weights"][key] == other["weights"][key]).all() for key in one["weights"])
    plain = train(tmp_path / "plain", tmp_path / "cifar", *settings, "dataset.augment=false")
    assert plain["valid"]["loss"] != whole["valid"]["loss"]


@pytest.mark.slow
def test_images_that_differ_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path / "cifar", 10, "py", size=40)
    outcome = train(
        tmp_path / "run",
        tmp_path / "cifar",
        "base_optimizer=sgd",
        "optimizer=sam",
        "training.epochs=6",
        "model.width=8",
    )
    rows = list(csv.DictReader((tmp_path / "run" / "test_predictions.csv").read_text().splitlines()))
    assert len(rows) == 20
    right = sum(float(row["target"]) == float(row["prediction"]) for row in rows)
    assert outcome["test"]["accuracy_percent"] == pytest.approx(100 * right / 20)
    assert outcome["test"]["accuracy_percent"] > 50
    assert not outcome["data"]["verified"]


@pytest.mark.slow
def test_table_11_runs_and_says_what_it_is(tmp_path: Path) -> None:
    def molsam(*command: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    sweep = (sys.executable, str(ROOT / "train.py"), "--multirun", "sweeps=table11", "smoke=true", "model.width=4")
    done = molsam(*sweep)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "dataset.root=FOLDER" in done.stderr
    write(tmp_path / "cifar", 10, "bin", size=12)
    write(tmp_path / "cifar", 100, "py", size=48)
    done = molsam(*sweep, "dataset.root=cifar")
    assert done.returncode == 0, done.stderr
    report = molsam(str(Path(sys.executable).with_name("molsam")), "report", "--table", "11", "--smoke")
    assert "An interface check until it is run on the whole of CIFAR-10 and CIFAR-100." in report.stdout
    assert report.returncode == 0  # all ten cells of the smoke run
    (table,) = (tmp_path / "outputs" / "reports").glob("*.csv")
    assert pd.read_csv(table)["n"].tolist() == [1] * 10
