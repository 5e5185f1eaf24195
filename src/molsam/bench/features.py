"""Featurisation in molecules/s on one core, and the time from the command to the first step."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from molsam.bench.peak import median, spread


def bench_features(models: Sequence[str], dataset: str, rounds: int, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Parsing and featurising the whole dataset on one core, per model's featurizer."""
    from molsam import preflight
    from molsam.chem.molecule import parse
    from molsam.config import compose
    from molsam.run import load_dataset

    rows = []
    for model in models:
        cfg = compose([f"model={model}", f"dataset={dataset}", *overrides])
        featurizer = preflight.build("model.featurizer", cfg.model.featurizer)
        smiles = load_dataset(cfg).smiles
        rates = []
        for _ in range(rounds):
            started = time.perf_counter()
            for one in smiles:
                featurizer(parse(one))
            rates.append(len(smiles) / (time.perf_counter() - started))
        rows.append({"model": model, "dataset": dataset, "molecules_per_s": median(rates), "spread": spread(rates)})
    return rows


def bench_start(rounds: int) -> list[dict[str, Any]]:
    """Seconds of `train.py --help`, and to the first step on ESOL with a cold and a warm cache."""
    program = [sys.executable, "-m", "molsam.main"]
    rows = [{"what": "--help", **_seconds([*program, "--help"], rounds)}]
    with tempfile.TemporaryDirectory() as folder:
        one_step = [*program, "dataset.limit=64", "training.epochs=1", "training.batch_size=64", "overwrite=true"]
        place = [f"paths.cache={folder}/cache", f"hydra.run.dir={folder}/run"]
        rows.append({"what": "64 molecules, one step, cold cache", **_seconds([*one_step, *place], 1)})
        rows.append({"what": "64 molecules, one step, warm cache", **_seconds([*one_step, *place], rounds)})
    return rows


def _seconds(command: list[str], rounds: int) -> dict[str, float]:
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - started)
    return {"seconds": median(times), "spread": spread(times)}
