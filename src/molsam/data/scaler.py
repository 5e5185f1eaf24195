"""Scaling of targets, fitted on the training part only."""

from __future__ import annotations

from typing import Any

import numpy as np


class TargetScaler:
    """Scales targets to (y - mean) / std per task. Classes are not scaled; the std of a constant task is 1."""

    def __init__(self, mean: np.ndarray, std: np.ndarray) -> None:
        self.mean, self.std = mean, std

    @classmethod
    def fit(cls, targets: np.ndarray, task: str, bounds: np.ndarray | None = None) -> TargetScaler:
        """Return the scaler of training targets, with the population standard deviation.

        Args:
            targets: float [M, T], NaN where missing.
            task: regression; targets of other tasks are not scaled.
            bounds: int8 [M, T], not 0 where the target is a bound. Bounds are ignored for tasks that have exact values.
        """
        tasks = targets.shape[1]
        mean, std = np.zeros(tasks), np.ones(tasks)
        if task == "regression":
            for t in range(tasks):
                there = ~np.isnan(targets[:, t])
                exact = there if bounds is None else there & (bounds[:, t] == 0)
                known = targets[exact if exact.any() else there, t]
                if len(known):
                    mean[t] = known.mean()
                    spread = known.std()
                    std[t] = spread if spread > 1e-12 * max(1.0, abs(mean[t])) else 1.0
        return cls(mean, std)

    def transform(self, targets: np.ndarray) -> np.ndarray:
        """Return scaled targets."""
        return (targets - self.mean) / self.std

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Return scaled values in the targets' own units."""
        return values * self.std + self.mean

    def state(self) -> dict[str, Any]:
        """Return mean and std as plain values, for JSON."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TargetScaler:
        """Return the scaler of a `state`."""
        return cls(np.array(state["mean"]), np.array(state["std"]))
