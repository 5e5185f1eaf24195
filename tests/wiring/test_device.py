"""What a finished run does on a device (tests.fake_device) is what it does on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from molsam.config.compose import compose
from molsam.data.featurize import featurized
from molsam.runs import result
from molsam.wiring import run as wiring
from molsam.wiring.explain import attention, explain
from molsam.wiring.trained import Trained
from tests.batteries.test_models import MODELS
from tests.fake_device import fake_cuda

pytestmark = pytest.mark.filterwarnings("ignore:PyTorch was compiled without cuDNN")
SMILES = ["CCO", "c1ccccc1O", "C", "CC(=O)N.Cl", "no molecule"]
SMALL = {
    "cmpnn": ["model.hidden_size=12"],
    "compt": ["model.d_model=16", "model.n_layers=2"],
    "dmpnn": ["model.hidden_size=12"],
    "gcn": ["model.hidden_sizes=[8,8]"],
    "grover": ["model.hidden_size=16", "model.depth=2", "model.readout=self_attention"],
    "mpnn": ["model.hidden_size=8", "model.steps=2"],
}
QUICK = ("gcn", "compt")
EACH = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]


def settings(name: str, *more: str) -> list[str]:
    common = ["dataset.limit=30", "training.threads=1", "training.batch_size=8", "training.epochs=1", "split.fold=0"]
    return [f"model={name}", *SMALL.get(name, ()), *common, *more]


@pytest.mark.parametrize("name", EACH)
def test_predictions_vectors_and_explanations_are_those_of_the_cpu(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    words = settings(name, "optimizer=adam", "training.precision=fp64")
    wiring.start(compose(words), tmp_path, words)
    found = []
    for device in ("cpu", "cuda"):
        with fake_cuda(monkeypatch):
            trained = Trained(tmp_path, device)
            rows = list(featurized(SMILES, trained.work))
            values, reasons = trained.predict(rows)
            ways = [explain, attention] if name in ("compt", "grover") else [explain]
            shares = [next(iter(way(trained, "CC(=O)NC").atoms.values())) for way in ways]
            found.append([values, trained.embed(rows)[0], *shares])
        assert [bool(reason) for reason in reasons] == [False] * 4 + [True]
        assert np.isfinite(values[:4]).all()
    for here, there in zip(*found, strict=True):
        np.testing.assert_allclose(there, here, rtol=1e-8, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_run_with_all_diagnostics_goes_through(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    gradients = "+diagnostics.gradients={_target_: molsam.diagnostics.gradients.GradientDiagnostics}"
    words = settings(name, "optimizer=graphsam", "diagnostics=sharpness", gradients, "training.precision=fp64")
    outcomes = []
    for device in ("cpu", "cuda"):
        with fake_cuda(monkeypatch):
            chosen = [*words, f"training.device={device}"]
            wiring.start(compose(chosen), tmp_path / device, chosen)
        outcomes.append(result.read(tmp_path / device))
    here, there = outcomes
    assert here is not None
    assert there is not None
    assert there["machine"]["device"] == "cuda"
    for part in ("valid", "test"):
        assert there[part][there["metric"]] == pytest.approx(here[part][here["metric"]], rel=1e-7)
    for key, value in here["gradients"].items():
        assert there["gradients"][key] == (value if value is None else pytest.approx(value, rel=1e-6)), key
