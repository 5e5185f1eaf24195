"""What a training run tells the sweep it belongs to; outside a sweep every call does nothing.

The loop reports through molsam.sweeping.reporter; anything else may say

    trial.report(value, step)      the validation metric so far
    if trial.should_prune():       the study's pruner finds it hopeless
        raise trial.pruned(step)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage
    from optuna.study import Study


class Trial:
    """The trial that runs in this process, reached through the study's storage.

    Attributes:
        fold: place of the fold that is trained among the `folds` of the run, the first being 0.
    """

    def __init__(self, study: Study, storage: BaseStorage, trial_id: int, pruner: BasePruner) -> None:
        self.study, self.storage, self.trial_id, self.pruner = study, storage, trial_id, pruner
        self.fold, self.folds = 0, 1

    @property
    def per_fold(self) -> bool:
        """Whether the pruner compares whole folds (Wilcoxon's signed ranks) and not epochs."""
        from optuna.pruners import WilcoxonPruner

        return isinstance(self.pruner, WilcoxonPruner)

    def report(self, value: float | None, step: int) -> None:
        """Record a value that is a number; a step reported again after a resume replaces the old one."""
        if value is not None and math.isfinite(value):
            self.storage.set_trial_intermediate_value(self.trial_id, step, float(value))

    def should_prune(self) -> bool:
        """Ask the pruner about the values reported so far."""
        return bool(self.pruner.prune(self.study, self.storage.get_trial(self.trial_id)))


current: Trial | None = None
"""Set by molsam.sweeping.job for as long as a trial runs."""


def report(value: float | None, step: int) -> None:
    """Record the objective after `step` (an epoch, or a fold: see `per_fold`)."""
    if current is not None:
        current.report(value, step)


def should_prune() -> bool:
    """Whether the study's pruner wants this run to stop."""
    return current is not None and current.should_prune()


def pruned(step: int) -> Exception:
    """The exception that ends a pruned run."""
    import optuna

    return optuna.TrialPruned(f"pruned after step {step}")


def begin_fold(fold: int, folds: int) -> None:
    """Say which of its folds a run trains next."""
    if current is not None:
        current.fold, current.folds = fold, folds


def end_of_epoch(value: float | None, epoch: int, epochs: int, *, last: bool) -> None:
    """Report the validation metric at step fold * epochs + epoch, unless the pruner compares folds.

    Args:
        value: the metric.
        epoch: from 0.
        epochs: of one fold.
        last: whether the fold ends with this epoch.

    Raises:
        optuna.TrialPruned: the pruner gives the trial up. At its very end it never does: nothing would be saved.
    """
    if current is not None and not current.per_fold:
        check(value, current.fold * epochs + epoch, last=last and current.fold + 1 == current.folds)


def end_of_fold(value: float | None) -> None:
    """Report a fold's validation metric at step fold to a pruner that compares folds. Raises as `end_of_epoch`."""
    if current is not None and current.per_fold:
        check(value, current.fold, last=current.fold + 1 == current.folds)


def check(value: float | None, step: int, *, last: bool = False) -> None:
    """Report, and raise optuna.TrialPruned if the pruner says so and it was not the last step."""
    report(value, step)
    if not last and should_prune():
        raise pruned(step)
