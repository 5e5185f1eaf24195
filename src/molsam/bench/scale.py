"""Cost of a large table: seconds and memory for featurizing it, for opening it again, and for training on it."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from molsam.errors import StorageError
from molsam.native.process import cores, keep_freed_memory

ENDS = (
    "",
    "C",
    "CC",
    "CO",
    "CN",
    "CCC",
    "CF",
    "CCl",
    "CCO",
    "CCN",
    "C#C",
    "CCCC",
    "CCF",
    "CS",
    "COC",
    "CNC",
    "CBr",
    "CI",
)
"""Fragments that are put before a first carbon atom, to derive more molecules from the known ones."""
MEGABYTE = 1 << 20


def bench_scale(
    model: str, sizes: Sequence[int], overrides: Sequence[str], picture: Path | None
) -> list[dict[str, Any]]:
    """Return a row for each number of molecules, first without and then with the features in the cache.

    The molecules are those of the embedded datasets and variations of them. Memory is the peak of the process itself;
    `workers_mb` is an upper limit for all its workers together. The rows are drawn into `picture`.
    """
    rows = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="molsam-scale-") as folder:
            table = Path(folder, "table.csv")
            with open(table, "w", encoding="utf-8") as file:
                file.write("smiles,y\n")
                file.writelines(f"{smiles},{row % 97}\n" for row, smiles in enumerate(varied(size)))
            for state in ("new", "cached"):
                rows.append({"model": model, "molecules": size, "pack": state, **_measured(table, model, overrides)})
    if picture is not None:
        _draw(rows, picture)
    return rows


def varied(count: int) -> Iterator[str]:
    """Yield `count` SMILES of ordinary drug-like molecules and variations of them."""
    from molsam.config.compose import compose
    from molsam.wiring.run import load_dataset

    known: list[str] = []
    for name in ("lipophilicity", "esol", "freesolv"):
        known += load_dataset(compose([f"dataset={name}", "model=gcn"])).canonical
    made = 0
    while made < count:
        first, second = divmod(made // len(known), len(ENDS))
        for one in known[: count - made]:
            yield ENDS[first % len(ENDS)] + ENDS[second] + one if one.startswith("C") else one
        made += len(known)


def _measured(table: Path, model: str, overrides: Sequence[str]) -> dict[str, Any]:
    words = [
        "dataset=csv",
        f"dataset.path={table}",
        "dataset.smiles=smiles",
        "dataset.targets=[y]",
        "dataset.task=regression",
    ]
    words += [f"model={model}", f"paths.cache={table.parent}/cache", *overrides]
    done = subprocess.run([sys.executable, "-m", "molsam.bench.scale", *words], capture_output=True, text=True)
    if done.returncode:
        raise StorageError(f"The measurement of {table.name} failed: {done.stderr.strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    packs = (table.parent / "cache" / "features").glob("*.safetensors")
    return {**found, "disk_mb": sum(path.stat().st_size for path in packs) / MEGABYTE}


def _worker(words: list[str], steps: int = 100) -> dict[str, float]:
    """Load a dataset, make some shuffled steps with it, and return times and memory."""
    from molsam.config.compose import compose
    from molsam.wiring import check, run

    cfg = compose([*words, "split.fold=0", "training.threads=1"])
    training = check.check(cfg)
    started, cpu = time.perf_counter(), sum(os.times()[:4])
    dataset, split = run.load_data(cfg)
    loaded, memory = time.perf_counter() - started, _peak(resource.RUSAGE_SELF)
    used = sum(os.times()[:4]) - cpu
    keep_freed_memory()
    trainer = run.make_trainer(cfg, training, dataset, split, Path(os.devnull))
    for batches in islice(trainer.steps(trainer.order(0)), steps):
        trainer.closure.batches = batches
        trainer.optimizer.step(trainer.closure)
    return {
        "load_s": loaded,
        "load_cpu_s": used,
        "first_steps_s": time.perf_counter() - started - loaded,
        "load_mb": memory,
        "train_mb": _peak(resource.RUSAGE_SELF),
        "workers_mb": _peak(resource.RUSAGE_CHILDREN) * cores(),
    }


def _peak(who: int) -> float:
    unit = MEGABYTE if sys.platform == "darwin" else 1024
    return resource.getrusage(who).ru_maxrss / unit


def _draw(rows: Sequence[dict[str, Any]], picture: Path) -> None:
    """Draw the measured points and straight lines through them."""
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots(1, 2)
    columns = {"load_cpu_s": "processor time to load, s", "train_mb": "peak memory, MB"}
    for axis, (column, label) in zip(axes, columns.items(), strict=True):
        for state, marker in (("new", "o"), ("cached", "s")):
            points = [(row["molecules"], row[column]) for row in rows if row["pack"] == state]
            x, y = np.array(points, dtype=float).T
            (line,) = axis.plot(x, y, marker, label=state)
            if len(points) > 1:
                slope, start = np.polyfit(x, y, 1)
                axis.plot(x, start + slope * x, "-", color=line.get_color(), linewidth=0.8)
                unit = f"{1000 * slope:.2g} {'s' if column.endswith('_s') else 'MB'} per 1,000"
                line.set_label(f"pack {'made' if state == 'new' else 'read'}: {unit}")
        axis.set(xlabel="molecules", ylabel=label, ylim=(0, None))
        axis.legend(fontsize="small")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)


if __name__ == "__main__":
    print(json.dumps(_worker(sys.argv[1:])))
