"""Selection of the runs of a series by their settings, such that series are comparable."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np

from molsam.config import identity
from molsam.config.identity import digest_of, normal
from molsam.report.stored import StoredRun

# The paper's defaults (Appendix A.4), preferred if several settings of an optimizer were run.
PUBLISHED: dict[str, dict[str, Any]] = {
    "sam": {"optimizer.rho": 0.05, "rho_schedule.gamma": 0.5, "rho_schedule.lam": 1},
    "graphsam": {
        "optimizer.rho": 0.05,
        "rho_schedule.gamma": 0.5,
        "rho_schedule.lam": 1,
        "optimizer.beta": 0.99,
        "optimizer.reanchor_epochs": 1,
    },
    "sam_k": {"optimizer.k": 8},
    "looksam": {"optimizer.rho": 0.0001, "optimizer.alpha": 0.2, "optimizer.k": 8},
}


def cohort(run: StoredRun) -> str:
    """Return a key that is equal for comparable runs, which differ only in optimizer, seed and fold."""
    base = {} if run.setting("optimizer.base") else normal({"base": run.setting("base_optimizer") or {}})
    return digest_of([identity.cohort(run.identity), base])


def panel(runs: Iterable[StoredRun], model: str, dataset: str) -> list[StoredRun]:
    """Return the runs of a model on a dataset in the cohort with the most optimizers, then the most runs, then the
    newest.

    Runs on a whole dataset are preferred to those on some of its rows (dataset.limit, smoke=true).
    """
    groups: dict[str, list[StoredRun]] = defaultdict(list)
    for run in runs:
        if (run.model, run.dataset) == (model, dataset):
            groups[cohort(run)].append(run)
    if not groups:
        return []

    def rank(group: list[StoredRun]) -> tuple[bool, int, int, str]:
        whole = group[0].setting("dataset.limit") is None
        return whole, len({run.optimizer for run in group}), len(group), _newest(group)

    return max(groups.values(), key=rank)


def series(runs: Iterable[StoredRun], optimizer: str, **settings: Any) -> list[StoredRun]:
    """Return the runs of one setting of an optimizer, for each (seed, fold) the newest one.

    `settings` are dotted keys with __ for the dot. If runs differ in other settings, the published setting is chosen,
    else the one with the most runs.
    """
    asked = {key.replace("__", "."): value for key, value in settings.items()}
    groups: dict[str, dict[tuple[int, int], StoredRun]] = defaultdict(dict)
    for run in sorted(runs, key=_finished):
        if run.optimizer == optimizer and all(agrees(run, key, value) for key, value in asked.items()):
            own = [run.setting("optimizer"), run.setting("rho_schedule")]
            groups[json.dumps(own, sort_keys=True, default=str)][run.pair] = run
    if not groups:
        return []
    published = {k: v for k, v in PUBLISHED.get(optimizer, {}).items() if k not in asked}

    def rank(group: dict[tuple[int, int], StoredRun]) -> tuple[bool, int, str]:
        members = list(group.values())
        return all(agrees(members[0], k, v) for k, v in published.items()), len(members), _newest(members)

    return [run for _, run in sorted(max(groups.values(), key=rank).items())]


def agrees(run: StoredRun, key: str, value: Any) -> bool:
    """Return whether a setting has a value; numbers may differ by rounding."""
    found = run.setting(key)
    if isinstance(value, (int, float)) and isinstance(found, (int, float)):
        return bool(np.isclose(found, value, rtol=1e-9, atol=0))
    return bool(found == value)


def mean_std(values: Iterable[float | None]) -> dict[str, Any]:
    """Return mean, std (ddof 1; None below two values) and n of the finite values."""
    there = [value for value in values if value is not None and np.isfinite(value)]
    return {
        "mean": float(np.mean(there)) if there else None,
        "std": float(np.std(there, ddof=1)) if len(there) > 1 else None,
        "n": len(there),
    }


def _finished(run: StoredRun) -> str:
    return str(run.result.get("finished", ""))


def _newest(runs: list[StoredRun]) -> str:
    return max(map(_finished, runs))
