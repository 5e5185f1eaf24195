"""What each optimizer costs beside Adam and SAM, and beside what its passes allow."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from molsam.bench.peak import median
from molsam.bench.training import Bench

LEARNING_RATE = 1e-5
"""of all, so small that none diverges"""


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
    """Return the optimizers take turns, step by step, on the same batches; a round is an epoch, or shorter if Adam's
    share of it would exceed `seconds`. The order of the turns rotates.

    `passes_per_step` is counted (GraphSAM's anchors fall once an epoch), `allowed_by_passes` is its inverse and
    `distance` how far the ratio to Adam stays below that. ESAM's passes count whole, though parts of them are spared.
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
    """So many steps of each, one after the other on the same batch, each time beginning with another one."""
    runs: dict[str, list[Step]] = {name: [] for name in benches}
    names = list(benches)
    for turn in range(steps):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            runs[name].append(_timed(benches[name]))
    return runs


def _timed(bench: Bench) -> Step:
    """Return one step, data included."""
    before, started = bench.trainer.optimizer.passes, time.perf_counter()
    bench.step()
    return Step(time.perf_counter() - started, bench.trainer.optimizer.passes - before)


def cost(run: Sequence[Step], adam: Sequence[Step]) -> float:
    """Time of a step in Adam's on the same batch: the median of the steps with as many passes, weighted by how many
    those are. So a hiccup of the machine counts for nothing, and a rare step of two passes for what it is."""
    kinds: dict[int, list[float]] = defaultdict(list)
    for one, other in zip(run, adam, strict=True):
        kinds[one.passes].append(one.seconds / other.seconds)
    return sum(len(ratios) * median(ratios) for ratios in kinds.values()) / len(run)


def _spread(run: Sequence[Step], adam: Sequence[Step]) -> float:
    """Half of all steps are within so much of each other, as ratios to Adam's per pass."""
    ratios = sorted(one.seconds / one.passes / other.seconds for one, other in zip(run, adam, strict=True))
    return (ratios[3 * len(ratios) // 4] - ratios[len(ratios) // 4]) / median(ratios)
