"""Searches: a sampler suggests trials and a pruner stops some, until the study has enough of them."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.types import HydraContext, TaskFunction
from omegaconf import OmegaConf

from molsam import terminal
from molsam.config.cells import SMOKE_TRIALS
from molsam.sweeping import launch, occupied, plots, storage, summary
from molsam.sweeping.about import about, settle
from molsam.sweeping.compose import Composer
from molsam.sweeping.console import Console, Count, Ended
from molsam.sweeping.context import Sweep
from molsam.sweeping.ending import SweepIncomplete, ended, matching, next_line, shown
from molsam.sweeping.heartbeat import SWEEPER, WORKER, Heartbeat
from molsam.sweeping.job import Launch, conclude, make_pruner
from molsam.sweeping.overrides import shrink
from molsam.sweeping.space import in_words, make_sampler, search_space, suggested
from molsam.sweeping.study import SharedStudy
from molsam.sweeping.trials import TOTAL
from molsam.wiring import identify, inputs, objective

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial, Trial

log = logging.getLogger(__name__)

POLL = 1.0
"""Seconds between two checks of trials that other processes run."""

RESULTS = "optimization_results.yaml"


def sweep(sweep: Sweep, context: HydraContext, task: TaskFunction, arguments: list[str]) -> None:
    """Run a study until it has its number of trials. Raises SweepIncomplete if trials failed."""
    space, base = search_space([*sweep.params, *arguments])
    base += shrink(base) if sweep.smoke else []
    composer = Composer(context.config_loader, sweep.config, base)
    files = identify.Files(fetch=not sweep.dry_run)
    first, choices = _choices(composer, space, files)
    common = composer.settings(first)
    inputs.check(common.values)
    fixed = identify.of(common.values, files=files)
    if not sweep.dry_run and "featurizer" in (common.values.get("model") or {}):
        objective.check(OmegaConf.create(dict(common.values)), space)
    sampler, pruner = make_sampler(sweep.sampler), make_pruner(sweep.pruner)
    occupied.free_for_search(sweep)
    new = sweep.dry_run and not storage.has_study(sweep.storage, sweep.study_name)
    node = storage.NOWHERE if new else sweep.storage
    study = SharedStudy(node, sweep.study_name, sweep.directions, sampler, pruner, sweep.heartbeat)
    split = common.values["split"]
    folds = 1 if split["fold"] is not None else split["folds"]
    searched = {name.lstrip("+") for name in space}
    wanted = about(fixed, space, sweep.directions, None if "split.folds" in searched else folds, choices)
    overwrite = sweep.overwrite and not sweep.dry_run
    restarted = settle(study, sweep.study_name, wanted, paths=fixed.paths, other=sweep.elsewhere, overwrite=overwrite)
    occupied.clear(sweep, study)
    if overwrite and not restarted and study.trials():
        print(matching(sweep, "this study has the same and goes on"), file=sys.stderr)
    total = min(sweep.n_trials, SMOKE_TRIALS) if sweep.smoke else sweep.n_trials
    launcher = launch.make(sweep, context, task, study.node, study.study.study_name)
    run = Search(sweep, study, launcher, composer, space, total)
    if sweep.dry_run:
        print(terminal.fitted(run.describe(), sys.stdout))
    else:
        run.run()


def _choices(
    composer: Composer, space: Mapping[str, Any], files: identify.Files
) -> tuple[list[str], dict[str, dict[str, identify.Identity]]]:
    """Return the first choice of every setting whose choices are names or files, as overrides; and all identities.

    The identities of the choices show whether a file, or the settings of a group's choice, was edited under its name.
    """
    named = {
        name: found
        for name, one in space.items()
        if (found := [c for c in getattr(one, "choices", ()) if isinstance(c, str)])
    }
    first = {name: found[0] for name, found in named.items()}
    meant: dict[str, dict[str, identify.Identity]] = {}
    for name, found in named.items():
        for choice in found:
            values = composer.settings(suggested({**first, name: choice})).values
            inputs.check(values)
            meant.setdefault(name, {})[choice] = identify.of(values, files=files)
    return suggested(first), meant


def folder_of(number: int) -> str:
    """Return the name of a trial's run folder, which has the trial's number."""
    return f"{occupied.TRIAL}{number:05d}"


@dataclass
class Search:
    """Launches trials until `total` of them are complete or pruned."""

    sweep: Sweep
    study: SharedStudy
    launcher: launch.Launcher
    composer: Composer
    space: Mapping[str, Any]
    total: int

    def __post_init__(self) -> None:
        self.known = {trial.number for trial in self.study.trials() if trial.state.is_finished()}
        self.reported = set(self.known)
        self.before = self.over()

    def run(self) -> None:
        """Run until the study has its trials. Raises SweepIncomplete if trials failed."""
        print(
            f"{self.sweep.name}: {self.total} trials in {shown(self.sweep.folder)}, {self.before} of them done, "
            f"{self.sweep.workers} at a time",
            file=sys.stderr,
        )
        self.study.study.set_user_attr(TOTAL, self.total)
        with Console(self.sweep.name, self.look, noun="trials"):
            while True:
                self.study.revive()
                missing = self.total - self.over() - len(self.failures())
                free = missing - self.running()
                if free > 0:
                    self.batch(min(free, self.sweep.workers))
                elif missing > 0 and self.sweep.wait:
                    time.sleep(POLL)
                else:
                    break
        self.conclude()

    def over(self) -> int:
        """Return the number of trials that are complete or pruned."""
        from optuna.trial import TrialState

        return sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in self.study.trials())

    def running(self) -> int:
        """Return the number of running trials."""
        from optuna.trial import TrialState

        return sum(trial.state == TrialState.RUNNING for trial in self.study.trials())

    def failures(self) -> dict[int, str]:
        """Return the trials that failed since this sweep began: number -> reason."""
        return {
            trial.number: trial.user_attrs["error"]
            for trial in self.study.trials()
            if trial.number not in self.known and "error" in trial.user_attrs
        }

    def batch(self, size: int) -> None:
        """Create some trials and launch them together."""
        trials = [trial for trial in (self.ask() for _ in range(size)) if trial is not None]
        if not trials:
            return
        numbers = [trial.number for trial in trials]
        ids = [trial._trial_id for trial in trials]
        try:
            with Heartbeat(self.study.storage, ids, SWEEPER, self.sweep.heartbeat):
                self.launcher.run([self.job(trial) for trial in trials])
        except Exception as error:
            if not self.started(numbers):
                self.study.give_up(set(numbers), f"{type(error).__name__}: {error}")
                raise
            log.warning(f"jobs were lost ({type(error).__name__}: {error}); they are started again")
        self.study.revive(own=set(numbers))
        self._limit_failures(numbers)

    def ask(self) -> Trial | None:
        """Return the next trial with suggested parameters; None if other sweeps have begun enough trials meanwhile."""
        from optuna.trial import TrialState

        trial = self.study.study.ask()
        for name, distribution in self.space.items():
            trial._suggest(name, distribution)
        self._move_here(trial)
        failed = self.failures()
        earlier = [t for t in self.study.trials() if t.number < trial.number]
        counted = sum(t.state != TrialState.FAIL or t.number in failed for t in earlier)
        if counted < self.total:
            return trial
        conclude(
            self.study.study, self.study.storage, trial._trial_id, trial.number, TrialState.FAIL, superseded=counted
        )
        return None

    def _move_here(self, trial: Trial) -> None:
        """Rename the run folder of an interrupted trial to the number of the trial that continues it."""
        if "continues" in trial.user_attrs:
            old = self.sweep.folder / folder_of(trial.user_attrs["continues"])
            new = self.sweep.folder / folder_of(trial.number)
            if old.is_dir() and not new.exists():
                os.rename(old, new)

    def job(self, trial: Trial) -> Launch:
        """Return the job of a trial. Raises Hydra's errors if its parameters do not fit the settings."""
        settings = self.composer.settings(suggested(trial.params))
        return Launch(trial.number, replace(settings, values={}), self.sweep.folder / folder_of(trial.number))

    def started(self, numbers: Sequence[int]) -> bool:
        """Return whether a worker started any of these trials."""
        return any(WORKER in trial.system_attrs for trial in self.study.trials() if trial.number in numbers)

    def look(self) -> tuple[Count, list[Ended]]:
        """Return the progress, and the trials that have ended since the last call."""
        new = [t for t in self.study.trials() if t.state.is_finished() and t.number not in self.reported]
        self.reported |= {trial.number for trial in new}
        said = [ended(trial, folder_of(trial.number)) for trial in new]
        count = Count(self.over(), len(self.failures()), self.running(), self.total, self.before)
        return count, [one for one in said if one is not None]

    def describe(self) -> str:
        """Return the output of a dry run."""
        lines = [f"{name}: {in_words(distribution)}" for name, distribution in self.space.items()]
        lines.append(f"{self.sweep.name}: {self.before} of {self.total} trials are done.")
        return "\n".join(lines)

    def conclude(self) -> None:
        """Save the results and print the outcome. Raises SweepIncomplete if trials failed."""
        best = self.best()
        self._save(best)
        plots.save(self.study.study, self.sweep.folder)
        if self.over() > self.before:
            logger = OmegaConf.select(self.sweep.config, "logger")
            summary.publish(logger, self.sweep.folder, self.sweep.name, *summary.of_trials(self.study.trials()))
        failed = self.failures()
        for number, reason in failed.items():
            print(f"failed: trial {number}: {reason}", file=sys.stderr)
        print(self.last_line(best), file=sys.stderr)
        if failed:
            raise SweepIncomplete(
                f"{len(failed)} of {self.total} trials of {self.sweep.name} failed (listed above); run the same "
                "command to try others in their place."
            )
        line = next_line(self.sweep, shown(self.sweep.folder / folder_of(best[0].number)) if best else None)
        print(terminal.fitted(line, sys.stderr, between="; "), file=sys.stderr)

    def last_line(self, best: Sequence[FrozenTrial]) -> str:
        """Return a line such as `tune: 10 of 10 trials (8 pruned, best 0.568 in trial 7: outputs/tune/trial-00007)`."""
        from optuna.trial import TrialState

        pruned = sum(trial.state == TrialState.PRUNED for trial in self.study.trials())
        notes = [f"{pruned} pruned"] if pruned else []
        equal = len(self.study.directions) == 1  # else the Pareto front, whose trials differ
        shown_best = best[:1] if equal else best[:3]
        for trial in shown_best:
            value = " ".join(f"{value:.4g}" for value in trial.values)
            folder = shown(self.sweep.folder / folder_of(trial.number))
            notes.append(f"best {value} in trial {trial.number}: {folder}")
        if more := len(best) - len(shown_best):
            notes.append(
                f"and {more} {'other' if more == 1 else 'others'} {'as good' if equal else 'of the Pareto front'}"
            )
        return f"{self.sweep.name}: {self.over()} of {self.total} trials" + (f" ({', '.join(notes)})" if notes else "")

    def best(self) -> list[FrozenTrial]:
        """Return the best trial, or with several objectives the Pareto-optimal trials."""
        try:
            return list(self.study.study.best_trials)
        except ValueError:
            return []

    def _save(self, best: Sequence[FrozenTrial]) -> None:
        folder = Path(self.sweep.folder)
        folder.mkdir(parents=True, exist_ok=True)
        found = [
            {"number": t.number, "folder": folder_of(t.number), "values": t.values, "params": t.params} for t in best
        ]
        OmegaConf.save(OmegaConf.create({"name": "optuna", "over": self.over(), "best": found}), folder / RESULTS)

    def _limit_failures(self, numbers: Sequence[int]) -> None:
        failed = [reason for number, reason in self.failures().items() if number in numbers]
        if len(failed) > self.sweep.max_failure_rate * len(numbers):
            raise SweepIncomplete(
                f"{len(failed)} of {len(numbers)} trials failed, more than hydra.sweeper.max_failure_rate="
                f"{self.sweep.max_failure_rate} allows; the first: {failed[0]}"
            )
