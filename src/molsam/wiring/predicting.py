"""Predictions of many molecules by several runs, chunk by chunk, in the order of the rows."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from molsam.chem.fingerprints import Morgan, similarities
from molsam.chem.molecule import parse
from molsam.chem.standardize import standardize
from molsam.data.featurize import Featurized, featurized
from molsam.errors import ConfigError, InvalidMolecule
from molsam.wiring import conformal
from molsam.wiring.trained import TRAINING, Trained, refuse_mixture

log = logging.getLogger(__name__)
CHUNK = 4096
"""Molecules that are in memory at a time."""


@dataclass
class Options:
    """What is computed beside the prediction."""

    batch_size: int = 256
    interval: float | None = None
    """coverage of the conformal interval, None for none"""
    nearest: bool = False
    """the Tanimoto similarity to the nearest molecule of the training part"""
    given: np.ndarray | None = None
    """descriptors of the rows [M, width], None for runs that compute theirs or need none"""


@dataclass
class Predictions:
    """Of a chunk of M rows: named columns, and why a row has none (empty text where it has)."""

    columns: dict[str, np.ndarray | list[str | None]] = field(default_factory=dict)
    """float64 [M], NaN where there is no value; or texts"""
    reasons: list[str] = field(default_factory=list)


class Ensemble:
    """Runs of one dataset whose predictions are averaged.

    Raises:
        ConfigError: the runs predict different things, or were trained on different data.
    """

    def __init__(self, runs: Sequence[Trained], options: Options) -> None:
        self.runs, self.options, first = list(runs), options, runs[0]
        for other in runs[1:]:
            if other.predicts != first.predicts:
                raise ConfigError(
                    f"{other.folder} predicts {other.predicts}, {first.folder} predicts {first.predicts}; "
                    "give runs of one dataset."
                )
        refuse_mixture([run.folder for run in runs])
        self.names, self.task = first.task_names, first.task
        self.classes = first.class_names
        self.radii: list[float] = []
        if options.interval is not None:
            found = conformal.scores([run.folder for run in runs], self.task, self.names)
            self.radii = [conformal.radius(values, options.interval) for values in found]
            self._warn_of_few(options.interval, found)
        if unlearnt := sorted({name for run in runs for name in run.unlearnt}):
            log.warning("%s: no labels in the training part; not predicted.", ", ".join(unlearnt[:12]))
        self.nearest = Nearest([run.folder for run in runs], first.work.standardize) if options.nearest else None

    def _warn_of_few(self, coverage: float, found: Sequence[np.ndarray]) -> None:
        """Warn of tasks with too few labels in the validation part for an interval."""
        few = [f"{name} ({len(values)})" for name, values in zip(self.names, found, strict=True)
               if math.isinf(conformal.radius(values, coverage))]  # fmt: skip
        if few:
            least = next(n for n in count(1) if math.isfinite(conformal.radius(np.zeros(n), coverage)))
            log.warning(
                "--interval=%s needs %d labels in the validation part; these have fewer, so their %s: %s.",
                coverage, least, "intervals are unbounded" if self.task == "regression" else "sets hold every class",
                ", ".join(few),
            )  # fmt: skip

    def predict(self, smiles: Sequence[str]) -> Iterator[Predictions]:
        """Predictions of all rows, a chunk at a time."""
        streams = [self._values(runs, smiles) for runs in _alike(self.runs)]
        start = 0
        for chunk in zip(*streams, strict=True):
            outcomes = [outcome for group in chunk for outcome in group]
            values = np.stack([values for values, _ in outcomes])
            reasons = [next(filter(None, each), "") for each in zip(*(told for _, told in outcomes), strict=True)]
            texts = smiles[start : start + len(reasons)]
            yield Predictions(self._columns(values, reasons, texts), reasons)
            start += len(reasons)

    def _values(self, runs: list[Trained], smiles: Sequence[str]) -> Iterator[list[tuple[np.ndarray, list[str]]]]:
        """Yield each run's values and reasons for each chunk; the runs share its features, which are computed once."""
        given = self.options.given
        rows: Iterable[Featurized] = featurized(smiles, runs[0].work)
        if given is not None:
            rows = (row._replace(descriptors=own) for row, own in zip(rows, given, strict=True))
        for chunk in chunks(rows, CHUNK):
            yield [predict(run, chunk, self.options.batch_size) for run in runs]

    def _columns(
        self, values: np.ndarray, reasons: list[str], smiles: Sequence[str]
    ) -> dict[str, np.ndarray | list[str | None]]:
        """Named columns of a chunk; values [R, M, T], of several classes [R, M, T, K]."""
        found: dict[str, np.ndarray | list[str | None]] = {}
        good = [not reason for reason in reasons]

        def put(name: str, column: np.ndarray | Sequence[str | None]) -> None:
            if isinstance(column, np.ndarray):
                found[name] = np.where(good, column, np.nan)
            else:
                found[name] = [value if there else None for value, there in zip(column, good, strict=True)]

        for t, name in enumerate(self.names):
            mean = values[:, :, t].mean(0)
            spread = values[:, :, t].std(0, ddof=1) if len(values) > 1 else None
            if self.task != "regression":
                self._put_classes(put, t, mean, spread)
                continue
            put(f"{name}_pred", mean)
            if spread is not None:
                put(f"{name}_std", spread)
            if self.radii:
                for side, sign in (("lower", -1), ("upper", 1)):
                    put(f"{name}_{side}", mean + sign * self.radii[t])
        if self.nearest is not None:
            nearest = [self.nearest(text) if there else math.nan for text, there in zip(smiles, good, strict=True)]
            put("nearest_tanimoto", np.array(nearest))
        return found

    def _put_classes(
        self, put: Callable[[str, Any], None], t: int, mean: np.ndarray, spread: np.ndarray | None
    ) -> None:
        """Return the class of a task, and probabilities: of the positive class, or of each of several."""
        name, called = self.names[t], self.classes[t]
        several = self.task == "multiclass"
        shares = mean[:, : len(called)] if several else np.stack([1 - mean, mean], axis=1)
        # Positive from more than one half up; of several classes the first of the likeliest.
        chosen = np.nan_to_num(shares).argmax(1)
        known = ~np.isnan(shares).any(1)
        put(f"{name}_pred", [called[place] if there else None for place, there in zip(chosen, known, strict=True)])
        for place, one in enumerate(called) if several else [(1, "")]:
            suffix = f"_{one}" if several else ""
            put(f"{name}_prob{suffix}", shares[:, place])
            if spread is not None:
                own = spread[:, place] if several else spread
                put(f"{name}_prob{suffix}_std", own)
        if self.radii:
            kept = 1 - shares <= self.radii[t]
            put(f"{name}_set", ["|".join(one for one, there in zip(called, row, strict=True) if there) for row in kept])


class Nearest:
    """Tanimoto similarity of Morgan fingerprints (radius 2, 2048 bits) to the nearest training molecule.

    `how`: the standard form of the runs' molecules (chem.standardize.HOW).

    Raises:
        ConfigError: a run does not hold its training molecules.
    """

    def __init__(self, folders: Sequence[Path], how: str) -> None:
        known: dict[str, None] = {}
        for folder in folders:
            path = folder / TRAINING
            if not path.exists():
                raise ConfigError(
                    f"{path} is missing, so --nearest has no molecules to compare with; train the run again."
                )
            known |= dict.fromkeys(path.read_text(encoding="utf-8").split("\n"))
        self.fingerprint, self.how, self.known = Morgan(), how, list[Any]()
        for text in known:
            with suppress(InvalidMolecule):  # the empty one, and what RDKit writes but does not read
                self.known.append(self.fingerprint(parse(text)))

    def __call__(self, smiles: str) -> float:
        """Return the similarity, from 0 to 1, with four digits."""
        mol = standardize(parse(smiles), self.how)
        return round(float(similarities(self.fingerprint(mol), self.known).max(initial=-1)), 4)


def chunks(rows: Iterable[Featurized], size: int) -> Iterator[list[Featurized]]:
    """Return the rows in lists of `size`; the last may be shorter."""
    left = iter(rows)
    while chunk := list(islice(left, size)):
        yield chunk


def predict(run: Trained, rows: Sequence[Featurized], size: int) -> tuple[np.ndarray, list[str]]:
    """Return a run's values [M, T] and reasons of featurized rows, `size` molecules a forward pass."""
    parts = [run.predict(rows[start : start + size]) for start in range(0, len(rows), size)]
    return np.concatenate([values for values, _ in parts]), [reason for _, told in parts for reason in told]


def _alike(runs: Sequence[Trained]) -> list[list[Trained]]:
    """Return the runs, grouped by the features that they read."""
    groups: dict[str, list[Trained]] = {}
    for run in runs:
        featurizer = run.work.featurizer
        key = f"{type(featurizer)} {vars(featurizer)} {run.work[1:]}"
        groups.setdefault(key, []).append(run)
    return list(groups.values())
