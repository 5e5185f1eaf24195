"""Protocols of a dataset and a batch: all that training may use of them. Molecules and images implement them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from molsam.data.report import DataReport
from molsam.data.spec import DataSpec


class Batch(Protocol):
    """B items, T tasks. A batch may have more attributes, which only its models use."""

    targets: Tensor | None
    """float [B, T], 0 where missing; None if there are no labels"""
    spare: bool
    """whether it is filler: a process that has no items left needs a batch to take part in a joint pass"""

    @property
    def index(self) -> Tensor:
        """int64 [B], row of each item in the dataset"""

    @property
    def mask(self) -> Tensor | None:
        """bool [B, T], whether the label is known; or float [B, T], the label's weight"""

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Return the batch on another device, its floating-point tensors in another dtype."""
        ...


class Dataset(Protocol):
    """M items, T tasks."""

    @property
    def noun(self) -> str:
        """the word for an item in messages"""

    @property
    def task(self) -> str:
        """regression, classification or multiclass"""

    @property
    def metric(self) -> str:
        """the validation metric"""

    @property
    def task_names(self) -> list[str]:
        """[T], names of the tasks"""

    @property
    def duplicates(self) -> str:
        """how equal items are treated: keep, drop, group, merge"""

    @property
    def targets(self) -> np.ndarray:
        """float64 [M, T], NaN where missing"""

    @property
    def smiles(self) -> Sequence[str]:
        """[M], the text that stands for each item in messages and tables"""

    @property
    def canonical(self) -> Sequence[str]:
        """[M], canonical form of `smiles`: equal items have equal strings"""

    @property
    def rows(self) -> np.ndarray:
        """int64 [M], the row of each item in the file"""

    @property
    def ids(self) -> list[str] | None:
        """[M], the user's own names of the items, if there are any"""

    @property
    def report(self) -> DataReport:
        """what was read, and the problems found"""

    @property
    def spec(self) -> DataSpec:
        """the sizes that a model is built for"""

    def __len__(self) -> int: ...

    def batch(self, index: np.ndarray | Sequence[int], scaler: Any = None) -> Batch:
        """Return some of the items as one batch, their targets scaled by `scaler`."""
        ...

    def batches(self, index: np.ndarray | Sequence[int], size: int, scaler: Any = None) -> Sequence[Batch]:
        """Return the items in batches of `size`, in the order of `index`; the last may be smaller."""
        ...
