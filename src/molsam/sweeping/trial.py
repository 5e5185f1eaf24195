"""The trial of a run: it reports the run's epochs and folds, and stops the run if the pruner decides so."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

from molsam.training.events import RunObserver

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.study import Study


class Trial(RunObserver):
    """A trial, accessed through the study's storage.

    Attributes:
        number: number of the trial in its study.
        fold: number (from 0) of the fold being trained, among the `folds` of the run.
    """

    def __init__(self, study: Study, storage: BaseStorage, trial_id: int, number: int, pruner: BasePruner) -> None:
        self.study, self.storage, self.trial_id, self.number, self.pruner = study, storage, trial_id, number, pruner
        self.fold, self.folds = 0, 1

    @property
    def per_fold(self) -> bool:
        """Whether the pruner compares whole folds (Wilcoxon's signed ranks) instead of epochs."""
        from optuna.pruners import WilcoxonPruner

        return isinstance(self.pruner, WilcoxonPruner)

    def on_fold_start(self, place: int, folds: int) -> None:
        """Record which fold is trained."""
        self.fold, self.folds = place, folds

    def on_train_epoch_end(self, trainer: Any, metrics: dict[str, Any]) -> None:
        """Report the validation metric. Raises like `end_of_epoch`."""
        epochs = trainer.settings.epochs
        last = trainer.stop or trainer.epoch + 1 == epochs
        self.end_of_epoch(metrics[f"valid/{trainer.metric}"], trainer.epoch, epochs, last=last)

    def end_of_epoch(self, value: float | None, epoch: int, epochs: int, *, last: bool) -> None:
        """Report a value at step fold * epochs + epoch, unless the pruner compares folds.

        Args:
            value: the validation metric.
            epoch: number of the epoch, from 0.
            epochs: number of epochs of one fold.
            last: whether the fold ends with this epoch.

        Raises:
            optuna.TrialPruned: the pruner stops the trial; never at its last epoch, where that would save no time.
        """
        if not self.per_fold:
            self._check(value, self.fold * epochs + epoch, last=last and self.fold + 1 == self.folds)

    def on_fold_end(self, value: float | None) -> None:
        """Report a fold's metric, if the pruner compares folds. Raises like `end_of_epoch`."""
        if self.per_fold:
            self._check(value, self.fold, last=self.fold + 1 == self.folds)

    def report(self, value: float | None, step: int) -> None:
        """Record a finite value. A step that is reported again after a resume replaces the old value."""
        if value is not None and math.isfinite(value):
            self.storage.set_trial_intermediate_value(self.trial_id, step, float(value))

    def should_prune(self) -> bool:
        """Return the pruner's decision on the values reported so far."""
        return bool(self.pruner.prune(self.study, self.storage.get_trial(self.trial_id)))

    def note_warnings(self, warnings: list[str]) -> None:
        """Record the run's warnings, unless the trial was declared dead meanwhile."""
        from optuna.exceptions import UpdateFinishedTrialError

        with contextlib.suppress(UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(self.trial_id, "warnings", warnings)

    def _check(self, value: float | None, step: int, *, last: bool) -> None:
        import optuna

        self.report(value, step)
        if not last and self.should_prune():
            raise optuna.TrialPruned(f"pruned after step {step}")
