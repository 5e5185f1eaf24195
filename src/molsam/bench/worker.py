"""Trains one of our models in a process of its own; the same protocol as peer_worker's, and peak memory.

Started with one argument, a JSON object: model, dataset, overrides, threads. Says "ready", then answers a number of
seconds with graphs/s, "memory" with the peak in MB after an epoch of training and a validation, and "flops" with
the operations of torch's matrix products per molecule.
"""

from __future__ import annotations

import json
import sys

import torch

from molsam.bench.training import Bench
from molsam.native.memory import peak_memory_mb


def main() -> None:
    """The rounds."""
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    bench = Bench(given["model"], given["dataset"], given["overrides"])
    for _ in range(3):
        bench.step()
    print("ready", flush=True)
    for line in sys.stdin:
        print(answer(bench, line.strip()), flush=True)


def answer(bench: Bench, question: str) -> float:
    """Return what a line asks for."""
    if question == "memory":
        return memory(bench)
    return bench.flops_per_graph() if question == "flops" else bench.rate(float(question))


def memory(bench: Bench) -> float:
    """Peak memory of this process in MB, with every training molecule seen and the validation made."""
    trainer = bench.trainer
    order = trainer.order(0)
    for start in range(0, len(order), bench.size):
        bench.train_on([trainer.batch(order[start : start + bench.size])])
    trainer.evaluate(trainer.split.valid)
    return peak_memory_mb()


if __name__ == "__main__":
    main()
