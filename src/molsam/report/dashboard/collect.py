"""Compact data of run folders for the page: a few megabytes for two thousand runs, read again only when they change."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any
from urllib.parse import quote

from molsam.config.command import program
from molsam.errors import StorageError
from molsam.files import below
from molsam.report.dashboard import compare, sweeps
from molsam.report.dashboard.facts import digits, facts, load, stamp
from molsam.report.dashboard.groups import Benchmark, benchmarks, describe, flatten, group_key
from molsam.report.figures.paper import stated_score
from molsam.report.names import label
from molsam.report.stored import TRACKED, StoredRun
from molsam.runs import pack, result

Link = Callable[[Path], str]
MEANS = {"valid": "valid", "speed": "graphs_per_s", "epoch": "seconds_per_epoch", "passes": "passes_per_step",
         "seconds": "seconds", "parameters": "parameters"}  # fmt: skip
"""Column of a group -> the run's number whose mean it has; of times the median: a run may be interrupted."""
TIMES = ("epoch", "seconds")


@dataclass(frozen=True, eq=False)
class Found:
    """A run with its group, its settings, and its data for the page."""

    run: StoredRun
    scored: compare.Scored
    facts: dict[str, Any]
    key: str
    settings: dict[str, str]

    @classmethod
    def of(cls, run: StoredRun, link: str | None) -> Found:
        """Return a run with its curves."""
        epochs = run.epochs()
        own = {**facts(run, epochs), "folder": link, "path": typed(run.files)}
        own["weights"] = (run.files / "best").is_dir()
        return cls(run, compare.Scored.of(run, epochs), own, group_key(run), flatten(run.result["config"]))


@dataclass
class Collector:
    """Reads folders repeatedly, but each run, packed file and study only when it has changed.

    Attributes:
        roots: the folders.
        link: returns the address of a run folder, for links on the page.
        study: reads the study in a sweep's folder; None if the page shows no sweeps.
    """

    roots: Sequence[Path]
    link: Link
    study: sweeps.Reader | None = None
    _known: dict[Path, tuple[Any, list[Found]]] = field(default_factory=dict)
    _studies: dict[Path, tuple[Any, dict[str, Any] | None]] = field(default_factory=dict)
    _before: tuple[Any, dict[str, Any]] | None = None
    damaged: dict[Path, str] = field(default_factory=dict)
    """what cannot be read, and why"""

    def collect(self) -> dict[str, Any]:
        """Return the page's data: made, version, program, base, benchmarks, groups, labels, leads, runs and sweeps.

        `version` changes when the files do.
        """
        paths = sorted({path for root in self.roots for path in self._paths(root)})
        studies = [path for path in paths if path.name in sweeps.FILES]
        packed = [path for path in paths if path.suffix == ".jsonl" and path.name not in TRACKED]
        folders = sorted({path.parent for path in paths if path not in studies and path not in packed})
        found = [one for place in (*folders, *packed) for one in self._read(place)]
        self._known = {place: self._known[place] for place in (*folders, *packed) if place in self._known}
        shown = [one for path in studies if (one := self._sweep(path)) is not None]
        signature = [(place, known[0]) for place, known in self._known.items()]
        if self._before is None or self._before[0] != signature:
            self._before = signature, assemble(_each_once(found, set(folders)))
        version = hashlib.sha256(repr((signature, shown)).encode()).hexdigest()[:16]
        made = datetime.now(UTC).isoformat(timespec="seconds")
        return {"made": made, "version": version, "program": program(), **self._before[1], "sweeps": shown}

    def _paths(self, root: Path) -> list[Path]:
        if root.is_file():
            return [root]
        names = ("metrics.jsonl", result.NAME, *sweeps.FILES)
        found = below(root, *names, suffix=".jsonl")
        return [path for path in found if path.name in names or (path.name not in TRACKED and pack.is_packed(path))]

    def _read(self, place: Path) -> list[Found]:
        now = _stamp(place) if place.suffix == ".jsonl" else stamp(place)
        if place in self._known and self._known[place][0] == now:
            return self._known[place][1]
        try:
            found = self._packed(place) if place.suffix == ".jsonl" else self._folder(place)
        except StorageError as error:
            found, self.damaged[place] = [], str(error)
        else:
            self.damaged.pop(place, None)
        if found:
            self._known[place] = now, found
        return found

    def _folder(self, folder: Path) -> list[Found]:
        run = load(folder)
        return [] if run is None else [Found.of(run, self.link(folder))]

    def _packed(self, path: Path) -> list[Found]:
        return [Found.of(StoredRun(path / one.cell, one.result, one.curve), None) for one in pack.read(path)[0]]

    def _sweep(self, path: Path) -> dict[str, Any] | None:
        if self.study is None:
            return None
        now, folder = _stamp(path), path.parent
        if path not in self._studies or self._studies[path][0] != now:
            try:
                found: dict[str, Any] | None = sweeps.progress(self.study(folder), folder)
            except StorageError:
                found = None  # it is being created, or is not a study of molsam
            self._studies[path] = now, found
        found = self._studies[path][1]
        if found is None:
            return None
        best = found.get("best")
        own = None if best is None else sweeps.trial_folder(folder, best)
        place = (
            {} if own is None else {"best_path": typed(own), "best_folder": self.link(own) if own.is_dir() else None}
        )
        return {**found, "folder": self.link(folder), "path": typed(folder), **place}


def _each_once(found: Sequence[Found], folders: set[Path]) -> list[Found]:
    """Return the runs without duplicates: runs that a sweep reused from a folder that is shown, and packed copies."""
    kept, seen = [], set()
    for one in found:
        made = tuple(str(one.run.result.get(key)) for key in ("name", "seed", "fold", "finished", "seconds", "test"))
        if one.run.curve is not None and made in seen:
            continue
        if one.run.files == one.run.folder or one.run.files not in folders:
            kept.append(one)
            seen.add(made)
    return kept


def assemble(found: Sequence[Found]) -> dict[str, Any]:
    """Return groups, their comparisons, and runs that refer to their groups by number."""
    order = {key: place for place, key in enumerate(dict.fromkeys(one.key for one in found))}
    members = {one.key: one.run for one in reversed(found)}
    scored_on = benchmarks(members)
    names = describe(members, scored_on)
    used = {one.key: one for one in scored_on.values()}
    places = {key: place for place, key in enumerate(used)}
    finished: dict[int, list[Found]] = {place: [] for place in order.values()}
    for one in found:
        if one.run.result["status"] == "complete":
            finished[order[one.key]].append(one)
    compared = {
        place: compare.Group(tuple(one.scored for one in own), _stated(own[0].run))
        for place, own in finished.items() if own
    }  # fmt: skip
    counts = Counter((one.key, str(one.run.result["status"])) for one in found)
    groups = [
        {"key": key, "benchmark": places[scored_on[key].key], "model": members[key].model,
         "optimizer": members[key].optimizer, "variant": names[key].short, "full": names[key].full,
         "paper": _stated(members[key]), "counts": {state: n for (own, state), n in counts.items() if own == key},
         **_columns(compared.get(place), finished[place])}
        for key, place in order.items()
    ]  # fmt: skip
    base = common([one.settings for one in found])
    runs = [{**one.facts, "group": order[one.key], "config": difference(one.settings, base)} for one in found]
    words = sorted({word for run in members.values() for word in (run.model, run.optimizer)})
    return {
        "base": base, "benchmarks": [one.plain() for one in used.values()], "groups": groups,
        "labels": {word: label(word) for word in words}, "leads": leads(compared, scored_on, order), "runs": runs,
    }  # fmt: skip


def leads(
    groups: Mapping[int, compare.Group], scored_on: Mapping[str, Benchmark], order: Mapping[str, int]
) -> dict[int, list[dict[str, Any]]]:
    """Return reference group -> the leads of other groups over it, for each benchmark."""
    by_benchmark: dict[str, dict[int, compare.Group]] = {}
    for key, place in order.items():
        if place in groups:
            by_benchmark.setdefault(scored_on[key].key, {})[place] = groups[place]
    return {place: own for some in by_benchmark.values() for place, own in compare.table(some).items()}


def _columns(group: compare.Group | None, found: Sequence[Found]) -> dict[str, Any]:
    """Return the columns of a group's line, except its name."""
    columns: dict[str, Any] = {}
    for column, key in MEANS.items():
        values = [one.facts[key] for one in found if one.facts[key] is not None]
        columns[column] = digits((median if column in TIMES else fmean)(values), 5) if values else None
    columns["score"] = None if group is None else group.score(group.best)
    columns["late"] = None if group is None else group.score(group.late)
    return columns


def _stated(run: StoredRun) -> float | None:
    """Return the paper's score, if the run used the whole dataset and has the same metric."""
    chosen = ("dataset.limit", "dataset.max_atoms", "dataset.path")
    if any(run.setting(key) is not None for key in chosen):
        return None
    return stated_score(run.model, run.optimizer, run.dataset, run.result["metric"])


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def common(settings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the most frequent value of every key."""
    counts: dict[str, Counter[str]] = {}
    for own in settings:
        for key, value in own.items():
            counts.setdefault(key, Counter())[value] += 1
    return {key: counter.most_common(1)[0][0] for key, counter in counts.items()}


def difference(own: Mapping[str, str], base: Mapping[str, str]) -> dict[str, str | None]:
    """Return the values of `own` that differ from `base`; None for keys that it lacks."""
    return {key: own.get(key) for key in base if own.get(key) != base[key]}


def relative_link(start: Path) -> Link:
    """Return a function that returns addresses of folders, relative to a file in `start`."""
    return lambda folder: quote(Path(os.path.relpath(folder.resolve(), start.resolve())).as_posix()) + "/"


def typed(folder: Path) -> str:
    """Return a folder's path relative to the current folder, if it is within it."""
    here, whole = Path.cwd(), folder.absolute()
    return os.path.relpath(whole, here) if whole.is_relative_to(here) else str(whole)
