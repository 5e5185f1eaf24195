"""Many short runs in one process: memory and file handles do not grow."""

from __future__ import annotations

import gc
from pathlib import Path

import psutil
import pytest

from tests.trust.helpers import settings, train

RUNS = 150


@pytest.mark.slow
def test_many_runs_in_one_process(tmp_path: Path) -> None:
    process = psutil.Process()
    cfgs = [settings(model, "training.epochs=1", "diagnostics=gradients") for model in ("gcn", "compt", "dmpnn")]
    memory, handles = [], []
    for number in range(RUNS):
        train(cfgs[number % 3], tmp_path / str(number))
        gc.collect()
        memory.append(process.memory_info().rss / 2**20)
        handles.append(process.num_fds())
    print(f"memory {memory[30]:.0f} -> {memory[-1]:.0f} MB, handles {handles[30]} -> {handles[-1]}")
    assert handles[-1] <= handles[30]
    assert memory[-1] - memory[30] < 10, memory
