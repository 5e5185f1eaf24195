"""All finished runs under some folders as one tidy table with a line per run, from result.json only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molsam.config.identity import is_recorded, numerics_of, stored
from molsam.report.stored import scan
from molsam.runs import result

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "sweep", "row", "dataset", "fold", "seed", "split_seed", "smoke", "model", "optimizer", "metric", "direction",
    "score", "late", "valid", "data_hash", "recorded", "stale", "split", "split_kind", "n_train", "n_test",
    "identity", "graphs_per_s", "seconds_per_epoch", "seconds", "epochs", "steps", "gradient_passes",
    "passes_per_step", "parameters", "n_molecules", "n_tasks", "consistent_percent", "settings", "config_hash",
    "finished", "path", "same_run_as", "verified",
)  # fmt: skip
"""Columns of the table: settings of the run (sweep to optimizer), scores, costs and place.

`score` is the test metric at the epoch that is best on validation. `late` is its mean over the last fifth of the
epochs. `split` identifies data and split; it is equal for runs that share them.
"""

CELL = ["sweep", "row", "dataset", "fold", "seed", "split_seed", "smoke"]
"""Columns that identify the cell of a sweep. The newest run of a cell counts."""


def load(roots: Iterable[Path]) -> tuple[pd.DataFrame, list[str]]:
    """Return the runs, and a sentence for each damaged result.json, which is left out."""
    import pandas as pd

    runs, damaged = scan(roots)
    records = []
    for run in runs:
        path = run.folder / result.NAME
        try:
            records.append(record(run.result, path) | {"late": run.late})
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            damaged.append(f"{path} is damaged ({type(error).__name__}: {error}); remove it and run its cell again.")
    frame = pd.DataFrame.from_records(records, columns=list(COLUMNS))
    return frame.sort_values("finished", kind="stable", ignore_index=True), damaged


def record(outcome: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return one line of the table."""
    config, metric, made = outcome["config"], outcome["metric"], stored(outcome)
    sweeps, split = config.get("sweeps") or {}, outcome["split"]
    moved = (config.get("split") or {}).get("seed")
    split_seed = outcome["seed"] if moved is None else moved
    share = (outcome.get("gradients") or {}).get("consistent_share")
    known = {key: outcome.get(key) for key in COLUMNS if key in outcome}
    return known | {
        "sweep": sweeps.get("name"),
        "row": sweeps.get("row"),
        "identity": made.digest,
        "data_hash": str((outcome.get("data") or {}).get("hash")),
        "recorded": is_recorded(outcome),
        "stale": made.numerics != numerics_of(made.settings, made.split),
        "split_seed": split_seed,
        "split": f"{(outcome.get('data') or {}).get('hash')} {split.get('hash') or (split_seed, outcome['fold'])}",
        "split_kind": (config.get("split") or {}).get("kind"),
        "n_train": split["sizes"][0],
        "n_test": split["sizes"][-1],
        "smoke": bool(config.get("smoke")) or "smoke" in path.parent.parent.name.split("-"),
        "score": outcome["test"].get(metric),
        "valid": outcome["valid"].get(metric),
        "n_molecules": sum(split["sizes"]),
        "n_tasks": len(outcome.get("test_per_task") or {}),
        "consistent_percent": None if share is None else 100 * share,
        "verified": bool((outcome.get("data") or {}).get("verified")),
        "settings": shared_settings(config),
        "finished": str(outcome.get("finished", "")),
        "path": str(path.parent),
    }


def shared_settings(config: dict[str, Any]) -> str:
    """Return the settings that must be equal in all cells of a table, as JSON: schedule, base optimizer, split,
    training."""
    from molsam.config.identity import FOLD, normal_sections, split_of

    split = {key: value for key, value in split_of(config).items() if key not in (FOLD, "split.seed")}
    return json.dumps({**normal_sections(config, "training", "lr_schedule", "base_optimizer"), **split}, sort_keys=True)


def of_sweep(frame: pd.DataFrame, name: str, *, smoke: bool = False) -> pd.DataFrame:
    """Return the runs of a sweep, for each cell the newest one; `smoke`: those of smoke=true instead."""
    own = frame[(frame["sweep"] == name) & (frame["smoke"].astype(bool) == smoke)]
    return own.drop_duplicates(CELL, keep="last").reset_index(drop=True)
