"""What each optimizer costs beside Adam and SAM, and beside what its passes allow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from molsam.bench.peak import median, spread
from molsam.bench.training import Bench


def bench_optimizers(
    optimizers: Sequence[str],
    models: Sequence[str],
    dataset: str,
    rounds: int,
    seconds: float,
    overrides: Sequence[str],
) -> list[dict[str, Any]]:
    """Interleaved rounds over the same batches; ratios are medians of the ratios within a round.

    `passes_per_step` is counted over the run (GraphSAM's anchors fall once an epoch), `allowed` is
    Adam's throughput divided by it, `distance` how far the optimizer stays below that.
    """
    rows = []
    names = list(dict.fromkeys(["adam", "sam", *optimizers]))
    for model in models:
        benches = {name: Bench(model, dataset, [f"optimizer={name}", *overrides]) for name in names}
        rates: dict[str, list[float]] = {name: [] for name in names}
        steps = max(int(seconds * benches["adam"].rate(max(seconds, 1.0)) / benches["adam"].size), 1)
        for bench in benches.values():
            bench.rows, bench.epoch = [], 0
            bench.rate_of_steps(steps)
        before = {
            name: (bench.trainer.closure.passes, bench.trainer.optimizer.steps) for name, bench in benches.items()
        }
        for _ in range(rounds):
            for name, bench in benches.items():
                rates[name].append(bench.rate_of_steps(steps))
        for name, bench in benches.items():
            passes, steps = before[name]
            per_step = (bench.trainer.closure.passes - passes) / (bench.trainer.optimizer.steps - steps)
            to_adam = median([a / b for a, b in zip(rates[name], rates["adam"], strict=True)])
            rows.append(
                {
                    "model": model,
                    "dataset": dataset,
                    "optimizer": name,
                    "graphs_per_s": median(rates[name]),
                    "spread": spread(rates[name]),
                    "passes_per_step": per_step,
                    "ratio_to_adam": to_adam,
                    "ratio_to_sam": median([a / b for a, b in zip(rates[name], rates["sam"], strict=True)]),
                    "allowed_by_passes": 1 / per_step,
                    "distance": 1 - to_adam * per_step,
                }
            )
    return rows
