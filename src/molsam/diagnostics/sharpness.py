"""Sharpness of a minimum: top Hessian eigenvalues, trace, and the rise of the loss in a ball.

Foret et al., ICLR 2021, measure sharpness by the top eigenvalue and by max L(theta + e) - L(theta) over
norm(e) <= rho; the trace estimate is Hutchinson's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from molsam.diagnostics.surface import Flat, Surface


class Rise(NamedTuple):
    """The rise of the loss in a ball around theta."""

    first_order: float
    """L(theta + rho g / norm(g)) - L(theta): SAM's estimate of the maximum"""
    maximum: float
    """the largest rise found by the search; at least first_order and at least 0"""


def top_eigenvalues(surface: Surface, count: int = 1, seed: int = 0, tolerance: float = 1e-4) -> Flat:
    """Return the largest eigenvalues of the Hessian at theta, in decreasing order.

    Computed by Lanczos iteration (scipy's eigsh).

    Args:
        count: number of eigenvalues; less than that of parameters.
        seed: seed of the starting vector.
        tolerance: relative accuracy.
    """

    def product(vector: Flat) -> Flat:
        return surface.hessian_product(surface.theta, vector.ravel())

    operator = LinearOperator((surface.size, surface.size), matvec=product, dtype=np.float64)
    start = np.random.default_rng(seed).normal(size=surface.size)
    values = eigsh(operator, k=count, which="LA", v0=start, tol=tolerance, return_eigenvectors=False)
    return np.sort(values)[::-1]


def trace(surface: Surface, samples: int = 10, seed: int = 0) -> tuple[float, float]:
    """Return Hutchinson's estimate of the Hessian's trace at theta (mean of z' H z, z = +-1) and its standard error."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(samples):
        z = rng.integers(0, 2, surface.size) * 2.0 - 1.0
        found.append(float(z @ surface.hessian_product(surface.theta, z)))
    error = float(np.std(found, ddof=1) / np.sqrt(samples)) if samples > 1 else float("nan")
    return float(np.mean(found)), error


def ball_sharpness(surface: Surface, rho: float, steps: int = 10, seed: int = 0) -> Rise:
    """Return an estimate of max L(theta + e) - L(theta) over norm(e) <= rho.

    The search repeats e <- rho g / norm(g), with g the gradient at theta + e. For a convex loss no step descends. It
    starts from SAM's e, and from a random e, because at a minimum SAM's has no direction.
    """
    start = surface.value(surface.theta)
    gradient = surface.gradient(surface.theta)
    random = np.random.default_rng(seed).normal(size=surface.size)
    first_order, maximum = 0.0, 0.0
    for direction, exact in ((gradient, True), (random, False)):
        for step in range(steps):
            length = float(np.linalg.norm(direction))
            if length == 0:
                break
            point = surface.theta + rho * direction / length
            rise = surface.value(point) - start
            first_order = rise if exact and step == 0 else first_order
            maximum = max(maximum, rise)
            direction = surface.gradient(point)
    return Rise(first_order, maximum)
