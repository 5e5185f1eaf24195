"""Worker that trains one of our models, with the protocol of peer_worker, and also measures peak memory.

Its argument is a JSON object: model, dataset, overrides, threads. It prints "ready", then answers a number of seconds
with graphs/s, "memory" with the peak in MB after an epoch of training and a validation, and "flops" with the
operations of torch's matrix products per molecule.
"""

from __future__ import annotations

import json
import sys

import torch

from molsam.bench.training import Bench
from molsam.native.process import peak_memory_mb


def main() -> None:
    """Train and answer until the input ends."""
    given = json.loads(sys.argv[1])
    torch.set_num_threads(given["threads"])
    bench = Bench(given["model"], given["dataset"], given["overrides"])
    for _ in range(3):
        bench.step()
    print("ready", flush=True)
    for line in sys.stdin:
        print(answer(bench, line.strip()), flush=True)


def answer(bench: Bench, question: str) -> float:
    """Return the answer to a line of input."""
    if question == "memory":
        return memory(bench)
    return bench.flops_per_graph() if question == "flops" else bench.rate(float(question))


def memory(bench: Bench) -> float:
    """Return the peak memory of this process in MB after an epoch of training and a validation."""
    trainer = bench.trainer
    order = trainer.order(0)
    for start in range(0, len(order), bench.size):
        bench.train_on([trainer.batch(order[start : start + bench.size])])
    trainer.evaluate(trainer.split.valid)
    return peak_memory_mb()


if __name__ == "__main__":
    main()
