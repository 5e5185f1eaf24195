"""SAM-k (GraphSAM paper, sections 4.1 and A.4): eps is recomputed every k steps and reused in between.

Every step perturbs. (With the "interval" of some libraries, in contrast, the steps in between are base steps.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from molsam.optim.anchored import Anchored
from molsam.optim.base import BaseOptimizer, check


class SAMk(Anchored):
    """SAM that computes eps once every k steps; 1 + 1/k passes per step.

    Args:
        k: number of steps (not epochs) from one computation of eps to the next; 8 in the paper.
    """

    def __init__(self, params: nn.Module | Iterable[Any], base: BaseOptimizer, *, k: int = 8, **settings: Any) -> None:
        check(isinstance(k, int) and k >= 1, "k", k, "a whole number of steps, 1 or more")
        self.k = k
        super().__init__(params, base, **settings)

    @property
    def period(self) -> int:
        """Number of the period of k steps that this step is in."""
        return self.steps // self.k
