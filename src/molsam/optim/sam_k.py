"""SAM-k: GraphSAM paper, sections 4.1 and A.4: eps is recomputed every k steps and reused between.

Every step perturbs. (The "interval" of some libraries is another thing: there the other steps are plain.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from molsam.optim.anchored import Anchored
from molsam.optim.base import BaseOptimizer, check


class SAMk(Anchored):
    """SAM with eps of the first step that could be made of every k; 1 + 1/k passes a step.

    Args:
        k: steps (not epochs) between two computations of eps; 8 in the paper.
    """

    def __init__(self, params: nn.Module | Iterable[Any], base: BaseOptimizer, *, k: int = 8, **settings: Any) -> None:
        check(isinstance(k, int) and k >= 1, "k", k, "a whole number of steps, 1 or more")
        self.k = k
        super().__init__(params, base, **settings)

    @property
    def period(self) -> int:
        """Number of the k steps that this step is in."""
        return self.steps // self.k
