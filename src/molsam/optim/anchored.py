"""SAM with a perturbation gradient that is computed once per period and reused in between."""

from __future__ import annotations

from typing import Any

from molsam.optim.base import Closure, Gradients
from molsam.optim.sam import SAM


class Anchored(SAM):
    """eps is exact at the first step of each period that is not skipped (one extra pass); later steps reuse it."""

    carried = ("anchor", "norm")
    remembered = ("eps",)
    anchor: int | None = None
    """number of the period in which eps was last exact"""
    norm = 0.0
    """norm of eps"""
    moves = False
    """whether eps is updated with omega after each step"""

    @property
    def period(self) -> int:
        """Number of the period that this step is in."""
        raise NotImplementedError

    def gradients(self, closure: Closure) -> Gradients:
        """Return eps, exact or from memory, and omega at theta + rho eps / norm(eps)."""
        if self.anchor != self.period:
            return super().gradients(closure)
        eps = self.memory["eps"]
        with self.perturbed(eps, self.norm):
            omega = self.evaluate(closure, by=eps if self.moves else None)
        return Gradients(eps, self.norm, omega.gradient, omega.norm, omega.dot)

    def needed(self, own: dict[str, Any]) -> set[str]:
        """Return eps, once it was computed."""
        return set() if own["anchor"] is None else {"eps"}

    def remember(self, gradients: Gradients) -> None:
        """Store eps."""
        self.memory["eps"], self.norm, self.anchor = gradients.eps, gradients.norm, self.period
