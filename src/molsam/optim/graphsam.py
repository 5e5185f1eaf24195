"""GraphSAM: Wang et al., Efficient Sharpness-Aware Minimization for Molecular Graph Transformer Models,
ICLR 2024, Algorithm 1.

At the first step of an epoch (t = 0) the perturbation gradient is exact; after each step it moves
towards the updating gradient instead of being computed:

    eps_0     = grad L(theta_0)                                           equation 3, line "t = 0"
    omega_t   = grad L(theta_t + rho eps_t / norm(eps_t))
    theta_t+1 = base step from theta_t with omega_t                       Adam in the experiments
    eps_t+1   = beta eps_t + (1 - beta) omega_t / norm(omega_t)
    rho       = rho_0 gamma^floor(epoch / lambda), at the epoch's start   equation 4, molsam.optim.schedules

Where the text leaves room: eps is kept un-normalised, so that eps_0 has the norm of a gradient while what is
added has norm 1 - beta; the exact gradient is that of the current mini-batch; line 2, which samples the batch
outside the loop over t, is taken to be inside; sign(eps) |eps| / norm(eps) of line 12 is eps / norm(eps);
rho_new of line 7 is the rho that is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from molsam.optim import vector
from molsam.optim.base import BaseOptimizer, Closure, Gradients, Optimizer, check
from molsam.optim.schedules import RhoSchedule, Staircase
from molsam.optim.vector import Vector

DEFAULT_SCHEDULE = Staircase(gamma=0.5, lam=1)


class GraphSAM(Optimizer):
    """GraphSAM; 1 + 1 / (K steps_per_epoch) passes a step.

    Args:
        beta: weight of the old eps in the moving average, 0 <= beta <= 1; 0.99 in the paper.
        reanchor_epochs: K of GraphSAM-K (section 5.2.3): the exact gradient is taken at the first step of
            every K-th epoch; None takes it once, at the first step of the training.
    """

    carried = ("anchor", "norm", "scale")
    remembered = ("eps",)

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        base: BaseOptimizer,
        *,
        beta: float = 0.99,
        reanchor_epochs: int | None = 1,
        rho_schedule: RhoSchedule | None = DEFAULT_SCHEDULE,
        **settings: Any,
    ) -> None:
        check(0 <= beta <= 1, "beta", beta, "from 0 to 1")
        whole = isinstance(reanchor_epochs, int) and reanchor_epochs >= 1
        check(
            reanchor_epochs is None or whole,
            "reanchor_epochs",
            reanchor_epochs,
            "1 or more, or null for never",
        )
        self.beta = beta
        self.reanchor_epochs = reanchor_epochs
        self.needs_epochs = reanchor_epochs is not None
        super().__init__(params, base, rho_schedule=rho_schedule, **settings)
        self.anchor: int | None = None
        """number of the period of K epochs in which eps was last exact"""
        self.norm, self.scale = 0.0, 1.0
        """eps is `scale` times the vector in memory, which has this norm"""

    def gradients(self, closure: Closure) -> Gradients:
        """eps exact or averaged, omega at theta + rho eps / norm(eps)."""
        if self.anchor != self.period:
            clean = self.evaluate(closure)
            eps, norm, scale = clean.gradient, clean.norm, 1.0
        else:
            eps, norm, scale = self.memory["eps"], self.norm, self.scale
        with self.perturbed(eps, norm):
            omega = self.evaluate(closure)
        return Gradients(eps, norm, omega.gradient, omega.norm, scale)

    def needed(self, own: dict[str, Any]) -> set[str]:
        """eps, once it was anchored."""
        return set() if own["anchor"] is None else {"eps"}

    @property
    def period(self) -> int:
        """Number of the period of K epochs that this step is in."""
        return self.epoch // self.reanchor_epochs if self.reanchor_epochs else 0

    def remember(self, gradients: Gradients) -> None:
        """eps_t+1 = beta eps_t + (1 - beta) omega_t / norm(omega_t)."""
        factor = (1 - self.beta) / gradients.omega_norm if gradients.omega_norm > 0 else 0.0
        self.average(gradients, gradients.omega, factor)

    def average(self, gradients: Gradients, new: Vector, factor: float) -> None:
        """eps <- beta eps + factor new, as scale (beta scale / scale' E + factor / scale' new): one pass over memory."""
        self.anchor = self.period
        eps, scale = gradients.direction, self.beta * gradients.scale + factor
        if scale == 0:  # beta = 0 and omega = 0
            new, factor, scale = {}, 1.0, 1.0
        self.memory["eps"], self.norm, self.scale = eps, vector.average_(eps, new, factor / scale), scale
