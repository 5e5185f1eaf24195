"""GraphSAM: Wang et al., Efficient Sharpness-Aware Minimization for Molecular Graph Transformer Models,
ICLR 2024, Algorithm 1.

At the first step of an epoch (t = 0) the perturbation gradient is exact. After each step it is not computed again, but
moved towards the updating gradient:

    eps_0     = grad L(theta_0)                                           equation 3, line "t = 0"
    omega_t   = grad L(theta_t + rho eps_t / norm(eps_t))
    theta_t+1 = base step from theta_t with omega_t                       Adam in the experiments
    eps_t+1   = beta eps_t + (1 - beta) omega_t / norm(omega_t)
    rho       = rho_0 gamma^floor(epoch / lambda), at the epoch's start   equation 4, molsam.optim.schedules

Where the paper's text is ambiguous, this is assumed:

- eps is kept un-normalised: eps_0 has the norm of a gradient, and each addition has norm 1 - beta.
- The exact gradient is that of the current mini-batch.
- Line 2, which samples the batch outside the loop over t, belongs inside the loop.
- sign(eps) |eps| / norm(eps) of line 12 is eps / norm(eps).
- rho_new of line 7 is the rho that is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from molsam.optim.anchored import Anchored
from molsam.optim.base import BaseOptimizer, Gradients, check
from molsam.optim.schedules import RhoSchedule, Staircase

DEFAULT_SCHEDULE = Staircase(gamma=0.5, lam=1)


class GraphSAM(Anchored):
    """GraphSAM; 1 + 1 / (K steps_per_epoch) passes per step.

    Args:
        beta: weight of the old eps in the moving average, 0 <= beta <= 1; 0.99 in the paper.
        reanchor_epochs: K of GraphSAM-K (section 5.2.3): the exact gradient is computed at the first step of every K-th
            epoch. None computes it only once, at the first step of the training.
    """

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

    moves = True

    @property
    def period(self) -> int:
        """Number of the period of K epochs that this step is in."""
        return self.epoch // self.reanchor_epochs if self.reanchor_epochs else 0

    def remember(self, gradients: Gradients) -> None:
        """Set eps_t+1 = beta eps_t + (1 - beta) omega_t / norm(omega_t)."""
        norm = gradients.omega_norm
        self.norm = self.move(gradients, self.beta, (1 - self.beta) / norm if norm > 0 else 0.0)
        self.memory["eps"], self.anchor = gradients.eps, self.period
