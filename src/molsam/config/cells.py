"""The cells of a table: dataset x row x fold x seed, from the `sweeps:` section of a sweep file.

The sweeper runs these cells and the report looks for them, so both read this one definition.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from molsam.errors import ConfigError

MODELS = {"grover": "GROVER", "compt": "CoMPT", "gcn": "GCN", "mpnn": "MPNN", "dmpnn": "DMPNN", "cmpnn": "CMPNN"}
"""How the paper writes the models' names."""

SMOKE_TRIALS = 4
"""Trials of a search under smoke=true."""


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    `name` is its folder; `attrs` say what it is (row, dataset, fold, seed, or the swept overrides);
    `overrides` are the Hydra overrides that make it.
    """

    name: str
    attrs: tuple[tuple[str, Any], ...]
    overrides: tuple[str, ...]

    @property
    def label(self) -> str:
        """What is printed for it: the start of its folder's name that tells it from the others, if there is one."""
        swept = ",".join(self.overrides)  # not in the form of a folder's name, in which two values may be one
        return swept if swept and self.name.startswith(f"{swept},") else self.name

    @property
    def values(self) -> dict[str, Any]:
        """`attrs` as a dict."""
        return dict(self.attrs)


def table_cells(sweeps: Mapping[str, Any]) -> list[Cell]:
    """Return every cell of a sweep section, dataset by dataset so that the first columns of a table fill first.

    Raises ConfigError if a row, a fold or a seed makes no sense.
    """
    found = []
    for dataset in _names("sweeps.datasets", sweeps.get("datasets")):
        for row, variant in rows(sweeps).items():
            for fold in folds(sweeps):
                for seed in _numbers("sweeps.seeds", sweeps.get("seeds", [0])):
                    attrs = (("row", row), ("dataset", dataset), ("fold", fold), ("seed", seed))
                    fixed = (f"dataset={dataset}", f"split.fold={fold}", f"seed={seed}", f"++sweeps.row={quote(row)}")
                    name = cell_name(row, dataset, fold, seed)
                    found.append(Cell(name, attrs, (*variant["overrides"], *fixed)))
    _refuse_twins(found)
    return found


def shrunk(sweeps: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section under smoke=true: one fold and the first seed; rows and datasets stay."""
    seeds = sweeps.get("seeds")
    return {**sweeps, "folds": 1, "seeds": list(seeds)[:1] if isinstance(seeds, (list, tuple)) else [0]}


def rows(sweeps: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the chosen rows (`sweeps.rows`, all by default), each as {"overrides": [...], "paper": {...}}.

    With `sweeps.models` every variant is a row for each of these models: `CoMPT + SAM`.
    """
    every = _with_models(sweeps) if sweeps.get("models") else _variants(sweeps)
    chosen = sweeps.get("rows")
    names = list(every) if chosen is None else _names("sweeps.rows", chosen)
    for name in names:
        if name not in every:
            near = get_close_matches(name, every, n=1)
            hint = f" Did you mean {near[0]}?" if near else f" Rows: {', '.join(every)}."
            raise ConfigError(f"sweeps.rows={name} is not a row of {sweeps.get('name')}.{hint}")
    return {name: every[name] for name in names}


def _variants(sweeps: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    variants = sweeps.get("variants") or {}
    return {
        str(name): {
            "overrides": list((variant or {}).get("overrides") or []),
            "paper": (variant or {}).get("paper") or {},
        }
        for name, variant in variants.items()
    }


def _with_models(sweeps: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = {}
    for model in _names("sweeps.models", sweeps["models"]):
        label = MODELS.get(model, model)
        for name, variant in _variants(sweeps).items():
            found[f"{label} + {name}"] = {
                "overrides": [f"model={model}", *variant["overrides"]],
                "paper": {"model": label, **variant["paper"]},
            }
    return found


def folds(sweeps: Mapping[str, Any]) -> list[int]:
    """`sweeps.folds`: a count, or a list of folds."""
    given = sweeps.get("folds", 1)
    if isinstance(given, int) and not isinstance(given, bool):
        if given < 1:
            raise ConfigError(f"sweeps.folds={given} must be at least 1.")
        return list(range(given))
    return _numbers("sweeps.folds", given)


def cell_name(row: str, dataset: str, fold: int, seed: int) -> str:
    """Return the folder of a cell inside its sweep."""
    return f"{slug(row)}-{slug(dataset)}-f{fold}-s{seed}"


def slug(text: str) -> str:
    """Return a folder name that a person can read and no shell needs to quote."""
    return re.sub(r"[^\w.=+,-]+", "_", str(text), flags=re.ASCII)[:100].strip("_.") or "_"


def quote(text: str) -> str:
    """Return a string as a Hydra override value."""
    # Hydra takes a backslash literally, except before a quote or at the end.
    doubled = re.sub(r"(\\+)(?='|$)", lambda run: run.group() * 2, text)
    return "'" + doubled.replace("'", "\\'") + "'"


def key_of(override: str) -> str:
    """Return what an override sets: `optimizer.beta` of `+optimizer.beta=0.9`."""
    return re.sub(r"@.*", "", override.split("=", 1)[0].lstrip("+~"))


def _refuse_twins(cells: list[Cell]) -> None:
    seen: dict[str, Cell] = {}
    for cell in cells:
        twin = seen.setdefault(cell.name, cell)
        if twin is not cell:
            raise ConfigError(
                f"Two cells of the sweep would share the folder {cell.name}; give their rows names that differ in "
                "letters or digits, and list every dataset, fold and seed once."
            )


def _names(key: str, given: Any) -> list[str]:
    values = [given] if isinstance(given, str) else given
    if not isinstance(values, (list, tuple)) or not values:
        raise ConfigError(f"{key}={given} must be a list of names, such as {key}=[a,b].")
    return [str(value) for value in values]


def _numbers(key: str, given: Any) -> list[int]:
    values = [given] if isinstance(given, int) else given
    if not isinstance(values, (list, tuple)) or not values or not all(type(v) is int and v >= 0 for v in values):
        raise ConfigError(f"{key}={given} must be a list of whole numbers from 0 up, such as {key}=[0,1,2].")
    return list(values)
