"""Searches: a sampler suggests, a pruner gives up, and the study remembers, until enough trials are over."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any

from hydra_plugins.hydra_optuna_sweeper._impl import create_optuna_distribution_from_override
from omegaconf import DictConfig, OmegaConf

from molsam.config.cells import SMOKE_TRIALS, key_of
from molsam.config.compose import plain
from molsam.sweeping import compose, plots, summary
from molsam.sweeping.grid import POLL, SweepIncomplete
from molsam.sweeping.heartbeat import SWEEPER, Heartbeat
from molsam.sweeping.job import conclude, make_pruner
from molsam.sweeping.progress import Count, ProgressLine
from molsam.sweeping.sampling import NumberSeededSampler
from molsam.sweeping.study import SharedStudy
from molsam.wiring import inputs

if TYPE_CHECKING:
    from optuna.trial import Trial

    from molsam.sweeping.sweeper import ResumableSweeper

log = logging.getLogger(__name__)

SAMPLERS = ("optuna.samplers.*", "hydra_plugins.hydra_optuna_sweeper.*")
OWN_SEQUENCE = ("QMCSampler",)
"""Samplers whose points follow a sequence that the study itself counts: a seed of their own would break it."""


def sweep(sweeper: ResumableSweeper, arguments: list[str]) -> None:
    """Run a study to its number of trials. Raises SweepIncomplete if trials failed."""
    space, base = search_space(arguments)
    if sweeper.smoke:
        base += compose.shrink(base)
    total = int(sweeper.settings.n_trials)
    total = min(total, SMOKE_TRIALS) if sweeper.smoke else total
    study = SharedStudy(
        sweeper.storage_node(),
        sweeper.name_of_study(),
        sweeper.directions(),
        make_sampler(sweeper.settings.sampler),
        make_pruner(sweeper.job.pruner),
        sweeper.job.heartbeat,
    )
    sweeper.job.storage, sweeper.job.study_name = study.node, study.study.study_name
    run = Search(sweeper, study, space, base, total)
    if sweeper.config.get("dry_run"):
        print(run.describe())
        return
    run.run()


def search_space(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Distributions of what is searched, and the overrides that are fixed; what comes later wins."""
    space: dict[str, Any] = {}
    base: dict[str, str] = {}
    for override in compose.parse(arguments):
        text = override.input_line or ""
        key = key_of(text)
        space.pop(key, None)
        base.pop(key, None)
        if override.is_sweep_override():
            space[key] = create_optuna_distribution_from_override(override)
        elif key not in compose.NOT_FOR_JOBS:
            base[key] = text
    return space, list(base.values())


def make_sampler(node: DictConfig) -> Any:
    """The sampler of a node; a seeded one depends on the trial's number."""
    from hydra.utils import instantiate
    from optuna.exceptions import ExperimentalWarning

    def make(seed: int | None) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return instantiate({**settings, "seed": seed}, _convert_="all", _execution_whitelist_=SAMPLERS)

    settings = {key: value for key, value in plain(node).items() if value is not None or key == "seed"}
    seed = settings.get("seed")
    if seed is None or str(settings["_target_"]).endswith(OWN_SEQUENCE):
        return make(seed)
    return NumberSeededSampler(make, int(seed))


class Search:
    """Asks, launches and counts until `total` trials are complete or pruned."""

    def __init__(
        self, sweeper: ResumableSweeper, study: SharedStudy, space: dict[str, Any], base: list[str], total: int
    ) -> None:
        self.sweeper, self.study, self.space, self.base, self.total = sweeper, study, space, base, total
        self.known = {trial.number for trial in study.trials() if trial.state.is_finished()}
        self.before = self.over()

    def run(self) -> None:
        """Until the study has its trials. Raises SweepIncomplete."""
        name = self.sweeper.sweep_name
        inputs.check(self.sweeper.config)
        print(f"{name}: {self.before} of {self.total} trials are over already", file=sys.stderr)
        with ProgressLine(name, self.count, in_place=not self.sweeper.in_process()):
            while True:
                self.study.revive()
                missing = self.total - self.over() - len(self.failures())
                free = missing - self.running()
                if free > 0:
                    self.batch(min(free, self.sweeper.workers()))
                elif missing > 0 and self.sweeper.settings.wait:
                    time.sleep(POLL)
                else:
                    break
        self.conclude()

    def over(self) -> int:
        """Trials that are complete or pruned."""
        from optuna.trial import TrialState

        return sum(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in self.study.trials())

    def running(self) -> int:
        """Trials that some process works on."""
        from optuna.trial import TrialState

        return sum(trial.state == TrialState.RUNNING for trial in self.study.trials())

    def failures(self) -> dict[int, str]:
        """Trials that failed since this sweep began, and why."""
        return {
            trial.number: trial.user_attrs["error"]
            for trial in self.study.trials()
            if trial.number not in self.known and "error" in trial.user_attrs
        }

    def batch(self, size: int) -> None:
        """Ask for some trials and launch them together."""
        trials = [trial for trial in (self.ask() for _ in range(size)) if trial is not None]
        if not trials:
            return
        numbers = [trial.number for trial in trials]
        ids = [trial._trial_id for trial in trials]
        try:
            with Heartbeat(self.study.storage, ids, SWEEPER, self.sweeper.job.heartbeat):
                self.sweeper.launch([self.overrides(trial) for trial in trials], numbers)
        except Exception as error:
            if not self.started(numbers):
                self.study.give_up(set(numbers), f"{type(error).__name__}: {error}")
                raise
            log.warning(f"jobs were lost ({type(error).__name__}: {error}); they are started again")
        self.study.revive(own=set(numbers))
        self._limit_failures(numbers)

    def ask(self) -> Trial | None:
        """The next trial, parameters suggested; None if other sweeps have begun enough of them meanwhile."""
        from optuna.trial import TrialState

        trial = self.study.study.ask()
        for name, distribution in self.space.items():
            trial._suggest(name, distribution)
        if "folder" not in trial.user_attrs:
            trial.set_user_attr("folder", f"trial-{trial.number:05d}")
        failed = self.failures()
        earlier = [t for t in self.study.trials() if t.number < trial.number]
        counted = sum(t.state != TrialState.FAIL or t.number in failed for t in earlier)
        if counted < self.total:
            return trial
        conclude(
            self.study.study, self.study.storage, trial._trial_id, trial.number, TrialState.FAIL, superseded=counted
        )
        return None

    def overrides(self, trial: Trial) -> list[str]:
        """The overrides of a trial's job."""
        suggested = [f"{name}={value}" for name, value in trial.params.items()]
        folder = str(trial.user_attrs["folder"])
        return [*self.base, *suggested, *compose.destination(self.sweeper, folder)]

    def started(self, numbers: list[int]) -> bool:
        """Whether a worker took any of these trials up."""
        from molsam.sweeping.heartbeat import WORKER

        return any(WORKER in trial.system_attrs for trial in self.study.trials() if trial.number in numbers)

    def count(self) -> Count:
        """Where the study stands."""
        return Count(self.over(), len(self.failures()), self.running(), self.total, self.before)

    def describe(self) -> str:
        """What a dry run prints."""
        lines = [f"{name}: {distribution}" for name, distribution in self.space.items()]
        lines.append(f"{self.sweeper.sweep_name}: {self.before} of {self.total} trials are over.")
        return "\n".join(lines)

    def conclude(self) -> None:
        """Save what was found and say how it ended. Raises SweepIncomplete."""
        self._save_best()
        plots.save(self.study.study, self.sweeper.sweep_dir)
        if self.over() > self.before:
            summary.publish(self.sweeper, *summary.of_trials(self.study.trials()))
        failed = self.failures()
        for number, reason in failed.items():
            print(f"failed: trial {number}: {reason}", file=sys.stderr)
        if failed:
            raise SweepIncomplete(
                f"{len(failed)} of {self.total} trials of {self.sweeper.sweep_name} failed (listed above); the same "
                "command tries others in their place."
            )

    def _save_best(self) -> None:
        from pathlib import Path

        study = self.study.study
        try:
            best = [{"number": t.number, "values": t.values, "params": t.params} for t in study.best_trials]
        except ValueError:
            best = []
        for trial in best[:3]:
            print(f"{self.sweeper.sweep_name}: best trial {trial['number']}: {trial['values']} with {trial['params']}")
        folder = Path(self.sweeper.sweep_dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(
            OmegaConf.create({"name": "optuna", "over": self.over(), "best": best}),
            folder / "optimization_results.yaml",
        )

    def _limit_failures(self, numbers: list[int]) -> None:
        failed = [reason for number, reason in self.failures().items() if number in numbers]
        if len(failed) > float(self.sweeper.settings.max_failure_rate) * len(numbers):
            raise SweepIncomplete(
                f"{len(failed)} of {len(numbers)} trials failed, more than hydra.sweeper.max_failure_rate="
                f"{self.sweeper.settings.max_failure_rate} allows; the first: {failed[0]}"
            )
