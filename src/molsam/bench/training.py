"""Training throughput of each model: graphs/s, the parts of a step, and the fraction of the matrix peak."""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from molsam.bench.peak import count_flops, matrix_peak, median, spread
from molsam.bench.process import Process
from molsam.data.api import Batch
from molsam.training.loop import AHEAD

BATCH = {"compt": 32, "grover": 32, "cmpnn": 50, "dmpnn": 64, "gcn": 32, "mpnn": 32}
"""The batch sizes of the published speed figures."""
WORKER = (sys.executable, "-m", "molsam.bench.worker")
PLAIN = {"MOLSAM_KERNELS": "torch"}
"""Environment variables of a process without the C kernels."""
PARTS = ("data", "forward", "backward", "optimizer", "logging")


def _molecules(batches: Sequence[Batch]) -> int:
    """Return the number of molecules, without the filler of padded batches (training.graphs)."""
    fillers = (getattr(getattr(batch, "here", batch), "real", None) for batch in batches)
    return sum(len(b) if real is None else int(real.count_nonzero()) for b, real in zip(batches, fillers, strict=True))


class Bench:
    """One model on one dataset, wired as in a training run."""

    def __init__(self, model: str, dataset: str, overrides: Sequence[str] = ()) -> None:
        from molsam.config.compose import compose
        from molsam.data.split import make_split
        from molsam.native.process import keep_freed_memory
        from molsam.wiring import check
        from molsam.wiring.run import load_dataset, make_trainer

        batch = BATCH.get(model, 32)
        chosen = [
            f"model={model}",
            f"dataset={dataset}",
            "optimizer=adam",
            f"training.batch_size={batch}",
            "split.fold=0",
        ]
        keep_freed_memory()
        self.cfg = compose([*chosen, *overrides])
        self.name, self.dataset_name = model, dataset
        training = check.check(self.cfg)
        dataset_ = load_dataset(self.cfg)
        split = make_split(dataset_, self.cfg.split, seed=self.cfg.seed, fold=0)
        self.trainer = make_trainer(self.cfg, training, dataset_, split, Path(tempfile.gettempdir()))
        self.trainer.trackers = []  # nothing is logged, and no file stays open
        self.trainer.model.train()
        gc.freeze()  # as in Trainer.fit
        self.size = training.batch_size
        self.steps = self.full_steps()

    def full_steps(self) -> Iterator[list[Batch]]:
        """Yield the batches of each step, epoch after epoch; only batches of full size."""
        for epoch in count():
            order = self.trainer.order(epoch)
            yield from self.trainer.steps(order[: max(len(order) // self.size, 1) * self.size])

    def step(self) -> int:
        """Make one training step, data included, and return its number of molecules."""
        return self.train_on(next(self.steps))

    def train_on(self, batches: list[Batch]) -> int:
        """Make one training step on these batches, and return their number of molecules."""
        self.trainer.closure.batches = batches
        float(self.trainer.optimizer.step(self.trainer.closure))
        return _molecules(batches)

    def rate(self, seconds: float) -> float:
        """Return graphs/s over about `seconds`."""
        graphs, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < seconds:
            graphs += self.step()
        return graphs / spent

    def rate_of_steps(self, steps: int) -> float:
        """Return graphs/s over `steps` steps, so that benches of one dataset see the same molecules."""
        graphs, started = 0, time.perf_counter()
        for _ in range(steps):
            graphs += self.step()
        return graphs / (time.perf_counter() - started)

    def parts(self, steps: int = 2 * AHEAD) -> dict[str, float]:
        """Return the milliseconds per step of data, forward, backward, optimizer (the rest of its step) and logging.

        They are medians; for data the mean, because the batches of several steps are assembled together. Logging is
        what the loop does between steps, divided by the number of steps per line of metrics.jsonl.
        """
        trainer, every = self.trainer, self.trainer.settings.log_every
        times: dict[str, list[float]] = {part: [] for part in PARTS}
        marks: list[float] = []

        def closure() -> Tensor:
            for batch in batches:
                marks.append(time.perf_counter())
                loss = trainer.closure.loss(batch)
                marks.append(time.perf_counter())
                loss.backward()
                loss = loss.detach()  # frees the graph
                marks.append(time.perf_counter())
            return loss

        for _ in range(steps):
            marks.clear()
            started = time.perf_counter()
            batches = next(self.steps)
            fetched = time.perf_counter()
            trainer.loss = trainer.optimizer.step(closure)
            float(trainer.loss)
            stepped = time.perf_counter()
            trainer.step = every
            trainer.log_step()
            ended = time.perf_counter()
            begun, between, done = (sum(marks[kind::3]) for kind in range(3))
            forward, backward = between - begun, done - between
            rest = stepped - fetched - forward - backward
            for part, value in zip(
                PARTS, (fetched - started, forward, backward, rest, (ended - stepped) / every), strict=True
            ):
                times[part].append(1000 * value)
        shares = {part: median(values) for part, values in times.items()}
        return shares | {"data": sum(times["data"]) / steps}

    def flops_per_graph(self, steps: int = 8) -> float:
        """Return the floating-point operations of torch's matrix products in forward and backward, per molecule."""
        graphs = 0

        def run() -> None:
            nonlocal graphs
            for _ in range(steps):
                self.trainer.closure.batches = next(self.steps)
                graphs += _molecules(self.trainer.closure.batches)
                self.trainer.closure()

        return count_flops(run) / graphs


def bench_training(
    models: Sequence[str],
    datasets: Sequence[str],
    rounds: int,
    seconds: float,
    overrides: Sequence[str],
    *,
    memory: bool = True,
) -> list[dict[str, Any]]:
    """Measure interleaved rounds over all models and datasets, and the machine's peak in every round."""
    benches = [Bench(model, dataset, overrides) for dataset in datasets for model in models]
    for bench in benches:
        bench.rate(min(seconds, 1.0))
    rates: dict[int, list[float]] = {i: [] for i in range(len(benches))}
    peaks: dict[int, list[float]] = {i: [] for i in range(len(benches))}
    for _ in range(rounds):
        for i, bench in enumerate(benches):
            peaks[i].append(matrix_peak())
            rates[i].append(bench.rate(seconds))
    rows = [_row(bench, rates[i], peaks[i], overrides) for i, bench in enumerate(benches)]
    if memory:
        for row, bench in zip(rows, benches, strict=True):
            row["memory_mb"] = _ask(bench, overrides, "memory")
    return rows


def _row(bench: Bench, rates: list[float], peaks: list[float], overrides: Sequence[str]) -> dict[str, Any]:
    peak, parts = median(peaks), bench.parts()
    work = _ask(bench, overrides, "flops", PLAIN)
    return {
        "model": bench.name,
        "dataset": bench.dataset_name,
        "batch": bench.size,
        "graphs_per_s": median(rates),
        "spread": spread(rates),
        "floor_graphs_per_s": peak * 1e9 / work,
        "peak_gflops": peak,
        "fraction_of_peak": median([rate * work / (p * 1e9) for rate, p in zip(rates, peaks, strict=True)]),
        **{f"{name}_share": value / sum(parts.values()) for name, value in parts.items()},
    }


def _worker(
    model: str, dataset: str, overrides: Sequence[str], environment: Mapping[str, str] | None = None
) -> Process:
    given = {"model": model, "dataset": dataset, "overrides": list(overrides), "threads": torch.get_num_threads()}
    return Process(WORKER, given, environment)


def _ask(bench: Bench, overrides: Sequence[str], what: str, environment: Mapping[str, str] | None = None) -> float:
    """Return the answer of a new process with the same model and dataset (bench/worker.py)."""
    with _worker(bench.name, bench.dataset_name, overrides, environment) as worker:
        worker.ask(what)
        return float(worker.answer())


def bench_variants(
    models: Sequence[str],
    datasets: Sequence[str],
    variants: Sequence[str],
    rounds: int,
    seconds: float,
    overrides: Sequence[str],
) -> list[dict[str, Any]]:
    """Compare settings in interleaved rounds; `ratio` is the median of the rounds' ratios to the first variant."""
    rows = []
    for model, dataset in product(models, datasets):
        benches = [Bench(model, dataset, [*overrides, *variant.split()]) for variant in variants]
        rates = interleaved(benches, rounds, seconds)
        for variant, own in zip(variants, rates, strict=True):
            ratios = [a / b for a, b in zip(own, rates[0], strict=True)]
            rows.append(
                {
                    "model": model,
                    "dataset": dataset,
                    "settings": variant,
                    "graphs_per_s": median(own),
                    "spread": spread(own),
                    "ratio": median(ratios),
                }
            )
    return rows


def bench_kernels(
    models: Sequence[str], datasets: Sequence[str], rounds: int, seconds: float, overrides: Sequence[str]
) -> list[dict[str, Any]]:
    """Compare a process with the C kernels and one without, in turns; `ratio` is the median of the rounds' ratios."""
    rows = []
    for model, dataset in product(models, datasets):
        compiled, alone = list[float](), list[float]()
        with _worker(model, dataset, overrides) as with_c, _worker(model, dataset, overrides, PLAIN) as without:
            for _ in range(rounds + 1):
                for worker, rates in ((with_c, compiled), (without, alone)):
                    worker.ask(seconds)
                    rates.append(float(worker.answer()))
        ratios = [a / b for a, b in zip(compiled[1:], alone[1:], strict=True)]  # the first round warms up
        rows.append(
            {
                "model": model,
                "dataset": dataset,
                "graphs_per_s": median(compiled[1:]),
                "torch_graphs_per_s": median(alone[1:]),
                "ratio": median(ratios),
                "lowest_ratio": min(ratios),
                "highest_ratio": max(ratios),
            }
        )
    return rows


def interleaved(benches: Sequence[Bench], rounds: int, seconds: float) -> list[list[float]]:
    """Return graphs/s of each bench in each round."""
    for bench in benches:
        bench.rate(min(seconds, 1.0))
    found = [[bench.rate(seconds) for bench in benches] for _ in range(rounds)]
    return [list(column) for column in zip(*found, strict=True)]
