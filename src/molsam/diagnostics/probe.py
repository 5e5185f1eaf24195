"""SAM's true gradients at the point of a step, computed without a trace in the training."""

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
    """Return SAM's eps and omega at the weights from which a step started; None if one of them is not finite.

    Takes two passes. Random numbers, running statistics, gradients, weights and the counter of passes are restored, so
    that training continues bit for bit as without the probe. The passes draw their own noise (dropout masks), unless
    the optimizer has `same_noise`.
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
