"""Featurization in molecules/s on one core, and the time from the command to the first step."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from molsam.bench.peak import median, spread
from molsam.config.command import train_arguments
from molsam.errors import StorageError


def bench_features(models: Sequence[str], dataset: str, rounds: int, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Return molecules/s of each model's featurizer over the whole dataset, on one core.

    molecules_per_s: parsing and featurizing. packed_per_s: also the canonical SMILES and the packing, as for the cache.
    parsed_per_s: parsing alone, which is the upper limit.
    """
    from molsam.chem.molecule import parse
    from molsam.config.compose import compose
    from molsam.data.featurize import Work, arrays_of, featurize
    from molsam.wiring import build
    from molsam.wiring.run import load_dataset

    rows = []
    for model in models:
        cfg = compose([f"model={model}", f"dataset={dataset}", *overrides])
        featurizer = build.build("model.featurizer", cfg.model.featurizer)
        smiles = load_dataset(cfg).smiles
        steps: dict[str, Callable[[], object]] = {
            "molecules_per_s": lambda: list(arrays_of(featurizer, smiles)),  # noqa: B023 - called in this turn
            "packed_per_s": lambda: featurize(smiles, Work(featurizer, None), cores=1),  # noqa: B023
            "parsed_per_s": lambda: [parse(one) for one in smiles],  # noqa: B023
        }
        rates: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(rounds):
            for name, step in steps.items():
                started = time.perf_counter()
                step()
                rates[name].append(len(smiles) / (time.perf_counter() - started))
        medians = {name: median(found) for name, found in rates.items()}
        rows.append({"model": model, "dataset": dataset, **medians, "spread": spread(rates["molecules_per_s"])})
    return rows


def bench_start(rounds: int) -> list[dict[str, Any]]:
    """Return the seconds of `molsam train --help`, and to the first step on ESOL with a cold and a warm cache."""
    program = train_arguments()
    rows = [{"what": "--help", **_seconds([*program, "--help"], rounds)}]
    with tempfile.TemporaryDirectory() as folder:
        # The file is created at the first step; its contents are written after the epoch's validation.
        run = [*program, "dataset.limit=64", "training.epochs=1", "training.log_every=1", "overwrite=true"]
        run += [f"paths.cache={folder}/cache", f"hydra.run.dir={folder}/run"]
        written = Path(folder, "run", "metrics.jsonl")
        rows.append({"what": "first step, cold cache", **_seconds(run, 1, written)})
        rows.append({"what": "first step, warm cache", **_seconds(run, rounds, written)})
    return rows


def _seconds(command: list[str], rounds: int, written: Path | None = None) -> dict[str, float]:
    """Return the seconds until the command ends, or has created the file `written`, after which it is killed."""
    times = []
    for _ in range(rounds):
        if written is not None:
            written.unlink(missing_ok=True)
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None and not (written and written.exists()):
                time.sleep(0.002)
            times.append(time.perf_counter() - started)
            if process.poll() is None:
                process.kill()
            elif process.returncode:
                raise StorageError(f"{' '.join(command)} failed: {process.communicate()[1].strip()}")
    return {"seconds": median(times), "spread": spread(times)}
