"""Which labels are scored, and whether the metric or the loss selects the best epoch."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from molsam.data.split import Split
from molsam.training.metrics import Scores, definable, score, score_all

log = logging.getLogger(__name__)

LAST = "last"
"""What selects the epoch if the validation part has no labels: the last one is kept."""


class Judge:
    """Scores predictions.

    Two kinds of labels are not scored: bounds, because they are not values, and labels of tasks that have none in the
    training part, because such tasks were not trained.
    """

    def __init__(self, dataset: Any, split: Split) -> None:
        self.task, self.metric = dataset.task, dataset.metric
        self.targets = dataset.targets.copy()
        """float64 [M, T], NaN where nothing is scored"""
        bounds = getattr(dataset, "bounds", None)
        if bounds is not None:
            self.targets[bounds != 0] = np.nan
        unlearnt = np.isnan(dataset.targets[split.train]).all(0)
        self.unlearnt = [name for name, out in zip(dataset.task_names, unlearnt, strict=True) if out]
        self.targets[:, unlearnt] = np.nan
        classes = dataset.spec.n_tasks // len(dataset.task_names)
        defined = definable(self.metric, self.targets[split.valid], classes)
        labelled = bool((~np.isnan(dataset.targets[split.valid][:, ~unlearnt])).any())
        self.chooses = self.metric if defined else "loss" if labelled else LAST
        """what selects the epoch and counts for patience: the metric, "loss" if the metric is undefined, or LAST"""

    def warn(self) -> None:
        """Warn about tasks that cannot be trained and a metric that cannot select the epoch."""
        self.warn_of_tasks()
        if self.chooses == LAST:
            log.warning(
                "No molecule of the validation part has a label, so the last epoch is kept; give labels to the "
                "validation part to select the best epoch."
            )
        if self.chooses == "loss":
            log.warning(
                "%s is undefined on the validation part (only one class, or too few labels), so the validation loss "
                "selects the epoch; use split=stratified or a larger validation part to select by the metric.",
                self.metric,
            )

    def warn_of_tasks(self) -> None:
        """Warn about tasks that cannot be trained."""
        if self.unlearnt:
            log.warning(
                "%s: no labels in the training part; left out of the metrics and of the selection of the epoch.",
                ", ".join(self.unlearnt[:12]),
            )

    def score(self, prediction: np.ndarray, index: np.ndarray, skip: bool = False) -> Scores:
        """Return the metric on some molecules. Raises like `metrics.score`."""
        return score(self.metric, prediction, self.targets[index], skip)

    def score_all(self, prediction: np.ndarray, index: np.ndarray, skip: bool = False) -> dict[str, Scores]:
        """Return every metric of the task on some molecules, by name. Raises like `metrics.score`."""
        return score_all(self.task, prediction, self.targets[index], skip)
