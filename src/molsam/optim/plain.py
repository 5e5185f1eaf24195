"""The base optimizer alone, with the same closure, counters, clipping and observers as all others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from molsam.optim.base import BaseOptimizer, Closure, Gradients, Optimizer


class Plain(Optimizer):
    """omega_t = grad L(theta_t); the base optimizer steps with it. One pass per step.

    There is no rho; its observers see the gradient as both eps and omega.
    """

    def __init__(self, params: nn.Module | Iterable[Any], base: BaseOptimizer, **settings: Any) -> None:
        super().__init__(params, base, **{**settings, "rho": 0.0, "rho_schedule": None})

    def gradients(self, closure: Closure) -> Gradients:
        """Return the gradient at theta as both eps and omega."""
        return self._plain(closure)
