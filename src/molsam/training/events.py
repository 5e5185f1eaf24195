"""Events of the training loop, with Lightning's names.

on_fit_start
for epoch:
    on_train_epoch_start
    for batch:
        on_train_batch_end
    on_train_epoch_end          (after validation: the epoch's metrics are complete)
on_fit_end
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from molsam.training.loop import Trainer


class Callback:
    """An observer of the training loop. It may read the trainer, stop it, and keep state across a resume."""

    def on_fit_start(self, trainer: Trainer) -> None:
        """Run before the first step, after a checkpoint was loaded."""

    def on_train_epoch_start(self, trainer: Trainer) -> None:
        """Run before the first batch of an epoch, but not again if a run resumes within it."""

    def on_train_batch_end(self, trainer: Trainer) -> None:
        """Run after every step; `trainer.optimizer.last` is its record."""

    def on_train_epoch_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        """Run after an epoch's validation; `metrics` is the epoch's line of metrics.jsonl."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """Run after the last epoch, with the best weights in the model."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`."""


class RunObserver(Callback):
    """An observer of a whole run, which may train several folds one after the other."""

    def on_fold_start(self, place: int, folds: int) -> None:
        """Run before fold number `place` (from 0) of `folds`."""

    def on_fold_end(self, value: float | None) -> None:
        """Run after a fold; `value` is its validation metric."""
