"""F-SAM: Li, Zhou, He, Cheng and Huang, Friendly Sharpness-Aware Minimization, CVPR 2024.

    d_t   = g_t - sigma m_t-1                       the batch's own part of the gradient (d_0 = g_0)
    omega = grad L(theta + rho d_t / norm(d_t))
    m_t   = lam m_t-1 + (1 - lam) g_t               an estimate of the full gradient (m_0 = g_0)

This variant is included because it is GraphSAM's opposite. F-SAM finds that the full-gradient component of the
perturbation harms generalisation, and removes it; GraphSAM's moving average keeps little else. Comparing the two shows
which holds for molecular graphs.

As in the authors' code, m is updated after d. In the paper's text it is updated before, which for sigma = 1 gives the
same direction. sigma = 1 and lam = 0.9 are the code's defaults.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from molsam.optim import vector
from molsam.optim.base import BaseOptimizer, Closure, Gradients, check
from molsam.optim.passes import Pass
from molsam.optim.sam import SAM
from molsam.optim.vector import Vector


class FriendlySAM(SAM):
    """SAM whose perturbation leaves out the full-gradient component; two passes per step.

    Args:
        sigma: share of the full-gradient estimate that is removed.
        lam: weight of the old estimate in its moving average, 0 <= lam <= 1.
    """

    remembered = ("m",)

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        base: BaseOptimizer,
        *,
        sigma: float = 1.0,
        lam: float = 0.9,
        **settings: Any,
    ) -> None:
        check(0 <= lam <= 1, "lam", lam, "from 0 to 1")
        self.sigma = sigma
        self.lam = lam
        super().__init__(params, base, **settings)
        self._gradient: Vector = {}

    def gradients(self, closure: Closure) -> Gradients:
        """Return d as eps, and omega at theta + rho d / norm(d)."""
        clean = self.evaluate(closure)
        self._gradient = clean.gradient
        if "m" in self.memory:
            d = vector.combine(clean.gradient, self.memory["m"], -self.sigma)
            clean = Pass(clean.loss, d, *vector.measure(d.values()))
        return self.ascend(closure, clean)

    def remember(self, gradients: Gradients) -> None:
        """Set m_t = lam m_t-1 + (1 - lam) g_t."""
        if "m" in self.memory:
            vector.combine_(self.memory["m"], self.lam, self._gradient, 1 - self.lam)
        else:
            self.memory["m"] = self._gradient
        self._gradient = {}
