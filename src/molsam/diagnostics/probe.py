"""What SAM would have done at the same point: the true gradients, without leaving a trace."""

from __future__ import annotations

from typing import NamedTuple

from molsam.optim.base import StepEvent
from molsam.optim.passes import NonFinite
from molsam.optim.vector import Vector


class Truth(NamedTuple):
    """SAM's two gradients at theta_t on the step's own batch."""

    eps: Vector
    """grad L(theta)"""
    omega: Vector
    """grad L(theta + rho eps / norm(eps))"""


def probe(event: StepEvent) -> Truth | None:
    """SAM's eps and omega at the weights a step started from; None if one of them is not finite.

    Costs two passes. Random numbers, running statistics, gradients, the weights and the counter of passes are as before,
    so that training goes on bit for bit as without it. The passes draw their own noise (dropout masks), unless the
    optimizer has `same_noise`.
    """
    optimizer, closure = event.optimizer, event.closure
    try:
        with optimizer.aside():
            clean = optimizer.evaluate(closure)
            with optimizer.perturbed(clean.gradient, clean.norm):
                omega = optimizer.evaluate(closure)
    except NonFinite:
        return None
    return Truth(clean.gradient, omega.gradient)
