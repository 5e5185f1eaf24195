"""What a trainer may ask of any dataset and of any batch; molecules and images are two of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from molsam.data.report import DataReport
from molsam.data.spec import DataSpec


class Batch(Protocol):
    """B items, T tasks; what else a batch has is its model's to know."""

    targets: Tensor | None
    """float [B, T], 0 where missing; None if there are no labels"""
    spare: bool
    """whether it is there only so that its process takes part in a pass"""

    @property
    def index(self) -> Tensor:
        """int64 [B], row of each item in the dataset"""

    @property
    def mask(self) -> Tensor | None:
        """bool [B, T], whether the label is there; or float [B, T], its weight"""

    def __len__(self) -> int: ...

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """The batch on another device, its floating-point tensors in another dtype."""
        ...


class Dataset(Protocol):
    """M items, T tasks."""

    @property
    def noun(self) -> str:
        """what an item is called in messages"""

    @property
    def task(self) -> str:
        """regression, classification or multiclass"""

    @property
    def metric(self) -> str:
        """the validation metric"""

    @property
    def task_names(self) -> list[str]:
        """[T]"""

    @property
    def duplicates(self) -> str:
        """what happens to equal items: keep, drop, group, merge"""

    @property
    def targets(self) -> np.ndarray:
        """float64 [M, T], NaN where missing"""

    @property
    def smiles(self) -> list[str]:
        """[M], what each item is called in messages and tables"""

    @property
    def canonical(self) -> list[str]:
        """[M], the same for equal items"""

    @property
    def rows(self) -> np.ndarray:
        """int64 [M], where each item is in the file"""

    @property
    def ids(self) -> list[str] | None:
        """[M], the user's own names of the items, if there are any"""

    @property
    def report(self) -> DataReport:
        """what was read, and what was wrong with it"""

    @property
    def spec(self) -> DataSpec:
        """what a model must know to be built"""

    def __len__(self) -> int: ...

    def batch(self, index: np.ndarray | Sequence[int], scaler: Any = None) -> Batch:
        """Some of the items with their targets, scaled."""
        ...

    def batches(self, index: np.ndarray | Sequence[int], size: int, scaler: Any = None) -> Sequence[Batch]:
        """The items in batches of `size`, in that order; the last may be smaller."""
        ...
