"""What a run is judged by: which labels count, and whether the metric or the loss chooses the epoch."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from molsam.data.split import Split
from molsam.training.metrics import Scores, definable, score, score_all

log = logging.getLogger(__name__)


class Judge:
    """Scores predictions on the labels that can be judged.

    Bounds are no values, and a task without a label in the training part was not learnt: neither is scored.
    """

    def __init__(self, dataset: Any, split: Split) -> None:
        self.task, self.metric = dataset.task, dataset.metric
        self.targets = dataset.targets.copy()
        """float64 [M, T], NaN where there is nothing to judge by"""
        bounds = getattr(dataset, "bounds", None)
        if bounds is not None:
            self.targets[bounds != 0] = np.nan
        unlearnt = np.isnan(dataset.targets[split.train]).all(0)
        self.unlearnt = [name for name, out in zip(dataset.task_names, unlearnt, strict=True) if out]
        self.targets[:, unlearnt] = np.nan
        classes = dataset.spec.n_tasks // len(dataset.task_names)
        defined = definable(self.metric, self.targets[split.valid], classes)
        self.chooses = self.metric if defined else "loss"
        """what chooses the epoch and counts for patience: the metric, or the validation loss where it is undefined"""

    def warn(self) -> None:
        """Tell what is not as people expect it."""
        self.warn_of_tasks()
        if self.chooses == "loss":
            log.warning(
                "%s is undefined on the validation part (one class only, or too few labels): the validation loss chooses "
                "the epoch; split=stratified, or a larger validation part, would let the metric choose.",
                self.metric,
            )

    def warn_of_tasks(self) -> None:
        """Tell which tasks cannot be learnt."""
        if self.unlearnt:
            log.warning(
                "no training label in %s: left out of the metrics and of the choice of the epoch.",
                ", ".join(self.unlearnt[:12]),
            )

    def score(self, prediction: np.ndarray, index: np.ndarray, skip: bool = False) -> Scores:
        """The metric on some rows; raises as `metrics.score` does."""
        return score(self.metric, prediction, self.targets[index], skip)

    def score_all(self, prediction: np.ndarray, index: np.ndarray, skip: bool = False) -> dict[str, Scores]:
        """Every metric of the task on some rows, by name; raises as `metrics.score` does."""
        return score_all(self.task, prediction, self.targets[index], skip)
