"""SAM as released with GraphSAM (YL-wang/GraphSAM, CoMPT-main/sam.py), which may have produced the paper's SAM rows.

It differs from SAM as published in three ways. The displacement is multiplied by theta^2 (`adaptive`), and clipped
tensor by tensor to the norm `radius`. The rho schedule shrinks the radius, cumulatively, and not rho, because the code
reads rho from where the schedule never writes it. The update uses loss * grad (`loss_weighted`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from molsam.optim.base import BaseOptimizer, Closure, Gradients, Optimizer, check
from molsam.optim.graphsam import DEFAULT_SCHEDULE
from molsam.optim.graphsam_release import cumulative
from molsam.optim.release import release_displacement, release_norm, weighted_pass
from molsam.optim.schedules import RhoSchedule
from molsam.optim.vector import Vector


class SAMRelease(Optimizer):
    """The released SAM; two passes per step.

    Args:
        radius: largest norm of one tensor's displacement at the start of the training; None is rho.
        adaptive: multiply the displacement by theta^2.
        loss_weighted: update with loss * grad.
    """

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        base: BaseOptimizer,
        *,
        radius: float | None = None,
        adaptive: bool = True,
        loss_weighted: bool = True,
        rho_schedule: RhoSchedule | None = DEFAULT_SCHEDULE,
        **settings: Any,
    ) -> None:
        check(radius is None or radius > 0, "radius", radius, "positive or null")
        self.adaptive = adaptive
        self.loss_weighted = loss_weighted
        super().__init__(params, base, rho_schedule=cumulative(rho_schedule), **settings)
        self.radius = self.param_groups[0]["initial_rho"] if radius is None else radius

    def is_plain(self) -> bool:
        """Return whether rho is 0 from the start."""
        return all(group["initial_rho"] == 0 for group in self.param_groups)

    def gradients(self, closure: Closure) -> Gradients:
        """Return eps at theta, and omega at the released code's displacement."""
        clean = self.evaluate(closure)
        size = release_norm(clean.gradient, self.adaptive) + 1e-12
        displaced: Vector = {}
        for group in self.param_groups:
            initial = group["initial_rho"]
            radius = self.radius * group["rho"] / initial if initial > 0 else 0.0
            way = clean.gradient, group["params"], initial / size, radius
            displaced |= release_displacement(*way, self.adaptive, self._room)
        with self.displaced_to(list(displaced), list(displaced.values())):
            omega = weighted_pass(self, closure, self.loss_weighted)
        return Gradients(clean.gradient, clean.norm, omega.gradient, omega.norm)
