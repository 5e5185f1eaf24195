"""Training rates on a GPU or another device, and whether it computes what the CPU does."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch

from molsam.bench.peak import median, spread
from molsam.bench.training import Bench
from molsam.training.accelerator import device_memory_mb, forget_memory

OPTIMIZERS = ("adam", "graphsam")
BATCHES = (32, 512)
COMPARED = 3
"""Steps of which the losses are compared with the CPU's."""


def bench_device(
    models: Sequence[str], dataset: str, device: str, rounds: int, seconds: float, overrides: Sequence[str]
) -> list[dict[str, Any]]:
    """graphs/s of each model and optimizer at two batch sizes, one after the other.

    `memory_mb` is the most that tensors held on the device; `difference` the largest relative difference of the first
    steps' losses from those of the CPU, of the same weights and molecules. Raises ConfigError if the device cannot be
    used.
    """
    from molsam.wiring.check import check_device

    check_device("--device", device)
    return [
        _row(
            model,
            dataset,
            device,
            rounds,
            seconds,
            [f"optimizer={optimizer}", f"training.batch_size={size}", *overrides],
        )
        for model, optimizer, size in product(models, OPTIMIZERS, BATCHES)
    ]


def _row(model: str, dataset: str, device: str, rounds: int, seconds: float, settings: list[str]) -> dict[str, Any]:
    wanted = _losses(Bench(model, dataset, settings))
    gc.collect()
    forget_memory(device)
    bench = Bench(model, dataset, [*settings, f"training.device={device}"])
    pairs = zip(_losses(bench), wanted, strict=True)
    difference = max(abs(found - value) / max(abs(value), 1e-12) for found, value in pairs)
    bench.rate(min(seconds, 1.0))
    rates = [bench.rate(seconds) for _ in range(rounds)]
    return {
        "model": model,
        "optimizer": bench.cfg.choices.optimizer,
        "batch": bench.size,
        "graphs_per_s": median(rates),
        "spread": spread(rates),
        "memory_mb": device_memory_mb(device) or "-",
        "difference": difference,
    }


def _losses(bench: Bench) -> list[float]:
    trainer, found = bench.trainer, []
    torch.manual_seed(0)
    for _ in range(COMPARED):
        trainer.closure.batches = next(bench.steps)
        found.append(float(trainer.optimizer.step(trainer.closure)))
    return found
