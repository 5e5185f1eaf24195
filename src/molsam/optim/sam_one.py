"""SAM-One: GraphSAM paper, section 4.1: eps_t = eps_0 for all t, the perturbation gradient of the first step.

A control: how much of SAM's gain does a perturbation keep that is never renewed?
"""

from __future__ import annotations

from typing import Any

from molsam.optim.base import Closure, Gradients
from molsam.optim.sam import SAM


class SAMOne(SAM):
    """SAM with the first step's eps for ever; one pass a step, and one more in the first."""

    carried = ("norm",)
    remembered = ("eps",)
    norm = 0.0
    """of eps"""

    def gradients(self, closure: Closure) -> Gradients:
        """eps of the first step; omega at theta + rho eps / norm(eps)."""
        if self.is_due():
            return super().gradients(closure)
        eps = self.memory["eps"]
        with self.perturbed(eps, self.norm):
            omega = self.evaluate(closure)
        return Gradients(eps, self.norm, omega.gradient, omega.norm)

    def is_due(self) -> bool:
        """Whether eps must be computed in this step."""
        return "eps" not in self.memory

    def needed(self, own: dict[str, Any]) -> set[str]:
        """eps, once it was computed."""
        return {"eps"} if own["norm"] > 0 else set()

    def remember(self, gradients: Gradients) -> None:
        """Keep eps."""
        assert gradients.norm is not None
        self.memory["eps"], self.norm = gradients.direction, gradients.norm
