"""Random forests on Morgan fingerprints: the baseline that a graph model should beat. This module needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from molsam.chem.fingerprints import BITS, RADIUS, Morgan
from molsam.chem.molecule import parse

SHARE = 0.1
"""share of the bits that each split of a regression tree may choose from; a classification tree uses the square root of
their number"""


class MorganForest:
    """scikit-learn's random forest, one for each task, on Morgan fingerprints (Svetnik et al. 2003).

    radius, bits: of the fingerprints. trees: of each forest. threads: None for all cores.
    """

    def __init__(self, *, radius: int = RADIUS, bits: int = BITS, trees: int = 100, threads: int | None = None) -> None:
        self.morgan, self.trees, self.jobs = Morgan(radius, bits), trees, threads or -1
        self.forests: list[Any] = []
        self.classes = 0

    def features(self, smiles: Sequence[str]) -> np.ndarray:
        """Return the fingerprints of molecules, float32 [M, bits]."""
        return self.morgan.array([parse(text) for text in smiles]).astype(np.float32)

    def fit(
        self, features: np.ndarray, targets: np.ndarray, weights: np.ndarray | None, *, classes: int, seed: int
    ) -> None:
        """Fit each task on the labels that it has; a task without labels predicts NaN.

        Args:
            features: float32 [M, bits].
            targets: float64 [M, T], NaN where missing.
            weights: float64 [M, T], the weight of each label; None: equal weights.
            classes: 0 for regression, else the number of classes.
            seed: seed of the first task's forest; each further task adds 1.
        """
        from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

        self.classes, self.forests = classes, []
        for t, target in enumerate(targets.T):
            there = ~np.isnan(target)
            if not there.any():
                self.forests.append(None)
                continue
            kind, share = (RandomForestClassifier, "sqrt") if classes else (RandomForestRegressor, SHARE)
            forest = kind(self.trees, max_features=share, n_jobs=self.jobs, random_state=seed + t)
            counts = None if weights is None else weights[there, t]
            self.forests.append(forest.fit(features[there], target[there], sample_weight=counts))
            forest.n_jobs = 1  # several threads would add the trees in varying order, and so round differently

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return values or probabilities [M, T]; for more than two classes [M, T, K]."""
        return np.stack([self._one(forest, features) for forest in self.forests], axis=1)

    def _one(self, forest: Any, features: np.ndarray) -> np.ndarray:
        count = len(features)
        if forest is None:
            return np.full((count, self.classes) if self.classes > 2 else count, np.nan)
        if not self.classes:
            return np.asarray(forest.predict(features))
        found = np.zeros((count, self.classes))
        found[:, forest.classes_.astype(int)] = forest.predict_proba(features)  # a class may have no label
        return found if self.classes > 2 else found[:, 1]

    @property
    def nodes(self) -> int:
        """Number of nodes of all trees."""
        return sum(tree.tree_.node_count for forest in self.forests if forest for tree in forest.estimators_)
