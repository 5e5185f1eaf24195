"""SAM with a perturbation gradient that is computed once a period and kept between."""

from __future__ import annotations

from typing import Any

from molsam.optim.base import Closure, Gradients
from molsam.optim.sam import SAM


class Anchored(SAM):
    """eps is exact at the first step of each period that can be made (one more pass), and from memory at the others."""

    carried = ("anchor", "norm")
    remembered = ("eps",)
    anchor: int | None = None
    """number of the period in which eps was last exact"""
    norm = 0.0
    """of eps"""
    moves = False
    """whether eps moves with omega"""

    @property
    def period(self) -> int:
        """Number of the period that this step is in."""
        raise NotImplementedError

    def gradients(self, closure: Closure) -> Gradients:
        """eps exact or from memory; omega at theta + rho eps / norm(eps)."""
        if self.anchor != self.period:
            return super().gradients(closure)
        eps = self.memory["eps"]
        with self.perturbed(eps, self.norm):
            omega = self.evaluate(closure, by=eps if self.moves else None)
        return Gradients(eps, self.norm, omega.gradient, omega.norm, omega.dot)

    def needed(self, own: dict[str, Any]) -> set[str]:
        """eps, once it was computed."""
        return set() if own["anchor"] is None else {"eps"}

    def remember(self, gradients: Gradients) -> None:
        """Keep eps."""
        self.memory["eps"], self.norm, self.anchor = gradients.eps, gradients.norm, self.period
