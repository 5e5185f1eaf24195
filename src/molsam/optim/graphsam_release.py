"""GraphSAM as released (YL-wang/GraphSAM, CoMPT-main/sam.py), which is not the paper's Algorithm 1.

Each deviation is a switch. All but cpu_aliasing are on by default; with all off this is `GraphSAM`:

    cumulative_rho        each update of rho multiplies the already reduced one, so the exponents add up
    adaptive              the displacement is multiplied by theta^2, and its norm is that of |theta| g
    clip_per_tensor       the displacement of each tensor is clipped to the norm `radius`, which shrinks with rho
    zeroed_norm           after an epoch's first step the norm is that of cleared gradients, 0 + 1e-12; with
                          clip_per_tensor every tensor is then displaced by exactly `radius`, whatever rho is
    normalize_per_tensor  the moving average uses omega / norm(omega + 1e-8) for each tensor separately
    first_group_only      only the first parameter group is displaced (GROVER's second one has its output layers)
    cpu_aliasing          on a CPU the stored omega is the gradient buffer itself, which is cleared before it is
                          averaged, so that eps keeps the anchor's direction for the whole epoch. On a GPU, which the
                          authors used, omega is copied. Switch this on to reproduce the code as it runs on a CPU
    loss_weighted         the update uses loss * grad, from `loss.backward(loss.detach())` in the training loops.
                          GROVER's loop weights the unreduced losses, which belongs to its loss, not to this class

The constants that the code adds to norms (1e-12, 1e-8) belong to the same switches. Two differences remain. Here eps
stays on its device, and a parameter without gradient at the anchor joins when it first has one. The released code moves
eps to the CPU and back, and leaves such parameters out for the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from molsam.errors import ConfigError
from molsam.optim import vector
from molsam.optim.base import BaseOptimizer, Closure, Gradients, check
from molsam.optim.graphsam import DEFAULT_SCHEDULE, GraphSAM
from molsam.optim.passes import TINY, Pass
from molsam.optim.release import release_displacement, release_norm, weighted_pass
from molsam.optim.schedules import Constant, Release, RhoSchedule
from molsam.optim.vector import Vector


class GraphSAMRelease(GraphSAM):
    """The released GraphSAM; 1 + 1 / steps_per_epoch passes per step.

    Args:
        radius: largest norm of one tensor's displacement at the start of the training; None is rho, as the release
            advises.

    The module's docstring describes the switches. The other settings are GraphSAM's (the release calls beta alpha).
    """

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        base: BaseOptimizer,
        *,
        radius: float | None = None,
        cumulative_rho: bool = True,
        adaptive: bool = True,
        clip_per_tensor: bool = True,
        zeroed_norm: bool = True,
        normalize_per_tensor: bool = True,
        first_group_only: bool = True,
        cpu_aliasing: bool = False,
        loss_weighted: bool = True,
        rho_schedule: RhoSchedule | None = DEFAULT_SCHEDULE,
        **settings: Any,
    ) -> None:
        check(radius is None or radius > 0, "radius", radius, "positive or null")
        self.adaptive = adaptive
        self.clip_per_tensor = clip_per_tensor
        self.zeroed_norm = zeroed_norm
        self.normalize_per_tensor = normalize_per_tensor
        self.first_group_only = first_group_only
        self.cpu_aliasing = cpu_aliasing
        self.loss_weighted = loss_weighted
        schedule = cumulative(rho_schedule, ", or optimizer.cumulative_rho=false") if cumulative_rho else rho_schedule
        super().__init__(params, base, rho_schedule=schedule, **settings)
        self.radius = self.param_groups[0]["initial_rho"] if radius is None else radius
        self._lengths: dict[Tensor, float] = {}
        """norms of the tensors of the step's omega"""

    def is_plain(self) -> bool:
        """Return whether rho is 0 from the start. If rho has shrunk to 0, the loss weighting remains."""
        return all(group["initial_rho"] == 0 for group in self.param_groups)

    def gradients(self, closure: Closure) -> Gradients:
        """Return eps, exact or averaged, and omega at the released code's displacement."""
        if self.anchor != self.period:
            clean = self.evaluate(closure)
            eps, norm = clean.gradient, clean.norm
            size = release_norm(eps, self.adaptive)
        else:
            eps, norm = self.memory["eps"], self.norm
            size = 0.0 if self.zeroed_norm else release_norm(eps, self.adaptive)
        displaced: Vector = {}
        for group in self.param_groups[: 1 if self.first_group_only else None]:
            scale = group["rho"] / (size + 1e-12) if self.zeroed_norm or size > 0 else 0.0
            shrunk = group["rho"] / group["initial_rho"] if group["initial_rho"] > 0 else 0.0
            radius = self.radius * shrunk if self.clip_per_tensor else None
            displaced |= release_displacement(eps, group["params"], scale, radius, self.adaptive, self._room)
        with self.displaced_to(list(displaced), list(displaced.values())):
            omega = weighted_pass(self, closure, self.loss_weighted)
        self._lengths = lengths(omega) if self.normalize_per_tensor else {}
        return Gradients(eps, norm, omega.gradient, omega.norm)

    def remember(self, gradients: Gradients) -> None:
        """Move eps towards omega, normalised globally or tensor by tensor."""
        if self.cpu_aliasing:
            gradients = gradients._replace(omega={}, omega_norm=0.0)
        if not self.normalize_per_tensor:
            super().remember(gradients)
            return
        shares = {parameter: (1 - self.beta) / length for parameter, length in self._lengths.items()}
        self.norm = vector.combine_(gradients.eps, self.beta, gradients.omega, shares)
        self.memory["eps"], self.anchor = gradients.eps, self.period


def lengths(made: Pass) -> dict[Tensor, float]:
    """Return norm(g + 1e-8) of each tensor of a pass's gradient. The square is expanded, to avoid a shifted copy."""
    tensors = list(made.gradient.values())
    sums = vector.sums(tensors) if made.sums is None else made.sums
    known = zip(made.squares, sums, map(Tensor.numel, tensors), strict=True)
    norms = [math.sqrt(max(square + 2e-8 * sum_ + 1e-16 * count, TINY)) for square, sum_, count in known]
    return dict(zip(made.gradient, norms, strict=True))


def cumulative(schedule: RhoSchedule | None, remedy: str = "") -> RhoSchedule | None:
    """Return the schedule as the released code applies it.

    Raises:
        ConfigError: the schedule has no cumulative form.
    """
    if schedule is None or isinstance(schedule, Constant | Release):
        return schedule
    gamma, lam = getattr(schedule, "gamma", None), getattr(schedule, "lam", None)
    if gamma is None or lam is None:
        raise ConfigError(
            f"The released code multiplies rho by a factor every few epochs, and the rho schedule "
            f"{type(schedule).__name__} has none; use rho_schedule=staircase, continuous or constant{remedy}."
        )
    return Release(gamma, lam)
