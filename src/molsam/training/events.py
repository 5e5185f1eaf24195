"""The loop's events, by Lightning's names.

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
    """An observer of the loop; it may read the trainer, stop it, and keep state across a resume."""

    def on_fit_start(self, trainer: Trainer) -> None:
        """Before the first step, after a checkpoint has been loaded."""

    def on_train_epoch_start(self, trainer: Trainer) -> None:
        """Before the first batch of an epoch (not again when a run resumes inside it)."""

    def on_train_batch_end(self, trainer: Trainer) -> None:
        """After every step; `trainer.optimizer.last` tells what it did."""

    def on_train_epoch_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        """After an epoch's validation; `metrics` is the epoch's line of metrics.jsonl."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch, with the best weights in the model."""

    def state_dict(self) -> dict[str, Any]:
        """What a resume needs: tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""


class RunObserver(Callback):
    """An observer of a whole run, which may train several folds one after another."""

    def on_fold_start(self, place: int, folds: int) -> None:
        """Before the fold at `place` (from 0) of so many."""

    def on_fold_end(self, value: float | None) -> None:
        """After a fold; `value` is its validation metric."""
