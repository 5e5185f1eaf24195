"""Exhaustive sweeps: every cell once, whatever kills whom."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from molsam.errors import ConfigError, MolsamError, StorageError
from molsam.runs import result
from molsam.runs.folder import read_status
from molsam.sweeping import compose, estimate, reuse, summary
from molsam.sweeping import storage as storages
from molsam.sweeping.compose import Planned
from molsam.sweeping.heartbeat import host
from molsam.sweeping.job import make_pruner
from molsam.sweeping.progress import Count, ProgressLine
from molsam.sweeping.study import SharedStudy
from molsam.wiring import inputs

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from molsam.sweeping.sweeper import ResumableSweeper

log = logging.getLogger(__name__)

POLL = 1.0
"""Seconds between two looks at cells that other processes run."""

MAX_DEATHS = 3
"""A cell whose worker died so often in one sweep is given up."""


class SweepIncomplete(MolsamError):  # noqa: N818 - the sentence it raises is no defect of molsam
    """Some cells failed."""

    exit_code = 1


def sweep(sweeper: ResumableSweeper, arguments: list[str]) -> None:
    """Run the missing cells of a grid. Raises SweepIncomplete naming how many failed."""
    plan = compose.plan(sweeper, arguments)
    same = reuse.find(plan, sweeper.outputs) if sweeper.settings.reuse else {}
    if sweeper.config.get("dry_run"):
        print(estimate.dry_run(sweeper, plan, {p.cell.name for p in plan if is_done(p)}, same))
        return
    plan = _settle_foreign(plan, overwrite=bool(sweeper.config.get("overwrite")))
    _take_over(sweeper, plan, same)
    pruner = make_pruner(sweeper.job.pruner)
    study = SharedStudy(
        sweeper.storage_node(), sweeper.name_of_study(), sweeper.directions(), None, pruner, sweeper.job.heartbeat
    )
    sweeper.job.storage, sweeper.job.study_name = study.node, study.study.study_name
    Grid(sweeper, study, plan).run()


def is_done(planned: Planned) -> bool:
    """Whether a cell's folder holds a complete result of just these settings."""
    try:
        found = result.read(planned.folder)
    except StorageError as error:
        log.warning(str(error))
        return False
    return found is not None and found["config_hash"] == planned.hash


def _take_over(sweeper: ResumableSweeper, plan: list[Planned], same: dict[str, Path]) -> None:
    for planned in plan:
        if planned.cell.name in same:
            reuse.take_over(planned, same[planned.cell.name])
    if same:
        print(
            f"{sweeper.sweep_name}: {len(same)} cells are runs of equal settings that were made elsewhere, and are "
            "taken over (hydra.sweeper.reuse=false trains them again)",
            file=sys.stderr,
        )


def _settle_foreign(plan: list[Planned], overwrite: bool) -> list[Planned]:
    """Refuse to mix cells of other settings into a sweep's folder, or overwrite just those."""
    settled = []
    for planned in plan:
        found, config = _present(planned)
        if found in (None, planned.hash):
            settled.append(planned)
        elif overwrite:
            settled.append(replace(planned, overrides=(*planned.overrides, "++overwrite=true")))
        else:
            raise ConfigError(
                f"{planned.folder} holds a run of other settings{estimate.difference(config, planned.config)}; keep "
                "both by giving this sweep another name (sweeps.name=...), or replace those cells with overwrite=true."
            )
    return settled


def _present(planned: Planned) -> tuple[str | None, dict[str, Any] | None]:
    """Hash and settings of what a folder holds."""
    try:
        found = result.read(planned.folder)
    except StorageError:
        found = None
    if found is not None:
        return found["config_hash"], found["config"]
    return read_status(planned.folder).get("config_hash"), None


class Grid:
    """Launches the missing cells until none is left that could run here."""

    def __init__(self, sweeper: ResumableSweeper, study: SharedStudy, plan: list[Planned]) -> None:
        self.sweeper, self.study, self.plan = sweeper, study, plan
        self.before = {p.cell.name for p in plan if is_done(p)}
        self.known = {trial.number for trial in study.trials() if trial.state.is_finished()}
        self.deaths: Counter[str] = Counter()
        self.ended: set[str] = set()
        self.left: float | None = None
        self.shared = not storages.is_file(study.node)

    def run(self) -> None:
        """Until every cell is done or failed. Raises SweepIncomplete, or as `inputs.check` does before the first cell."""
        name, total = self.sweeper.sweep_name, len(self.plan)
        for planned in self.plan:
            if planned.cell.name not in self.before:
                inputs.check(planned.config)
        print(f"{name}: {len(self.before)} of {total} cells are done already", file=sys.stderr)
        with ProgressLine(name, self.count, in_place=not self.sweeper.in_process()):
            while True:
                self.study.revive()
                by_cell = self.by_cell()
                states = {p.cell.name: self.state(p, by_cell) for p in self.plan}
                todo = [p for p in self.plan if states[p.cell.name] == "missing"]
                if todo:
                    self.launch(todo)
                elif "running" in states.values() and self.sweeper.settings.wait:
                    time.sleep(POLL)
                else:
                    break
        self.conclude(states)

    def by_cell(self) -> dict[tuple[str, str], list[FrozenTrial]]:
        """The study's trials by cell and hash, each list by number."""
        found: dict[tuple[str, str], list[FrozenTrial]] = {}
        for trial in self.study.trials():
            key = (trial.user_attrs.get("cell", ""), trial.user_attrs.get("config_hash", ""))
            found.setdefault(key, []).append(trial)
        return found

    def state(self, planned: Planned, by_cell: dict[tuple[str, str], list[FrozenTrial]], files: bool = True) -> str:
        """Where a cell stands: done, running (elsewhere), missing, or "failed: why"."""
        from optuna.trial import TrialState

        if planned.cell.name in self.before or (files and is_done(planned)):
            return "done"
        trials = by_cell.get(key_of(planned), [])
        if any(trial.state == TrialState.RUNNING for trial in trials):
            return "running"
        for trial in reversed(trials):
            elsewhere = self.shared and trial.user_attrs.get("host") != host()
            if trial.state == TrialState.COMPLETE and (elsewhere or (not files and trial.number not in self.known)):
                return "done"
            if trial.number in self.known or not trial.state.is_finished():
                continue
            if trial.state == TrialState.COMPLETE:
                return f"failed: it ended without a complete {result.NAME} of its settings"
            if "error" in trial.user_attrs:
                # A study takes no value such as the ROC-AUC of a single class, but its cell has a result.
                return "done" if is_done(planned) else f"failed: {trial.user_attrs['error']}"
        return "missing"

    def launch(self, todo: list[Planned]) -> None:
        """Queue a trial for each cell and hand all to the launcher."""
        numbers = self.queue(todo)
        if not numbers:
            return
        try:
            self.sweeper.launch([list(planned.overrides) for planned in todo], numbers)
        except Exception as error:
            dead = self.study.revive(own=set(numbers))
            if not dead and not self.progressed(numbers):
                raise
            log.warning(f"{len(dead)} jobs were lost ({type(error).__name__}: {error}); they are started again")
            self.count_deaths([planned for planned, number in zip(todo, numbers, strict=True) if number in dead])
        else:
            self.study.revive(own=set(numbers))

    def queue(self, todo: list[Planned]) -> list[int]:
        """The numbers of the trials that wait for these cells; the first one of a cell, should there be several."""
        waiting = self.waiting()
        planned_at = len(self.study.trials())
        for planned in todo:
            if key_of(planned) not in waiting:
                attrs = {"cell": planned.cell.name, "config_hash": planned.hash, "planned": planned_at}
                self.study.add(user_attrs={**planned.cell.values, **attrs})
        waiting = self.waiting()
        # Another sweep may have taken a trial between these lines: leave its cell to that one.
        todo[:] = [planned for planned in todo if key_of(planned) in waiting]
        return [waiting[key_of(planned)] for planned in todo]

    def waiting(self) -> dict[tuple[str, str], int]:
        """The lowest number that waits for each cell."""
        from optuna.trial import TrialState

        return {
            key: min(trial.number for trial in trials if trial.state == TrialState.WAITING)
            for key, trials in self.by_cell().items()
            if any(trial.state == TrialState.WAITING for trial in trials)
        }

    def progressed(self, numbers: list[int]) -> bool:
        """Whether any job of a batch was started."""
        from optuna.trial import TrialState

        return any(t.state != TrialState.WAITING for t in self.study.trials() if t.number in numbers)

    def count_deaths(self, lost: list[Planned]) -> None:
        """Give up a cell that takes its worker down again and again."""
        for planned in lost:
            self.deaths[planned.cell.name] += 1
            if self.deaths[planned.cell.name] >= MAX_DEATHS:
                reason = f"its worker died {MAX_DEATHS} times, perhaps for want of memory"
                self.study.give_up(set(self.queue([planned])), reason)

    def count(self) -> Count:
        """Where the sweep stands, by the study alone."""
        by_cell = self.by_cell()
        states = {p.cell.name: self.state(p, by_cell, files=False).split(":")[0] for p in self.plan}
        number = Counter(states.values())
        ended = {name for name, state in states.items() if state in ("done", "failed")} - self.before
        if ended != self.ended:
            todo = [planned for planned in self.plan if planned.cell.name not in self.before]
            self.ended, self.left = ended, estimate.left_beside(todo, ended, self.sweeper.outputs)
        return Count(number["done"], number["failed"], number["running"], len(self.plan), len(self.before), self.left)

    def conclude(self, states: dict[str, str]) -> None:
        """Say how it ended. Raises SweepIncomplete."""
        name, folder = self.sweeper.sweep_name, self.sweeper.sweep_dir
        if len(self.before) < len(self.plan):
            summary.publish(self.sweeper, *summary.of_cells(self.plan))
        failed = {cell: state.removeprefix("failed: ") for cell, state in states.items() if state.startswith("failed")}
        running = sum(state == "running" for state in states.values())
        for cell, reason in failed.items():
            print(f"failed: {cell}: {reason}", file=sys.stderr)
        if failed:
            raise SweepIncomplete(
                f"{len(failed)} of {len(self.plan)} cells of {name} failed (listed above, details in error.log in "
                f"their folders under {folder}); the same command tries them again."
            )
        left = f"; {running} are still run by other processes" if running else ""
        print(
            f"{name}: {len(self.plan) - running} of {len(self.plan)} cells are done in {folder}{left}", file=sys.stderr
        )


def key_of(planned: Planned) -> tuple[str, str]:
    """What tells the trials of a cell: its name and its settings."""
    return planned.cell.name, planned.hash
