"""Test metrics, computed by scikit-learn on the labels that are there; accuracy is in per cent."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from molsam.errors import ConfigError, NumericalError

TASK_OF = {"roc_auc": "classification", "rmse": "regression", "mae": "regression", "accuracy": "multiclass"}
DIRECTION = {"roc_auc": "max", "rmse": "min", "mae": "min", "accuracy": "max"}


class Scores(NamedTuple):
    """A metric over the tasks of a dataset."""

    mean: float
    """unweighted mean over the tasks where it is defined; NaN if none is"""
    per_task: list[float | None]
    """None where the metric is undefined: no label, or for ROC-AUC one class only"""

    @property
    def skipped(self) -> int:
        """Tasks where the metric is undefined."""
        return sum(value is None for value in self.per_task)


def check_metric(metric: str, task: str) -> None:
    """Raise ConfigError if the metric is unknown or does not fit the task."""
    if TASK_OF.get(metric) != task:
        fitting = ", ".join(name for name, kind in TASK_OF.items() if kind == task)
        raise ConfigError(f"dataset.metric={metric} does not fit a {task} dataset; use one of: {fitting}.")


def score(metric: str, prediction: np.ndarray, target: np.ndarray, skip: bool = False) -> Scores:
    """Score predictions [M, T] against targets [M, T] (NaN where missing).

    A prediction that is not finite where there is a label leaves nothing to be scored: a mean over the other tasks would
    hide it. With `skip` no task has a value then.

    Raises:
        NumericalError: there is such a prediction, and no `skip`.
    """
    if bad := np.flatnonzero((~np.isfinite(prediction) & ~np.isnan(target)).any(0)).tolist():
        if skip:
            return Scores(float("nan"), [None] * target.shape[1])
        raise NumericalError(
            f"Predictions of task {bad[0] + 1} of {target.shape[1]} are not finite ({len(bad)} such tasks); lower "
            "base_optimizer.lr or optimizer.rho, or set training.max_grad_norm."
        )
    per_task = [_one(metric, prediction[:, t], target[:, t]) for t in range(target.shape[1])]
    defined = [value for value in per_task if value is not None]
    return Scores(float(np.mean(defined)) if defined else float("nan"), per_task)


def better(metric: str, new: float, old: float | None) -> bool:
    """Whether `new` improves on `old`; a NaN never does, anything improves on None."""
    if np.isnan(new):
        return False
    if old is None or np.isnan(old):
        return True
    return new > old if DIRECTION[metric] == "max" else new < old


def _one(metric: str, prediction: np.ndarray, target: np.ndarray) -> float | None:
    from sklearn import metrics  # imported here: it is not needed before the first epoch ends

    known = ~np.isnan(target)
    if not known.any():
        return None
    prediction, target = prediction[known].astype(np.float64), target[known]
    if metric == "roc_auc":
        return float(metrics.roc_auc_score(target, prediction)) if len(np.unique(target)) == 2 else None
    if metric == "accuracy":
        return 100 * float(metrics.accuracy_score(target, prediction))
    if metric == "rmse":
        return float(metrics.root_mean_squared_error(target, prediction))
    return float(metrics.mean_absolute_error(target, prediction))
