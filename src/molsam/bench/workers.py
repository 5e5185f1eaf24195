"""Sharing of the cores between runs: one run with all threads, or one run per core."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch

from molsam.bench.peak import matrix_peak, median, spread
from molsam.bench.process import Process
from molsam.bench.training import WORKER


def bench_workers(
    models: Sequence[str], datasets: Sequence[str], rounds: int, seconds: float, overrides: Sequence[str]
) -> list[dict[str, Any]]:
    """Measure graphs/s of N workers with one thread each and of one worker with N threads, in interleaved rounds."""
    return [_row(model, dataset, rounds, seconds, overrides) for dataset in datasets for model in models]


def _row(model: str, dataset: str, rounds: int, seconds: float, overrides: Sequence[str]) -> dict[str, Any]:
    cores = torch.get_num_threads()
    given = {"model": model, "dataset": dataset, "overrides": list(overrides)}
    with ExitStack() as stack:
        alone = stack.enter_context(Process(WORKER, {**given, "threads": cores}))
        beside = [stack.enter_context(Process(WORKER, {**given, "threads": 1})) for _ in range(cores)]
        one, many, peaks = [], [], []
        for _ in range(rounds):
            peaks.append(matrix_peak())
            one.append(_total([alone], seconds))
            many.append(_total(beside, seconds))
    return {
        "model": model,
        "dataset": dataset,
        "workers": cores,
        "workers_of_one_thread": median(many),
        "spread": spread(many),
        "one_worker_of_all_threads": median(one),
        "one_worker_spread": spread(one),
        "ratio": median([a / b for a, b in zip(many, one, strict=True)]),
        "peak_gflops": median(peaks),
    }


def _total(workers: Sequence[Process], seconds: float) -> float:
    """Return graphs/s of all workers together, started at the same time."""
    for worker in workers:
        worker.ask(seconds)
    return sum(float(worker.answer()) for worker in workers)
