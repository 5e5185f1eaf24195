"""Cost of each optimizer compared with Adam, with SAM, and with what its number of passes allows."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from molsam.bench.peak import median
from molsam.bench.training import Bench

LEARNING_RATE = 1e-5
"""Learning rate of all optimizers, so small that none diverges."""


class Step(NamedTuple):
    """One timed step."""

    seconds: float
    passes: int


def bench_optimizers(
    optimizers: Sequence[str],
    models: Sequence[str],
    dataset: str,
    rounds: int,
    seconds: float,
    overrides: Sequence[str],
) -> list[dict[str, Any]]:
    """Time the optimizers step by step in turns, on the same batches, and return a row for each.

    A round is an epoch, or shorter if Adam's share of it would exceed `seconds`. The order of the turns rotates.

    `passes_per_step` is counted (GraphSAM has one extra pass per epoch). `allowed_by_passes` is its inverse. `distance`
    is the relative shortfall of the ratio to Adam from that. ESAM's passes count fully, although it saves parts of
    them.
    """
    rows = []
    names = list(dict.fromkeys(["adam", "sam", *optimizers]))
    for model in models:
        benches = {name: Bench(model, dataset, [f"optimizer={name}", *overrides]) for name in names}
        for bench in benches.values():
            for group in bench.trainer.optimizer.param_groups:
                group["lr"] = LEARNING_RATE
        adam = benches["adam"]
        warm = median([_timed(adam).seconds for _ in range(8)])
        steps = max(min(int(seconds / warm), adam.trainer.steps_per_epoch), 1)
        for bench in benches.values():
            bench.steps = bench.full_steps()
            for _ in range(3):
                _timed(bench)
        runs = _take_turns(benches, rounds * steps)
        costs = {name: cost(run, runs["adam"]) for name, run in runs.items()}
        for name, run in runs.items():
            per_step = sum(step.passes for step in run) / len(run)
            to_adam = 1 / costs[name]
            rows.append(
                {
                    "model": model,
                    "dataset": dataset,
                    "optimizer": name,
                    "graphs_per_s": len(run) * adam.size / sum(step.seconds for step in run),
                    "passes_per_step": per_step,
                    "ratio_to_adam": to_adam,
                    "ratio_to_sam": costs["sam"] / costs[name],
                    "allowed_by_passes": 1 / per_step,
                    "distance": 1 - to_adam * per_step,
                    "spread": _spread(run, runs["adam"]),
                    "steps": len(run),
                }
            )
    return rows


def _take_turns(benches: dict[str, Bench], steps: int) -> dict[str, list[Step]]:
    """Make `steps` steps with each optimizer, in turns on the same batch; the one that begins rotates."""
    runs: dict[str, list[Step]] = {name: [] for name in benches}
    names = list(benches)
    for turn in range(steps):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            runs[name].append(_timed(benches[name]))
    return runs


def _timed(bench: Bench) -> Step:
    """Make one step, data included, and return its time and passes."""
    before, started = bench.trainer.optimizer.passes, time.perf_counter()
    bench.step()
    return Step(time.perf_counter() - started, bench.trainer.optimizer.passes - before)


def cost(run: Sequence[Step], adam: Sequence[Step]) -> float:
    """Return the mean time of a step relative to Adam's on the same batch.

    Steps of equal number of passes are represented by their median. Outliers of the machine then do not count, while
    rare steps of two passes do.
    """
    kinds: dict[int, list[float]] = defaultdict(list)
    for one, other in zip(run, adam, strict=True):
        kinds[one.passes].append(one.seconds / other.seconds)
    return sum(len(ratios) * median(ratios) for ratios in kinds.values()) / len(run)


def _spread(run: Sequence[Step], adam: Sequence[Step]) -> float:
    """Return the interquartile range of the steps' times per pass, as ratios to Adam's, relative to the median."""
    ratios = sorted(one.seconds / one.passes / other.seconds for one, other in zip(run, adam, strict=True))
    return (ratios[3 * len(ratios) // 4] - ratios[len(ratios) // 4]) / median(ratios)
