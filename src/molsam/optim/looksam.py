"""LookSAM: Liu, Mai, Chen, Hsieh and You, Towards Efficient and Scalable Sharpness-Aware Minimization, CVPR 2022.

    t % k == 0:  g     = grad L(theta),  g_s = grad L(theta + rho g / norm(g))
                 g_v   = g_s - (g_s . g / norm(g)^2) g         the part of g_s orthogonal to g, kept
                 omega = g_s
    otherwise:   omega = g + alpha (norm(g) / norm(g_v)) g_v   one pass

The paper projects the whole gradient. Public code (rollovd/LookSAM, and the class in the GraphSAM release) projects
each tensor separately. `per_tensor` does the latter, with the 1e-8 that such code adds to norm(g_v). The defaults are
those of the GraphSAM paper's comparison (section A.4). LookSAM's authors published no code; two ports, rollovd/LookSAM
(k 10) and Leminhbinh0209/LookSAM (k 5), both use alpha 0.7 and rho 0.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from molsam.optim import vector
from molsam.optim.base import BaseOptimizer, Closure, Gradients, Pass, check
from molsam.optim.companion import Companion, norm_of
from molsam.optim.sam import SAM
from molsam.optim.vector import Vector


class LookSAM(SAM):
    """A SAM step every k steps, whose sharpness component g_v is reused in between; 1 + 1/k passes per step.

    Args:
        rho: radius of the displacement; 1e-4 in the GraphSAM paper.
        k: number of steps from one SAM step to the next; 8 in the GraphSAM paper, 5 or 10 in ports.
        alpha: weight of g_v relative to g; 0.2 in the GraphSAM paper, 0.7 in ports.
        per_tensor: compute products and norms for each parameter tensor separately.
    """

    carried = ("anchor", "norm")
    remembered = ("g_v",)

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        base: BaseOptimizer,
        *,
        rho: float = 1e-4,
        k: int = 8,
        alpha: float = 0.2,
        per_tensor: bool = False,
        **settings: Any,
    ) -> None:
        check(isinstance(k, int) and k >= 1, "k", k, "a whole number of steps, 1 or more")
        check(alpha >= 0, "alpha", alpha, "0 or more")
        self.k = k
        self.alpha = alpha
        self.per_tensor = per_tensor
        super().__init__(params, base, rho=rho, **settings)
        self.anchor: int | None = None
        """number of the period of k steps in which g_v was last computed"""
        self.norm = 0.0
        """norm of g_v"""
        self._fresh: Vector | None = None

    def gradients(self, closure: Closure) -> Gradients:
        """Return g as eps; and as omega g_s, or g with the share of g_v added."""
        due, g_v = self.anchor != self.steps // self.k, self.memory.get("g_v")
        clean = self.evaluate(closure, by=None if due or self.per_tensor else g_v)
        g, self._fresh = clean.gradient, None
        if due or g_v is None:
            ascended = self.ascend(closure, clean)
            self._fresh = orthogonal(ascended.omega, g, self.per_tensor)
            return ascended
        if self.per_tensor:
            shared = [p for p in g if p in g_v]
            lengths = zip(*(vector.measure(vec[p] for p in shared).norms for vec in (g, g_v)), strict=True)
            pushes = torch._foreach_mul([g_v[p] for p in shared], [one / (other + 1e-8) for one, other in lengths])
            omega = vector.combine(g, dict(zip(shared, pushes, strict=True)), self.alpha)
            return Gradients(g, clean.norm, omega, vector.norm(omega))
        return self.pushed(clean, g_v, self.alpha * clean.norm / self.norm if self.norm > 0 else 0.0)

    def pushed(self, clean: Pass, g_v: Vector, factor: float) -> Gradients:
        """Return omega = g + factor g_v.

        Adam in C adds the two in its own pass over the weights. omega itself is then computed only for observers.
        """
        g = clean.gradient
        norm = norm_of(1.0, clean.norm, factor, self.norm, clean.dot)
        base = None if norm is None else self.base_for_companion(norm)
        if norm is not None and base is not None:
            base.companion = Companion(g_v, push=factor)
            return Gradients(g, clean.norm, vector.combine(g, g_v, factor) if self.observers else g, norm)
        omega = vector.combine(g, g_v, factor)
        return Gradients(g, clean.norm, omega, vector.norm(omega))

    def remember(self, gradients: Gradients) -> None:
        """Store g_v after a SAM step."""
        if self._fresh is not None:
            self.memory["g_v"], self.norm = self._fresh, vector.norm(self._fresh)
            self._fresh, self.anchor = None, self.steps // self.k

    def needed(self, own: dict[str, Any]) -> set[str]:
        """Return g_v, once it was computed."""
        return set() if own["anchor"] is None else {"g_v"}


def orthogonal(left: Vector, right: Vector, per_tensor: bool = False) -> Vector:
    """Return left - (left . right / norm(right)^2) right, for the whole vectors or for each tensor separately."""
    if not per_tensor:
        square = vector.dot(right, right)
        return vector.combine(left, right, -vector.dot(left, right) / square) if square > 0 else left
    parts = [orthogonal({p: tensor}, {p: right[p]} if p in right else {}) for p, tensor in left.items()]
    return {p: tensor for part in parts for p, tensor in part.items()}
