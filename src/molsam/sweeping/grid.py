"""Exhaustive sweeps: every cell runs once, even if workers or sweeps are killed."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hydra.types import HydraContext, TaskFunction
from omegaconf import OmegaConf

from molsam import terminal
from molsam.config.cells import Cell
from molsam.config.identity import is_record_of, stored
from molsam.errors import ConfigError, StorageError
from molsam.runs import result
from molsam.runs.folder import held, refusal
from molsam.sweeping import estimate, launch, occupied, reuse, summary
from molsam.sweeping import storage as storages
from molsam.sweeping.compose import Change
from molsam.sweeping.console import Console, Count, Ended
from molsam.sweeping.context import Sweep
from molsam.sweeping.ending import SweepIncomplete, ended, matching, next_line, shown
from molsam.sweeping.heartbeat import host
from molsam.sweeping.job import Launch, make_pruner
from molsam.sweeping.plan import Plan, Planned, plan
from molsam.sweeping.study import SharedStudy
from molsam.sweeping.trials import TOTAL
from molsam.wiring import identify

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)

POLL = 1.0
"""Seconds between two checks of cells that other processes run."""

MAX_DEATHS = 3
"""Number of deaths of its workers after which a sweep gives a cell up."""

Key = tuple[str, str]
Trials = Mapping[Key, Sequence["FrozenTrial"]]


def sweep(sweep: Sweep, context: HydraContext, task: TaskFunction, arguments: list[str]) -> None:
    """Run the missing cells of a grid. Raises SweepIncomplete, with the number of failures, if cells failed."""
    cells = plan(sweep, context, arguments)
    missing = any(not os.path.isdir(sweep.folder / cell.name) for cell in cells.cells)
    with launch.warm(sweep) if missing and not sweep.dry_run else contextlib.nullcontext():
        occupied.free_for_grid(sweep)
        begun = _begin(sweep, cells)
        if begun is None:
            return
        pruner = make_pruner(sweep.pruner)
        study = SharedStudy(sweep.storage, sweep.study_name, sweep.directions, None, pruner, sweep.heartbeat)
        launcher = launch.make(sweep, context, task, study.node, study.study.study_name)
    Grid(sweep, study, launcher, cells, begun).run()


def _begin(sweep: Sweep, cells: Plan) -> frozenset[str] | None:
    """Check the plan and use existing runs; return the finished cells, or None for a dry run."""
    # Some cells are composed now, to find errors before the first one runs; the others while it runs.
    begun = [cells.job(cell) for cell in cells.cells if os.path.isdir(sweep.folder / cell.name)]
    cells.sample()
    done = {planned.cell.name for planned in begun if is_done(planned)}
    elsewhere = reuse.FinishedRuns(sweep.outputs) if sweep.reuse else None
    same = {}
    if elsewhere is not None and elsewhere.runs:
        found = {planned.cell.name: elsewhere.find(planned) for planned in cells}
        same = {name: folder for name, folder in found.items() if folder is not None}
    replaced = settle(begun, cells, overwrite=sweep.overwrite, other=sweep.elsewhere)
    if sweep.overwrite and not replaced and done:
        print(matching(sweep, f"{len(done)} finished cells have the same and stay"), file=sys.stderr)
    if sweep.dry_run:
        print(terminal.fitted(estimate.dry_run(sweep, list(cells), done, same), sys.stdout))
        return None
    logger = OmegaConf.select(sweep.config, "logger")
    summary.complete(logger, (planned.folder for planned in begun if planned.cell.name in done))
    for name, folder in same.items():
        reuse.take_over(next(planned for planned in cells.known() if planned.cell.name == name), folder)
    if same:
        print(
            f"{sweep.name}: the results of {len(same)} cells that were trained elsewhere with equal settings are "
            "reused (hydra.sweeper.reuse=false trains them again)",
            file=sys.stderr,
        )
    return frozenset(done | set(same))


def is_done(planned: Planned) -> bool:
    """Return whether a cell's run folder has a complete result of its identity."""
    try:
        found = result.read(planned.folder)
    except StorageError as error:
        log.warning(str(error))
        return False
    return _folds_are_done(planned) if found is None else stored(found).digest == planned.identity


def _folds_are_done(planned: Planned) -> bool:
    """Return whether a cell of several folds has a summary of all of them, of its identity."""
    try:
        found = json.loads((planned.folder / "folds.json").read_text(encoding="utf-8"))
        made = is_record_of(found["identity"], planned.identity)
        return made and len(found["folds"]) == planned.values["split"]["folds"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def settle(begun: Sequence[Planned], plan: Plan, *, overwrite: bool, other: str = "sweeps.name=NAME") -> int:
    """Mark cells for overwriting if their folders have runs of another identity, and return their number.

    Raises ConfigError at the first of them without `overwrite`.
    """
    replaced = 0
    for planned in begun:
        message = mismatch_of(planned, plan.files, other)
        if message is not None and not overwrite:
            raise ConfigError(message)
        if message is not None:
            replaced += 1
            settings = planned.settings
            changes = (*settings.changes, Change("overwrite", True, True))
            overrides = (*settings.overrides, "++overwrite=true")
            plan.replace(replace(planned, settings=replace(settings, changes=changes, overrides=overrides)))
    return replaced


def mismatch_of(planned: Planned, files: identify.Files, other: str = "sweeps.name=NAME") -> str | None:
    """Return the error message if a cell's folder has a run of another identity, else None."""
    try:
        found = result.read(planned.folder)
    except StorageError:
        found = None
    wanted = identify.of(planned.values, files=files)
    old = held(planned.folder, wanted) if found is None else stored(found)
    if old is None or old == wanted:
        return None
    return refusal(planned.folder, old, wanted, other)


class Grid:
    """Launches the missing cells until none is left to run here."""

    def __init__(
        self, sweep: Sweep, study: SharedStudy, launcher: launch.Launcher, plan: Plan, before: frozenset[str]
    ) -> None:
        self.sweep, self.study, self.launcher, self.plan, self.before = sweep, study, launcher, plan, before
        self.known = {trial.number for trial in study.trials() if trial.state.is_finished()}
        self.reported = set(self.known)
        self.deaths: Counter[str] = Counter()
        self.speeds = estimate.Speeds(sweep.outputs)
        self.left: tuple[set[str], float | None] = set(), None
        self.shared = not storages.is_file(study.node)

    def run(self) -> None:
        """Run until every cell is done or failed. Raises SweepIncomplete if cells failed."""
        name, total = self.sweep.name, len(self.plan)
        print(
            f"{name}: {total} cells in {shown(self.sweep.folder)}, {len(self.before)} of them done, "
            f"{self.sweep.workers} at a time",
            file=sys.stderr,
        )
        self.study.study.set_user_attr(TOTAL, total)
        with Console(name, self.look):
            while True:
                self.study.revive()
                trials = self.by_cell()
                states = {planned.cell.name: self.state(planned, trials) for planned in self.plan.known()}
                # A cell that was not composed yet has not begun.
                todo = [cell for cell in self.plan.cells if states.get(cell.name, "missing") == "missing"]
                if todo:
                    self.launch(todo)
                elif "running" in states.values() and self.sweep.wait:
                    time.sleep(POLL)
                else:
                    break
        self.conclude(states)

    def by_cell(self) -> dict[Key, list[FrozenTrial]]:
        """Return the study's trials by cell and identity, each list by number."""
        found: dict[Key, list[FrozenTrial]] = {}
        for trial in self.study.trials():
            key = (trial.user_attrs.get("cell", ""), trial.user_attrs.get("identity", ""))
            found.setdefault(key, []).append(trial)
        return found

    def state(self, planned: Planned, trials: Trials, files: bool = True) -> str:
        """Return the state of a cell: "done", "running" (elsewhere), "missing", or "failed: REASON"."""
        from optuna.trial import TrialState

        if planned.cell.name in self.before or (files and is_done(planned)):
            return "done"
        mine = trials.get(key_of(planned), ())
        if any(trial.state == TrialState.RUNNING for trial in mine):
            return "running"
        for trial in reversed(mine):
            elsewhere = self.shared and trial.user_attrs.get("host") != host()
            if trial.state == TrialState.COMPLETE and (elsewhere or (not files and trial.number not in self.known)):
                return "done"
            if trial.number in self.known or not trial.state.is_finished():
                continue
            if trial.state == TrialState.COMPLETE:
                return f"failed: it ended without a complete {result.NAME} of its settings"
            if "error" in trial.user_attrs:
                # A study refuses NaN (the ROC-AUC of a single class, say), but the cell may have a result.
                return "done" if is_done(planned) else f"failed: {trial.user_attrs['error']}"
        return "missing"

    def launch(self, todo: Sequence[Cell]) -> None:
        """Run a trial for each cell, one per worker at a time."""
        numbers: dict[int, Planned] = {}
        try:
            launches = self.launches(todo, numbers)
            self.launcher.run(list(launches) if self.launcher.at_once else launches)
        except Exception as error:
            dead = self.study.revive(own=set(numbers), shared=True)
            if not dead and not self.progressed(set(numbers)):
                raise
            log.warning(f"{len(dead)} jobs were lost ({type(error).__name__}: {error}); they are started again")
            self.count_deaths([planned for number, planned in numbers.items() if number in dead])
        else:
            self.study.revive(own=set(numbers), shared=True)

    def launches(self, todo: Sequence[Cell], numbers: dict[int, Planned]) -> Iterator[Launch]:
        """Yield a job for each cell that no other process has begun, and record its trial in `numbers`.

        The trial is queued only when its turn has come.
        """
        for planned in map(self.plan.job, todo):
            number = self.queue(planned)
            if number is not None:
                numbers[number] = planned
                yield Launch(number, replace(planned.settings, values={}), planned.folder)

    def queue(self, planned: Planned) -> int | None:
        """Return the number of the waiting trial of a cell (of several the first); None if the cell has begun."""
        from optuna.trial import TrialState

        trials = self.by_cell()
        mine = trials.get(key_of(planned), [])
        if not any(trial.state == TrialState.WAITING for trial in mine):
            if self.state(planned, trials) != "missing":
                return None
            attrs = {"cell": planned.cell.name, "identity": planned.identity, "planned": sum(map(len, trials.values()))}
            self.study.add(user_attrs={**planned.cell.values, **attrs})
            mine = self.by_cell()[key_of(planned)]
        waiting = [trial.number for trial in mine if trial.state == TrialState.WAITING]
        # If another sweep took the trial in the meantime, there is none, and the cell is left to that sweep.
        return min(waiting, default=None)

    def progressed(self, numbers: set[int]) -> bool:
        """Return whether any of these jobs has started."""
        from optuna.trial import TrialState

        return any(t.state != TrialState.WAITING for t in self.study.trials() if t.number in numbers)

    def count_deaths(self, lost: Sequence[Planned]) -> None:
        """Give up cells whose workers died MAX_DEATHS times."""
        for planned in lost:
            self.deaths[planned.cell.name] += 1
            if self.deaths[planned.cell.name] >= MAX_DEATHS:
                reason = f"its worker died {MAX_DEATHS} times, perhaps because memory ran out"
                number = self.queue(planned)
                self.study.give_up(set() if number is None else {number}, reason)

    def look(self) -> tuple[Count, list[Ended]]:
        """Return the progress, judged by the study alone, and the cells that have ended since the last call."""
        trials, known = self.by_cell(), self.plan.known()
        states = {planned.cell.name: self.state(planned, trials, files=False).split(":")[0] for planned in known}
        number = Counter(states.values())
        ended_now = {name for name, state in states.items() if state in ("done", "failed")} - self.before
        if ended_now != self.left[0]:
            todo = [planned for planned in known if planned.cell.name not in self.before]
            whole = len(known) == len(self.plan)
            self.left = ended_now, self.speeds.left_beside(todo, ended_now) if whole else None
        count = Count(
            number["done"], number["failed"], number["running"], len(self.plan), len(self.before), self.left[1]
        )
        return count, self.news(trials)

    def news(self, trials: Trials) -> list[Ended]:
        """Return the cells of this sweep that have ended and were not reported yet, in the order of their ends."""
        labels = {planned.cell.name: planned.cell.label for planned in self.plan.known()}
        mine = [trial for planned in self.plan.known() for trial in trials.get(key_of(planned), ())]
        new = [trial for trial in mine if trial.state.is_finished() and trial.number not in self.reported]
        self.reported |= {trial.number for trial in new}
        said = [ended(trial, labels[trial.user_attrs["cell"]]) for trial in sorted(new, key=by_end)]
        return [one for one in said if one is not None]

    def conclude(self, states: Mapping[str, str]) -> None:
        """Print the outcome. Raises SweepIncomplete if cells failed."""
        name, folder, total = self.sweep.name, shown(self.sweep.folder), len(self.plan)
        if len(self.before) < total:
            logger = OmegaConf.select(self.sweep.config, "logger")
            summary.publish(logger, self.sweep.folder, name, *summary.of_cells(self.plan))
        failed = {cell: state.removeprefix("failed: ") for cell, state in states.items() if state.startswith("failed")}
        running = sum(state == "running" for state in states.values())
        if failed:
            labels = {planned.cell.name: planned.cell.label for planned in self.plan.known()}
            for cell, reason in failed.items():
                print(f"failed: {labels.get(cell, cell)}: {reason}", file=sys.stderr)
            raise SweepIncomplete(
                f"{len(failed)} of {total} cells of {name} failed (listed above, details in error.log in their "
                f"folders under {folder}); run the same command to try them again."
            )
        left = f" ({running} are still run by other processes)" if running else ""
        print(f"{name}: {total - running} of {total} cells{left}: {folder}", file=sys.stderr)
        print(terminal.fitted(next_line(self.sweep), sys.stderr, between="; "), file=sys.stderr)


def by_end(trial: FrozenTrial) -> tuple[str, int]:
    """Return a sort key: the time of a trial's end."""
    return str(trial.datetime_complete), trial.number


def key_of(planned: Planned) -> Key:
    """Return what a cell's trials have in common: its name and its identity."""
    return planned.cell.name, planned.identity
