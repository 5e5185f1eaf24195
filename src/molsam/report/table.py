"""A table as data: our values, the paper's, their differences, and the missing cells."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from molsam.report import baselines, published
from molsam.report.coherent import coherent
from molsam.report.frame import of_sweep
from molsam.report.inference import standard_error
from molsam.report.pairs import FIXED_TEST, Noise, noise, pool
from molsam.report.published import Published
from molsam.report.specs import SMOKE_NOTE, Spec

if TYPE_CHECKING:
    import pandas as pd


class Stat(NamedTuple):
    """Mean, standard deviation (ddof 1; None below two values) and number of values."""

    mean: float
    std: float | None
    n: int


@dataclass(frozen=True)
class Entry:
    """One column of one dataset in one row.

    `ours` is None if no cell has finished, `paper` if the paper has no number. `expected` is the number of cells.
    `error` is our standard error, corrected for overlapping splits; None below two splits.
    """

    row: str
    dataset: str
    column: str
    metric: str
    ours: Stat | None
    paper: Published | None
    expected: int
    error: float | None = None

    @property
    def difference(self) -> float | None:
        """Our mean minus the paper's."""
        return None if self.ours is None or self.paper is None else self.ours.mean - self.paper.mean

    @property
    def within(self) -> bool | None:
        """Whether our mean is within one printed standard deviation; None if a number is missing."""
        if self.difference is None or self.paper is None or self.paper.std is None:
            return None
        # Rounded, because the printed numbers are.
        return bool(round(abs(self.difference), 10) <= self.paper.std)

    @property
    def decimals(self) -> int:
        """Number of decimals to show."""
        return published.decimals(self.column, self.paper)


@dataclass(frozen=True)
class Table:
    """A table with its entries (row by row, dataset by dataset), the names of missing cells, and remarks.

    `runs` has a line per cell, with repeats averaged. `noise` is the repeat noise. `score`: which one of SCORES is
    shown.
    """

    spec: Spec
    entries: tuple[Entry, ...]
    missing: tuple[str, ...]
    remarks: tuple[str, ...]
    runs: pd.DataFrame
    noise: tuple[Noise, ...] = ()
    score: str = "score"

    @property
    def done(self) -> int:
        """Number of finished cells."""
        return len(self.spec.cells) - len(self.missing)

    @property
    def complete(self) -> bool:
        """Whether no cell is missing."""
        return not self.missing

    def entry(self, row: str, dataset: str, column: str) -> Entry:
        """Return the entry of a row, dataset and column."""
        return next(e for e in self.entries if (e.row, e.dataset, e.column) == (row, dataset, column))


def build(spec: Spec, frame: pd.DataFrame, score: str = "score") -> Table:
    """Return the table of a sweep from all runs; `score`: "score" (at the epoch best on validation) or "late"."""
    if score != "score":
        frame = frame.assign(score=frame[score])
    runs = of_sweep(frame, spec.name, smoke=spec.smoke)
    wanted = {_identity(cell.values): cell.name for cell in spec.cells}
    in_table = [key in wanted for key in _identities(runs)]
    runs, said = coherent(runs.loc[np.array(in_table, dtype=bool)].reset_index(drop=True))
    present = set(_identities(runs))
    said += baselines.remarks(runs, frame)
    spread = tuple(noise(runs, frame))
    runs = with_percent(pool(runs, frame), spec)
    parts = {(str(row), str(dataset)): part for (row, dataset), part in runs.groupby(["row", "dataset"])}
    counts = Counter((cell.values["row"], cell.values["dataset"]) for cell in spec.cells)
    entries = tuple(
        _entry(spec, parts.get((row, dataset), runs.iloc[:0]), row, dataset, column, counts[row, dataset])
        for row in spec.rows
        for dataset in spec.datasets
        for column in spec.columns
    )
    missing = tuple(name for identity, name in wanted.items() if identity not in present)
    return Table(spec, entries, missing, (*_remarks(spec, runs), *said), runs, spread, score)


def stat(values: Iterable[float | None]) -> Stat | None:
    """Return mean and standard deviation of the finite values; None if there are none."""
    numbers = [float(value) for value in values if value is not None and np.isfinite(value)]
    if not numbers:
        return None
    return Stat(float(np.mean(numbers)), float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None, len(numbers))


def with_percent(runs: pd.DataFrame, spec: Spec) -> pd.DataFrame:
    """Return the runs with percent_of_sam: throughput as % of the reference row on the same split and seed."""
    base = spec.report.get("percent_of")
    if base is None:
        return runs
    key = ["reference", "dataset", "fold", "seed"]
    runs = runs.assign(reference=[_reference(row, base) for row in runs["row"]])
    speeds = runs.loc[runs["row"] == runs["reference"], [*key, "graphs_per_s"]]
    speeds = speeds.rename(columns={"graphs_per_s": "reference_speed"})
    merged = runs.merge(speeds, on=key, how="left", validate="many_to_one")
    return merged.assign(percent_of_sam=100 * merged["graphs_per_s"] / merged["reference_speed"])


def _reference(row: str, base: str) -> str:
    """Return the reference row: for CoMPT + RST it is CoMPT + SAM."""
    model, plus, _ = row.rpartition(" + ")
    return f"{model}{plus}{base}"


def _entry(spec: Spec, own: pd.DataFrame, row: str, dataset: str, column: str, expected: int) -> Entry:
    ours = stat(own[column]) if column in own else None
    metric = str(own["metric"].iloc[0]) if column == "score" and len(own) else column
    paper = published.find(spec.rows[row], dataset, column)
    return Entry(row, dataset, column, metric, ours, paper, expected, _error(own, column))


def _error(own: pd.DataFrame, column: str) -> float | None:
    """Return the standard error of a score over splits; the training seeds of a split are averaged first."""
    if column != "score" or own["score"].notna().sum() < 2:
        return None
    fixed = own["split_kind"].iloc[0] in FIXED_TEST or own["split"].nunique() == 1
    values = own["score"].dropna() if fixed else own.groupby("split")["score"].mean().dropna()
    ratio = 0.0 if fixed else float((own["n_test"] / own["n_train"]).mean())
    return standard_error(float(values.std(ddof=1)), len(values), ratio) if len(values) > 1 else None


def _remarks(spec: Spec, runs: pd.DataFrame) -> list[str]:
    sentence = spec.report.get("unverified")
    unverified = [str(sentence)] if sentence and not (len(runs) and runs["verified"].all()) else []
    smoke = [SMOKE_NOTE] if spec.smoke else []
    return [*smoke, *unverified, *_taken(runs), *_unlike(runs)]


def _taken(runs: pd.DataFrame) -> list[str]:
    """Return a remark on cells that reuse runs of other sweeps."""
    others = Counter(Path(folder).parent.name for folder in runs["same_run_as"].dropna())
    return [f"Cells that are runs of equal settings made elsewhere: {_listed(others)}."] if others else []


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} of {name}" for name, count in sorted(counts.items()))


def _unlike(runs: pd.DataFrame) -> list[str]:
    """Return a remark on settings that make cells of one dataset and model incomparable."""
    changed: set[str] = set()
    for _, own in runs.groupby(["dataset", "model"]):
        changed |= _differences([json.loads(text) for text in own["settings"].unique()])
    return [f"The cells are not comparable: they differ in {', '.join(sorted(changed))}."] if changed else []


def _differences(settings: list[dict[str, Any]]) -> set[str]:
    """Return `training.epochs (30, 5)` and the like for every setting that has several values."""
    changed = set()
    for key in {key for found in settings for key in found}:
        values = {str(found.get(key, "not set")) for found in settings}
        changed |= {f"{key} ({', '.join(sorted(values))})"} if len(values) > 1 else set()
    return changed


def _identities(runs: pd.DataFrame) -> list[tuple[str, str, int, int]]:
    return [_identity(values) for values in runs[["row", "dataset", "fold", "seed"]].to_dict("records")]


def _identity(values: Mapping[Any, Any]) -> tuple[str, str, int, int]:
    return str(values["row"]), str(values["dataset"]), int(values["fold"]), int(values["seed"])
