"""One job of a sweep, on any launcher: claim the trial, keep its heartbeat, run, and record the outcome."""

from __future__ import annotations

import logging
import math
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from molsam.errors import ConfigError, MolsamError
from molsam.sweeping import orphan
from molsam.sweeping import storage as storages
from molsam.sweeping.compose import Settings
from molsam.sweeping.console import CapturedOutput
from molsam.sweeping.heartbeat import WORKER, Heartbeat, host
from molsam.sweeping.trial import Trial

log = logging.getLogger(__name__)

INTERRUPTED = 128
"""Exit codes from this one on mean that a signal stopped the run."""


@dataclass(frozen=True)
class Launch:
    """A job to run: the trial's number, the job's settings (without their resolved values) and its run folder."""

    number: int
    settings: Settings
    folder: Path


@dataclass(frozen=True)
class Job:
    """The task function that launchers call. It has plain attributes, so that it can be sent to any worker.

    Attributes:
        task: the application's own task function; takes the settings, and the Trial as observer.
        storage: the study's storage, an address or a configuration node.
        study_name: name of the study.
        pruner: the pruner's configuration node.
        heartbeat: seconds between two heartbeats.
        claim: whether the job must claim a waiting trial first (grids); in searches the trial is running already.
        owner: process id of the sweep, if the workers are its children and end with it; None for a cluster's workers.
        numbers: numbers of the trials, by their jobs' positions in the batch; None if jobs have their trials' numbers.
    """

    task: Callable[..., Any]
    storage: storages.Node
    study_name: str
    pruner: Mapping[str, Any]
    heartbeat: float
    claim: bool
    owner: int | None = None
    numbers: tuple[int, ...] | None = field(default=None, repr=False)

    def __call__(self, cfg: DictConfig) -> Any:
        """Run a trial and return its value, or None if there is none.

        Raises KeyboardInterrupt or SystemExit if a signal stopped the run, so that the sweep stops too.
        """
        import optuna

        orphan.follow(self.owner)
        storage = storages.connect(self.storage)
        pruner = make_pruner(self.pruner)
        study = optuna.load_study(study_name=self.study_name, storage=storage, pruner=pruner)
        number = int(HydraConfig.get().job.num)
        number = number if self.numbers is None else self.numbers[number]
        trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
        mine = take(study, storage, number, trial_id) if self.claim else is_running(storage, trial_id)
        if not mine:
            return None
        with Heartbeat(storage, [trial_id], WORKER, self.heartbeat):
            return self._run(cfg, Trial(study, storage, trial_id, number, pruner))

    def _run(self, cfg: DictConfig, trial: Trial) -> Any:
        import optuna

        study, storage, trial_id, number = trial.study, trial.storage, trial.trial_id, trial.number
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            with CapturedOutput(folder, trial.note_warnings):
                value = self.task(cfg, trial)
        except optuna.TrialPruned:
            conclude(study, storage, trial_id, number, optuna.trial.TrialState.PRUNED)
            return None
        except Exception as error:
            code = getattr(error, "exit_code", 1)
            if isinstance(error, MolsamError) and code >= INTERRUPTED:
                # The trial stays "running": its process is about to end, and the next sweep continues it.
                log.warning(str(error))
                orphan.leave_without(self.owner)
                raise (KeyboardInterrupt() if code == 130 else SystemExit(code)) from error
            self._fail(trial, error, folder)
            return None
        finish(study, storage, trial_id, number, value)
        return value

    def _fail(self, trial: Trial, error: Exception, folder: Path) -> None:
        import optuna

        sentence = str(error) if isinstance(error, MolsamError) else f"{type(error).__name__}: {error}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "error.log").write_text(traceback.format_exc(), encoding="utf-8")
        except OSError as trouble:
            log.warning(f"{folder} cannot be written ({trouble.strerror}), so it has no error.log.")
        failed = optuna.trial.TrialState.FAIL
        conclude(trial.study, trial.storage, trial.trial_id, trial.number, failed, error=sentence[:1000])


def take(study: Any, storage: Any, number: int, trial_id: int) -> bool:
    """Claim a waiting trial for this process, and return whether that succeeded.

    It fails if the trial was claimed, is done, or another trial of the same cell comes first. Two sweeps that start
    together may both queue a cell. Of a cell's unfinished trials only the one with the lowest number runs.
    """
    import optuna
    from optuna.trial import TrialState

    try:
        if not storage.set_trial_state_values(trial_id, state=TrialState.RUNNING):
            return False
    except optuna.exceptions.UpdateFinishedTrialError:
        return False
    trials = study.get_trials(deepcopy=False)
    mine = next(trial for trial in trials if trial.number == number)
    for other in trials:
        if other.number >= number or not same_cell(other, mine):
            continue
        since = other.number >= mine.user_attrs.get("planned", 0)
        if not other.state.is_finished() or (other.state == TrialState.COMPLETE and since):
            conclude(study, storage, trial_id, number, TrialState.FAIL, superseded=other.number)
            return False
    return True


def is_running(storage: Any, trial_id: int) -> bool:
    """Return whether a trial still waits for its worker; a late worker may find that it was given to another one."""
    from optuna.trial import TrialState

    return bool(storage.get_trial(trial_id).state == TrialState.RUNNING)


def same_cell(a: Any, b: Any) -> bool:
    """Return whether two trials are of the same cell with the same settings."""
    return all(a.user_attrs.get(key) == b.user_attrs.get(key) for key in ("cell", "identity"))


def finish(study: Any, storage: Any, trial_id: int, number: int, value: Any) -> None:
    """Record a trial's value or values, or that they are not numbers."""
    from optuna.trial import TrialState

    try:
        values = [float(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
    except (TypeError, ValueError):
        values = [math.nan]
    if not all(math.isfinite(v) for v in values):
        conclude(study, storage, trial_id, number, TrialState.FAIL, error=f"the objective is {value!r}, not a number")
    else:
        conclude(study, storage, trial_id, number, TrialState.COMPLETE, values)


def conclude(
    study: Any, storage: Any, trial_id: int, number: int, state: Any, values: list[float] | None = None, **attrs: Any
) -> None:
    """End a running trial with a state and attributes. A trial that was declared dead meanwhile does not change."""
    import optuna

    try:
        for key, value in {"host": host(), **attrs}.items():
            storage.set_trial_user_attr(trial_id, key, value)
        study.tell(number, values, state=state, skip_if_finished=True)
    except optuna.exceptions.UpdateFinishedTrialError:
        log.warning(f"Job {number} was declared dead, but has ended now; its result is in its run folder.")


def make_pruner(node: Mapping[str, Any]) -> Any:
    """Return the pruner of a configuration node. Raises ConfigError if it cannot be built."""
    from hydra.utils import instantiate
    from optuna.exceptions import ExperimentalWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return instantiate(dict(node), _convert_="all", _execution_whitelist_=["optuna.pruners.*"])
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ConfigError(
            f"hydra.sweeper.pruner={node} cannot be built ({reason}); choose hydra/sweeper/pruner=median, hyperband, "
            "wilcoxon or none."
        ) from error
