"""Comparison with other packages' training of the same models: same molecules, sizes, batches and threads.

The peers are installed in an environment of their own, so that their requirements cannot affect ours. It uses the torch
and DGL of this environment (by a path file), so that both compute with the same libraries and nothing large is
downloaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import torch

from molsam.bench import peer_worker
from molsam.bench.peak import median, spread
from molsam.bench.process import Process
from molsam.bench.training import Bench
from molsam.errors import ConfigError, StorageError

PEERS = {"dmpnn": "chemprop", "gcn": "dgllife", "mpnn": "dgllife"}
"""Model -> the other package that has it."""
VERSIONS = ("chemprop==2.3.1", "dgllife==0.3.2")
BORROWED = ("torch", "dgl")


def bench_against(
    models: Sequence[str],
    datasets: Sequence[str],
    rounds: int,
    seconds: float,
    overrides: Sequence[str],
    folder: Path,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Measure interleaved rounds, ours and then the peer's; `ratio` is the median of the rounds' ratios.

    On another device than the CPU, where its DGL does not compute, beside chemprop alone.
    """
    ours = [model for model in models if PEERS.get(model) in (PEERS.values() if device == "cpu" else ["chemprop"])]
    if not ours:
        raise ConfigError(
            f"--models={','.join(models)} has no model that another package has; choose from {', '.join(PEERS)}."
        )
    python = environment(folder)
    return [_row(model, dataset, rounds, seconds, overrides, python, device) for dataset in datasets for model in ours]


def _row(
    model: str, dataset: str, rounds: int, seconds: float, overrides: Sequence[str], python: Path, device: str
) -> dict[str, Any]:
    bench = Bench(model, dataset, [*overrides, f"training.device={device}"])
    peer, threads = PEERS[model], torch.get_num_threads()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = place / "molecules.json"
        data.write_text(json.dumps(_molecules(bench)), encoding="utf-8")
        given = {
            "peer": peer,
            "model": model,
            "batch": bench.size,
            "threads": threads,
            "data": str(data),
            "device": device,
        }
        command = [str(python), str(peer_worker.__file__)]
        other = stack.enter_context(Process(command, given))
        own, theirs = [], []
        bench.rate(min(seconds, 1.0))
        for _ in range(rounds):
            own.append(bench.rate(seconds))
            other.ask(seconds)
            theirs.append(float(other.answer()))
    ratios = [a / b for a, b in zip(own, theirs, strict=True)]
    return {
        "model": model,
        "dataset": dataset,
        "batch": bench.size,
        "threads": threads,
        "graphs_per_s": median(own),
        "spread": spread(own),
        "peer": peer,
        "peer_graphs_per_s": median(theirs),
        "peer_spread": spread(theirs),
        "ratio": median(ratios),
        "lowest_ratio": min(ratios),
        "highest_ratio": max(ratios),
    }


def _molecules(bench: Bench) -> dict[str, Any]:
    """Return the training part as the peer reads it, with targets scaled as ours."""
    trainer = bench.trainer
    rows = trainer.split.train
    return {
        "smiles": [trainer.dataset.smiles[int(row)] for row in rows],
        "targets": trainer.scaler.transform(trainer.dataset.targets[rows]).tolist(),
        "task": trainer.dataset.task,
    }


def environment(folder: Path) -> Path:
    """Return the Python of the peers' environment, creating it if necessary. Raises StorageError if that fails."""
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = folder / "installed"
    if done.exists() and done.read_text(encoding="utf-8").split() == list(VERSIONS):
        return python
    print(f"making an environment with {' and '.join(VERSIONS)} in {folder}", file=sys.stderr)
    try:
        venv.create(folder, with_pip=True, clear=True)
        _borrow(folder)
    except (OSError, subprocess.CalledProcessError) as error:
        raise StorageError(
            f"An environment cannot be created in {folder} ({error}); give another folder with --peers FOLDER."
        ) from error
    limits = folder / "constraints.txt"
    limits.write_text("".join(f"{name}=={version(name).split('+')[0]}\n" for name in BORROWED), encoding="utf-8")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(limits)]
    made = subprocess.run([*pip, *VERSIONS], capture_output=True, text=True, check=False)
    if made.returncode:
        words = [line for line in made.stderr.splitlines() if line.startswith("ERROR")] or ["pip gives no reason"]
        raise StorageError(
            f"{' and '.join(VERSIONS)} cannot be installed in {folder} ({words[-1].removeprefix('ERROR: ')}); run the "
            "same command again with access to a package index, or leave out --against."
        )
    done.write_text("\n".join(VERSIONS), encoding="utf-8")
    return python


def _borrow(folder: Path) -> None:
    """Add the packages of this environment to the other one's path, after its own."""
    places = dict.fromkeys(str(distribution(name).locate_file("")) for name in BORROWED)
    site = next(folder.glob("lib*/**/site-packages"))
    (site / "borrowed.pth").write_text("\n".join(places), encoding="utf-8")
