"""The trial of a study that a run belongs to: hears of its epochs and folds, and ends it when the pruner says so."""

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
    """A trial, reached through the study's storage.

    Attributes:
        number: of the trial in its study.
        fold: place of the fold that is trained among the `folds` of the run, the first being 0.
    """

    def __init__(self, study: Study, storage: BaseStorage, trial_id: int, number: int, pruner: BasePruner) -> None:
        self.study, self.storage, self.trial_id, self.number, self.pruner = study, storage, trial_id, number, pruner
        self.fold, self.folds = 0, 1

    @property
    def per_fold(self) -> bool:
        """Whether the pruner compares whole folds (Wilcoxon's signed ranks) and not epochs."""
        from optuna.pruners import WilcoxonPruner

        return isinstance(self.pruner, WilcoxonPruner)

    def on_fold_start(self, place: int, folds: int) -> None:
        """Note which fold is trained."""
        self.fold, self.folds = place, folds

    def on_train_epoch_end(self, trainer: Any, metrics: dict[str, Any]) -> None:
        """Report the validation metric. Raises as `end_of_epoch`."""
        epochs = trainer.settings.epochs
        last = trainer.stop or trainer.epoch + 1 == epochs
        self.end_of_epoch(metrics[f"valid/{trainer.metric}"], trainer.epoch, epochs, last=last)

    def end_of_epoch(self, value: float | None, epoch: int, epochs: int, *, last: bool) -> None:
        """Report a value at step fold * epochs + epoch, unless the pruner compares folds.

        Args:
            value: the validation metric.
            epoch: from 0.
            epochs: of one fold.
            last: whether the fold ends with this epoch.

        Raises:
            optuna.TrialPruned: the pruner gives the trial up. At its very end it never does: nothing would be saved.
        """
        if not self.per_fold:
            self._check(value, self.fold * epochs + epoch, last=last and self.fold + 1 == self.folds)

    def on_fold_end(self, value: float | None) -> None:
        """Report a fold's metric at step fold to a pruner that compares folds. Raises as `end_of_epoch`."""
        if self.per_fold:
            self._check(value, self.fold, last=self.fold + 1 == self.folds)

    def report(self, value: float | None, step: int) -> None:
        """Record a value that is a number; a step reported again after a resume replaces the old one."""
        if value is not None and math.isfinite(value):
            self.storage.set_trial_intermediate_value(self.trial_id, step, float(value))

    def should_prune(self) -> bool:
        """Ask the pruner about the values reported so far."""
        return bool(self.pruner.prune(self.study, self.storage.get_trial(self.trial_id)))

    def note_warnings(self, warnings: list[str]) -> None:
        """Record what the run warned of, unless the trial was given up for dead meanwhile."""
        from optuna.exceptions import UpdateFinishedTrialError

        with contextlib.suppress(UpdateFinishedTrialError):
            self.storage.set_trial_user_attr(self.trial_id, "warnings", warnings)

    def _check(self, value: float | None, step: int, *, last: bool) -> None:
        import optuna

        self.report(value, step)
        if not last and self.should_prune():
            raise optuna.TrialPruned(f"pruned after step {step}")
