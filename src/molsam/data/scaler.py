"""Target scaling, fitted on the training part only."""

from __future__ import annotations

from typing import Any

import numpy as np


class TargetScaler:
    """(y - mean) / std per task; classification labels stay as they are; a constant task has std 1."""

    def __init__(self, mean: np.ndarray, std: np.ndarray) -> None:
        self.mean, self.std = mean, std

    @classmethod
    def fit(cls, targets: np.ndarray, task: str, bounds: np.ndarray | None = None) -> TargetScaler:
        """From training targets, [M, T] (NaN where missing; bounds are left out if there are values), population standard deviation."""
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
        """Scaled targets."""
        return (targets - self.mean) / self.std

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Back in the target's own unit."""
        return values * self.std + self.mean

    def state(self) -> dict[str, Any]:
        """Plain values."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> TargetScaler:
        """Restore `state`."""
        return cls(np.array(state["mean"]), np.array(state["std"]))
