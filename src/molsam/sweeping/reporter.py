"""An observer of the training loop that reports every epoch to the study and ends a hopeless run."""

from __future__ import annotations

from typing import Any

from molsam.sweeping import trial
from molsam.training.events import Callback


class Reporter(Callback):
    """Reports the validation metric after every epoch.

    Args:
        epochs: of one fold.
    """

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_end(self, trainer: Any, metrics: dict[str, Any]) -> None:
        """Report. Raises optuna.TrialPruned."""
        last = trainer.stop or trainer.epoch + 1 == self.epochs
        trial.end_of_epoch(metrics[f"valid/{trainer.metric}"], trainer.epoch, self.epochs, last=last)
