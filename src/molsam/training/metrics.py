"""Metrics by name (the files of conf/metric), computed on the known labels."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from molsam.config.metrics import direction, metric_files
from molsam.errors import ConfigError, NumericalError


class Metric(NamedTuple):
    """A metric, as in a file of conf/metric."""

    name: str
    function: Callable[[np.ndarray, np.ndarray], float]
    """function of the labels and predictions of one task (molsam.training.scores)"""
    tasks: tuple[str, ...]
    direction: str
    """max or min: whether larger or smaller values are better"""
    display: str
    main: bool
    """whether the table at the end of a run shows it"""


class Scores(NamedTuple):
    """A metric over the tasks of a dataset."""

    mean: float
    """unweighted mean over the tasks for which it is defined; NaN if there is none"""
    per_task: list[float | None]
    """None where the metric is undefined: no labels, or for ROC-AUC only one class"""

    @property
    def skipped(self) -> int:
        """Number of tasks for which the metric is undefined."""
        return sum(value is None for value in self.per_task)


def known() -> dict[str, Metric]:
    """Return all metrics by name. Raises ConfigError if a file of conf/metric does not name a function."""
    return {
        name: Metric(
            name,
            _function(settings["_target_"], settings["path"]),
            settings["task"],
            settings["direction"],
            settings["display"],
            bool(settings["main"]),
        )
        for name, settings in metric_files().items()
    }


@cache
def _function(address: str, path: Path) -> Callable[[np.ndarray, np.ndarray], float]:
    """Return the function that a metric's file names. Raises ConfigError if it does not exist."""
    module, _, name = address.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(f"{path}: _target_={address} cannot be imported ({error}); give a function.") from error
    if not callable(found):
        raise ConfigError(f"{path}: _target_={address} is not a function; give one.")
    return cast(Callable[[np.ndarray, np.ndarray], float], found)


def fitting(task: str) -> list[Metric]:
    """Return the metrics of a task; those of the table at the end of a run come first."""
    return sorted((one for one in known().values() if task in one.tasks), key=lambda one: not one.main)


def check_metric(metric: str, task: str) -> None:
    """Raise ConfigError if the metric is unknown or does not fit the task."""
    names = [one.name for one in fitting(task)]
    if metric not in names:
        near = get_close_matches(str(metric), names, n=1)
        hint = f"did you mean {near[0]}? U" if near else "u"
        raise ConfigError(
            f"dataset.metric={metric} does not fit a {task} dataset; {hint}se one of: {', '.join(names)}."
        )


def score(metric: str, prediction: np.ndarray, target: np.ndarray, skip: bool = False) -> Scores:
    """Score predictions against targets.

    If the prediction for a known label is not finite, no task is scored, because a mean over the other tasks would hide
    it.

    Args:
        metric: name of a metric.
        prediction: [M, T], or [M, T, K] for K classes.
        target: [M, T], NaN where missing.
        skip: return no values in that case, instead of raising.

    Raises:
        NumericalError: a prediction is not finite, and `skip` is off.
    """
    finite = np.isfinite(prediction) if prediction.ndim == 2 else np.isfinite(prediction).all(2)
    if bad := np.flatnonzero((~finite & ~np.isnan(target)).any(0)).tolist():
        if skip:
            return Scores(float("nan"), [None] * target.shape[1])
        raise NumericalError(
            f"Predictions of task {bad[0] + 1} of {target.shape[1]} are not finite ({len(bad)} such tasks); lower "
            "base_optimizer.lr or optimizer.rho, or set training.max_grad_norm."
        )
    function = known()[metric].function
    per_task = [_one(function, prediction[:, t], target[:, t]) for t in range(target.shape[1])]
    defined = [value for value in per_task if value is not None]
    return Scores(float(np.mean(defined)) if defined else float("nan"), per_task)


def score_all(task: str, prediction: np.ndarray, target: np.ndarray, skip: bool = False) -> dict[str, Scores]:
    """Return every metric of a task, by name."""
    return {one.name: score(one.name, prediction, target, skip) for one in fitting(task)}


def definable(metric: str, target: np.ndarray, classes: int = 1) -> bool:
    """Return whether a metric is defined on targets [M, T], that is, whether exact predictions have a score."""
    exact = target if classes == 1 else np.eye(classes)[np.nan_to_num(target).astype(int)]
    return not np.isnan(score(metric, exact, target).mean)


def better(metric: str, new: float, old: float | None) -> bool:
    """Return whether `new` is better than `old`. NaN never is; all else is better than None. `metric` may be "loss"."""
    if np.isnan(new):
        return False
    if old is None or np.isnan(old):
        return True
    return new > old if metric != "loss" and direction(metric) == "max" else new < old


def _one(
    function: Callable[[np.ndarray, np.ndarray], float], prediction: np.ndarray, target: np.ndarray
) -> float | None:
    there = ~np.isnan(target)
    if not there.any():
        return None
    prediction, target = prediction[there].astype(np.float64), target[there]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # undefined metrics are reported as None
        value = function(target, prediction)
    return None if np.isnan(value) else float(value)
