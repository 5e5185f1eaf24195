"""Run folders that look like trained ones, written in milliseconds."""

from __future__ import annotations

import copy
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from molsam.runs import result

METRICS = {"esol": ("regression", "rmse", "min"), "freesolv": ("regression", "rmse", "min")}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "adam": {},
    "sam": {"rho": 0.05},
    "graphsam": {"rho": 0.05, "beta": 0.99, "reanchor_epochs": 1},
    "sam_one": {"rho": 0.05},
    "sam_k": {"rho": 0.05, "k": 8},
    "looksam": {"rho": 0.0001, "alpha": 0.2, "k": 8},
    "aesam": {"rho": 0.05},
    "rst": {"rho": 0.05},
    "graphsam_release": {"rho": 0.05},
}


def write_run(
    root: Path,
    model: str = "grover",
    optimizer: str = "adam",
    dataset: str = "bbbp",
    *,
    seed: int = 0,
    fold: int = 0,
    test: float | None = None,
    settings: dict[str, Any] | None = None,
    epochs: int = 4,
    steps: int = 6,
    gradients: bool = True,
    probes: bool = True,
    test_losses: bool = True,
    name: str | None = None,
    folder: str | None = None,
    finished: str = "2030-01-01T00:00:00+00:00",
    **extra: Any,
) -> Path:
    """Write one finished run; `settings` are dotted keys of its configuration. Returns its folder."""
    rng = np.random.default_rng(zlib.crc32(repr((model, optimizer, dataset, seed, fold)).encode()))
    path = root / (folder or f"{model}-{optimizer}-{dataset}-s{seed}-f{fold}-{len(list(root.glob('*')))}")
    path.mkdir(parents=True)
    config = _config(model, optimizer, dataset, seed, fold, test_losses, epochs)
    for key, value in (settings or {}).items():
        _set(config, key, value)
    # As conf/optimizer/*.yaml: the optimizer's section takes these over.
    own = config["optimizer"]
    own.setdefault("base", copy.deepcopy(config["base_optimizer"]))
    if config["rho_schedule"]:
        own.setdefault("rho_schedule", copy.deepcopy(config["rho_schedule"]))
    task, metric, direction = METRICS.get(dataset, ("classification", "roc_auc", "max"))
    rows = _epochs(rng, epochs, steps, metric, test_losses)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if gradients:
        lines = _gradients(rng, epochs * steps, steps, probes)
        (path / "gradients.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    score = float(rng.uniform(0.6, 0.95)) if test is None else test
    result.write(
        path,
        {
            "name": name or f"{model}-{optimizer}-{dataset}", "model": model, "optimizer": optimizer,
            "dataset": dataset, "seed": seed, "fold": fold, "task": task, "metric": metric, "direction": direction,
            "best_epoch": epochs - 1, "epochs": epochs, "valid": {metric: score + 0.01, "loss": 0.4},
            "test": {metric: score, "loss": 0.5}, "test_per_task": {"t": score}, "tasks_skipped": 0,
            "graphs_per_s": 300.0 + seed, "seconds_per_epoch": 2.0, "first_epoch_seconds": 3.0, "seconds": 9.0,
            "steps": epochs * steps, "steps_skipped": 0, "gradient_passes": 2 * epochs * steps,
            "passes_per_step": 2.0, "parameters": 1000, "peak_memory_mb": 300.0,
            "gradients": {"cos_next_mean": 0.2, "consistent_share": 0.6, "cos_true_mean": 0.3} if gradients else None,
            "split": {"kind": "random", "hash": "ab", "sizes": [8, 1, 1], "leaked": 0},
            "data": {"hash": "cd", "rows": 10, "invalid": 0, "duplicates": 0}, "versions": {"molsam": "0.1.0"},
            "machine": {}, "started": finished, "finished": finished, "run_dir": str(path), "config_hash": "00",
            "config": config, **extra,
        },
    )  # fmt: skip
    return path


def _config(
    model: str, optimizer: str, dataset: str, seed: int, fold: int, test_losses: bool, epochs: int
) -> dict[str, Any]:
    scheduled = optimizer != "adam"
    return {
        "seed": seed,
        "name": None,
        "choices": {"model": model, "optimizer": optimizer, "dataset": dataset, "rho_schedule": "staircase"},
        "model": {"_target_": f"molsam.models.{model}", "hidden_size": 100},
        "optimizer": {"_target_": f"molsam.optim.{optimizer}", **copy.deepcopy(OPTIMIZERS[optimizer])},
        "rho_schedule": {"gamma": 0.5, "lam": 1} if scheduled else None,
        "base_optimizer": {"_target_": "torch.optim.Adam", "lr": 0.001},
        "dataset": {"name": dataset, "root": None},
        "split": {"kind": "random", "folds": 5, "fold": fold},
        "training": {"epochs": epochs, "batch_size": 32, "test_each_epoch": test_losses},
        "paths": {"outputs": "outputs"},
    }


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node = config
    for part in parents:
        node = node.setdefault(part, {})
    node[last] = value


def _epochs(rng: np.random.Generator, epochs: int, steps: int, metric: str, test_losses: bool) -> list[dict[str, Any]]:
    rows = []
    for epoch in range(epochs):
        value = float(np.exp(-0.3 * epoch) + 0.02 * rng.normal())
        row = {"kind": "epoch", "epoch": epoch, "step": (epoch + 1) * steps, "train/loss": value,
               "train/loss_clean": value, "valid/loss": value + 0.1, f"valid/{metric}": 0.9 - 0.3 * value,
               "graphs_per_s": 300.0, "seconds": 2.0, "passes": 2 * steps, "rho": 0.05 * 0.5**epoch,
               "lr": 0.001}  # fmt: skip
        if test_losses:
            row |= {"test/loss": value + 0.2, f"test/{metric}": 0.88 - 0.3 * value}
        rows += [{"kind": "step", "epoch": epoch, "step": (epoch + 1) * steps, "train/loss": value}, row]
    return rows


def _gradients(rng: np.random.Generator, total: int, per_epoch: int, probes: bool) -> list[dict[str, Any]]:
    rows = []
    for step in range(total):
        first = step == 0
        row: dict[str, Any] = {
            "step": step, "epoch": step // per_epoch, "rho": 0.05,
            "eps_norm": float(rng.lognormal(0, 0.3)), "omega_norm": float(rng.lognormal(0.2, 0.3)),
            "eps_change": None if first else float(rng.lognormal(-1, 0.5)),
            "omega_change": None if first else float(rng.lognormal(0, 0.5)),
            "cos_next": None if first else float(rng.uniform(-0.5, 0.9)),
        }  # fmt: skip
        if probes and step % 2 == 0:
            row |= {
                "true_norm": 1.0,
                "cos_true": float(rng.uniform(-0.4, 1)),
                "cos_sam_omega": float(rng.uniform(-0.5, 1)),
            }
        rows.append(row)
    return rows
