"""The benchmark of a device: every model and optimizer at both sizes, and the device's losses beside the CPU's."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from molsam.bench import device
from molsam.commands import bench as command
from molsam.errors import ConfigError
from tests.fake_device import fake_cuda

pytestmark = pytest.mark.filterwarnings("ignore:PyTorch was compiled without cuDNN")
SMALL = ["dataset.limit=60", "training.threads=1"]


def arguments(*words: str) -> Namespace:
    parser = ArgumentParser()
    command.configure(parser)
    return parser.parse_args(words)


def test_losses_and_memory_of_the_device_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "OPTIMIZERS", ("graphsam",))
    monkeypatch.setattr(device, "BATCHES", (8,))
    with fake_cuda(monkeypatch):
        (row,) = device.bench_device(["gcn"], "esol", "cuda", 1, 0.01, SMALL)
    assert (row["model"], row["optimizer"], row["batch"], row["memory_mb"]) == ("gcn", "graphsam", 8, 1)
    assert 0 < row["difference"] < 1e-4, "float32 rounds differently, and the weights are the same"
    assert row["graphs_per_s"] > 0


def test_another_loss_on_the_device_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Bench:
        size, cfg = 32, SimpleNamespace(choices=SimpleNamespace(optimizer="adam"))

        def __init__(self, model: str, dataset: str, settings: list[str]) -> None:
            self.there = "training.device=cpu" in settings

        def rate(self, seconds: float) -> float:
            assert self.there, "the CPU is only compared with"
            return 7.0

    monkeypatch.setattr(device, "Bench", Bench)
    monkeypatch.setattr(device, "_losses", lambda bench: [1.0, 2.0, 5.0 if bench.there else 4.0])
    (row, *_) = device.bench_device(["gcn"], "esol", "cpu", 1, 0.01, [])
    assert row == {"model": "gcn", "optimizer": "adam", "batch": 32, "graphs_per_s": 7, "spread": 0, "memory_mb": "-",
                   "difference": 0.25}  # fmt: skip


def test_the_command_measures_each_model_at_two_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def row(*given: Any) -> dict[str, Any]:
        asked.append(given)
        return {"model": given[0]}

    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="--device=cuda cannot be used"):
            command.run(arguments("--device", "cuda"))
    monkeypatch.setattr(device, "_row", row)
    monkeypatch.setattr("molsam.wiring.check.check_device", lambda *_: None)
    assert command.run(arguments("--device", "cuda", "training.precision=bf16")) == 0
    assert len(asked) == 6 * 2 * 2
    assert {one[1] for one in asked} == {"esol"}
    assert {one[2] for one in asked} == {"cuda"}
    assert len(asked) * asked[0][3] * asked[0][4] <= 150, "seconds of measuring: with the building under five minutes"
    sizes = {setting for one in asked for setting in one[5]}
    expected = {"optimizer=adam", "optimizer=graphsam", "training.batch_size=32", "training.batch_size=512"}
    assert sizes == {*expected, "training.precision=bf16"}
    with pytest.raises(ConfigError, match="--device cuda goes with training, not with features"):
        command.run(arguments("features", "--device", "cuda"))
