"""The study of a sweep: it is opened or continued, and trials of dead workers are queued again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from molsam.sweeping import storage as storages
from molsam.sweeping.heartbeat import WORKER, Watch
from molsam.sweeping.job import conclude

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

log = logging.getLogger(__name__)


class SharedStudy:
    """An Optuna study that several processes work on.

    Args:
        node: the storage.
        name: the study's name.
        directions: "minimize" or "maximize" for each objective.
        sampler: suggests parameters; None for grids.
        pruner: stops trials that are unlikely to improve.
        heartbeat: seconds between two heartbeats.
    """

    def __init__(
        self, node: storages.Node, name: str, directions: Sequence[str], sampler: Any, pruner: Any, heartbeat: float
    ) -> None:
        import optuna

        self.node, self.directions = node, list(directions)
        self.storage = storages.connect(node)
        self.study = optuna.create_study(
            study_name=name,
            storage=self.storage,
            sampler=sampler,
            pruner=pruner,
            directions=self.directions,  # type: ignore[arg-type]
            load_if_exists=True,
        )
        self.watch = Watch(heartbeat)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials by number."""
        return sorted(self.study.get_trials(deepcopy=False), key=lambda trial: trial.number)

    def trial_id(self, number: int) -> int:
        """Return the storage's id of a trial."""
        return self.storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)

    def add(self, **settings: Any) -> None:
        """Add a waiting trial."""
        import optuna

        self.study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.WAITING, **settings))

    def restart(self) -> None:
        """Delete all trials, and create the study again under its name, with this sweep's direction."""
        import optuna

        name, sampler, pruner = self.study.study_name, self.study.sampler, self.study.pruner
        optuna.delete_study(study_name=name, storage=self.storage)
        self.study = optuna.create_study(
            study_name=name,
            storage=self.storage,
            sampler=sampler,
            pruner=pruner,
            directions=self.directions,  # type: ignore[arg-type]
        )

    @property
    def direction_differs(self) -> bool:
        """Whether the stored study has another direction than this sweep."""
        return [one.name.lower() for one in self.study.directions] != self.directions

    def revive(self, own: set[int] | None = None, *, shared: bool = False) -> list[int]:
        """Mark running trials of dead workers as failed, and queue each again with the same parameters.

        Args:
            own: numbers of the trials to check, if this sweep launched them and the launcher has returned. Whether this
                sweep itself is alive then does not count.
            shared: whether another sweep's worker may have taken one of these trials instead, and may have done so just
                now, before its first heartbeat.

        Returns:
            The numbers of the dead trials.
        """
        from optuna.trial import TrialState

        found = []
        for trial in self.trials():
            if trial.state != TrialState.RUNNING or (own is not None and trial.number not in own):
                continue
            if own is None:
                dead = self.watch.dead(trial)
            elif shared or WORKER in trial.system_attrs:
                dead = self.watch.dead(trial, (WORKER,))
            else:
                dead = True
            if dead and self._bury(trial):
                found.append(trial.number)
        return found

    def give_up(self, numbers: set[int], reason: str) -> None:
        """Mark running or waiting trials as failed; they are not queued again."""
        from optuna.trial import TrialState

        for trial in self.trials():
            if trial.number in numbers and not trial.state.is_finished():
                if trial.state == TrialState.WAITING and not self.storage.set_trial_state_values(
                    trial._trial_id, state=TrialState.RUNNING
                ):
                    continue
                conclude(self.study, self.storage, trial._trial_id, trial.number, TrialState.FAIL, error=reason)

    def _bury(self, trial: FrozenTrial) -> bool:
        """Mark a dead trial as failed and queue its successor; return False if another sweep did so already."""
        import optuna
        from optuna.trial import TrialState

        # The storage lets only one process end a trial. That process queues the successor.
        try:
            if not self.storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL):
                return False
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        kept = {key: value for key, value in trial.user_attrs.items() if key not in ("host", "error", "warnings")}
        kept |= {"continues": trial.number}
        system = {key: value for key, value in trial.system_attrs.items() if not key.startswith("molsam:")}
        log.info(f"Job {trial.number} was interrupted; it is queued again.")
        self.add(
            params=trial.params,
            distributions=trial.distributions,
            user_attrs=kept,
            system_attrs=system,
            intermediate_values=trial.intermediate_values,
        )
        return True
