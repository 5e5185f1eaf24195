"""Every model and optimizer trains on the simulated device (tests.fake_device), at the expected cost per step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from molsam.config.compose import compose
from molsam.data.split import make_split
from molsam.runs import result
from molsam.training.loop import Trainer
from molsam.wiring import check
from molsam.wiring import run as wiring
from tests.batteries.optimizers import NAMES
from tests.batteries.test_models import MODELS
from tests.fake_device import Counts, OnDevice, fake_cuda

pytestmark = pytest.mark.filterwarnings("ignore:PyTorch was compiled without cuDNN")
SMALL = ("dataset.limit=160", "training.batch_size=32", "training.threads=1", "split.fold=0")
BARS = {"gcn": 80, "dmpnn": 100, "mpnn": 180, "cmpnn": 180, "compt": 395, "grover": 250}
"""most launches of a step with Adam; a new model has no bar yet"""
RESUMED = [("gcn", "graphsam")] + [
    pytest.param(*pair, marks=pytest.mark.slow)
    for pair in [*product(["gcn"], NAMES), *product(MODELS, ["graphsam"])]
    if pair != ("gcn", "graphsam")
]
"""models and optimizers that are resumed: each of either"""
COPIES: dict[str, int] = {}
"""most copies to the device, where they are not two: the batch, and what a model makes of it on the CPU"""


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    with fake_cuda(monkeypatch) as counts:
        yield counts


def trainer(folder: Path, *settings: str) -> Trainer:
    """A run as its settings build it, before the first step."""
    cfg = compose([*SMALL, *settings])
    OmegaConf.resolve(cfg)
    training = check.check(cfg)
    dataset = wiring.load_dataset(cfg)
    split = make_split(dataset, cfg.split, seed=cfg.seed, fold=0)
    made: Trainer = wiring.make_trainer(cfg, training, dataset, split, folder)
    made.model.train()
    made.totals = dict.fromkeys(
        ("loss", "clean", "clean_steps", "perturbed", "perturbed_steps", "not_finite", "passes"), 0.0
    )
    return made


def steps(made: Trainer, count: int) -> list[float]:
    """Take the next steps of the first epoch; the loss of each."""
    losses = []
    for _, batches in zip(range(count), made.steps(made.order(0), made.step), strict=False):
        made.closure.batches = batches
        made._take_step()
        made.step += 1
        losses.append(float(made.loss))
    return losses


def on_cpu(weights: dict[str, Any]) -> torch.Tensor:
    """All weights as one vector."""
    return torch.cat([getattr(w, "elem", w).detach().flatten().double() for w in weights.values()])


@pytest.mark.parametrize("name", MODELS)
def test_a_model_trains_as_on_the_cpu_and_waits_little(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    settings = (f"model={name}", "optimizer=adam", "training.precision=fp64")
    wanted = steps(here := trainer(tmp_path, *settings), 3)
    with fake_cuda(monkeypatch) as counts:
        there = trainer(tmp_path, *settings, "training.device=cuda")
        found = steps(there, 1)
        counts.clear()
        found += steps(there, 2)
        launches, waits, up = counts.per_step(2)
        assert all(isinstance(weight, OnDevice) for weight in there.model.state_dict().values())
    assert found == pytest.approx(wanted, rel=1e-9)
    torch.testing.assert_close(on_cpu(there.model.state_dict()), on_cpu(here.model.state_dict()), rtol=1e-7, atol=1e-9)
    assert launches <= BARS.get(name, 10_000), counts.launches
    assert waits <= 1, (counts.waits, counts.down)
    assert up <= COPIES.get(name, 2), counts.up


QUICK = ("adam", "sam", "graphsam", "looksam", "esam")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_an_optimizer_steps_on_the_device(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    settings = ("model=dmpnn", f"optimizer={name}", "model.hidden_size=8", "training.precision=fp64")
    wanted = steps(here := trainer(tmp_path, *settings), 3)
    with fake_cuda(monkeypatch):
        there = trainer(tmp_path, *settings, "training.device=cuda")
        found = steps(there, 3)
    assert found == pytest.approx(wanted, rel=1e-8)
    torch.testing.assert_close(on_cpu(there.model.state_dict()), on_cpu(here.model.state_dict()), rtol=1e-6, atol=1e-8)


def test_a_run_goes_through_on_the_device(device: Counts, tmp_path: Path) -> None:
    settings = [
        *SMALL, "model=gcn", "optimizer=graphsam", "training.device=cuda", "training.epochs=2", "diagnostics=sharpness",
        "+diagnostics.gradients={_target_: molsam.diagnostics.gradients.GradientDiagnostics}",
    ]  # fmt: skip
    wiring.start(compose(settings), tmp_path, settings)
    outcome = result.read(tmp_path)
    assert outcome is not None
    assert outcome["machine"]["device"] == "cuda"
    assert outcome["machine"]["device_name"] == "no device at all"
    assert outcome["device_memory_mb"] == 1


@pytest.mark.parametrize(("model", "optimizer"), RESUMED)
def test_training_goes_on_from_a_checkpoint_on_the_device(
    model: str, optimizer: str, device: Counts, tmp_path: Path
) -> None:
    settings = (f"model={model}", f"optimizer={optimizer}", "training.device=cuda")
    whole = steps(trainer(tmp_path / "whole", *settings), 4)
    first = trainer(tmp_path / "parts", *settings)
    assert steps(first, 2) == whole[:2]
    first.save()
    second = trainer(tmp_path / "parts", *settings)
    second._resume()
    assert steps(second, 2) == whole[2:]


@pytest.mark.parametrize(
    "name", [name if name == "dmpnn" else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_bf16_on_the_device(name: str, device: Counts, tmp_path: Path) -> None:
    made = trainer(tmp_path, f"model={name}", "optimizer=graphsam", "training.device=cuda", "training.precision=bf16")
    assert all(math.isfinite(loss) for loss in steps(made, 2))
