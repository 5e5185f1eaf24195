"""Weights of the labels in the loss: weights of molecules, and of classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from molsam.data.columns import named
from molsam.data.labels import at, read_columns
from molsam.data.table import Table
from molsam.errors import ConfigError, DataError


def sample_weights(table: Table, settings: Mapping[str, Any]) -> np.ndarray:
    """Return the column that dataset.weights names, float64 [n]. Raises DataError for a cell that is not a weight."""
    (column,) = read_columns(table, [named(table, "dataset.weights", settings["weights"])])
    bad = np.flatnonzero(~(column.values >= 0) | (column.bounds != 0))
    if len(bad):
        raise DataError(f"{at(table, column, bad[0])} is not a weight; write a number from 0 up.")
    return column.values


def label_weights(dataset: Any, train: np.ndarray, class_weight: Any) -> np.ndarray | None:
    """Return the weight of each label, float64 [M, T]; None if all are equal. Their mean over the training part is 1.

    class_weight: None; balanced (the classes of a task have equal total weight); or one positive number for each class.
    Raises ConfigError if it does not fit the dataset.
    """
    sample = getattr(dataset, "sample_weights", None)
    if sample is None and class_weight is None:
        return None
    targets: np.ndarray = dataset.targets
    weights = np.ones(targets.shape) if sample is None else np.repeat(sample[:, None], targets.shape[1], axis=1)
    if class_weight is not None:
        weights = weights * _of_classes(dataset, train, class_weight)
    known = ~np.isnan(targets[train])
    total = weights[train][known].sum()
    if not total > 0:
        raise ConfigError("dataset.weights is 0 for every training molecule; give some of them a positive weight.")
    return weights * (known.sum() / total)


def _of_classes(dataset: Any, train: np.ndarray, class_weight: Any) -> np.ndarray:
    if dataset.task == "regression":
        raise ConfigError(
            f"training.class_weight={class_weight} needs classes, and this dataset is a regression; leave it out."
        )
    count = 2 if dataset.task == "classification" else dataset.spec.n_tasks // len(dataset.task_names)
    numbers = np.nan_to_num(dataset.targets).astype(int)
    if class_weight != "balanced":
        if len(class_weight) != count:
            raise ConfigError(
                f"training.class_weight={list(class_weight)} has {len(class_weight)} numbers for {count} classes; give "
                "balanced, or one number for each class."
            )
        return np.asarray(class_weight, dtype=np.float64)[numbers]
    weights = np.ones(dataset.targets.shape)
    for t in range(weights.shape[1]):
        known = dataset.targets[train, t]
        counts = np.bincount(known[~np.isnan(known)].astype(int), minlength=count)
        weights[:, t] = (counts.sum() / (count * np.maximum(counts, 1)))[numbers[:, t]]
    return weights
