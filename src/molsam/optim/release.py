"""The displacement of the released GraphSAM code (CoMPT-main/sam.py), shared by its SAM and GraphSAM classes."""

from __future__ import annotations

import torch
from torch import Tensor

from molsam.optim import vector
from molsam.optim.passes import Closure, Pass, Passes
from molsam.optim.vector import Vector


def release_norm(gradient: Vector, adaptive: bool) -> float:
    """Return the norm of g, or of |theta| g if adaptive: the release's `_grad_norm`."""
    if adaptive and gradient:
        scaled = torch._foreach_mul(list(gradient.values()), list(gradient))
        gradient = dict(zip(gradient, scaled, strict=True))
    return vector.norm(gradient)


def release_displacement(
    direction: Vector, parameters: list[Tensor], scale: float, radius: float | None, adaptive: bool, room: Vector
) -> Vector:
    """Return the displaced weights theta + scale * (theta^2 if adaptive) * direction, in the memory `room`.

    Each tensor's displacement is clipped to the norm `radius`; None: not clipped.
    """
    moving = [parameter for parameter in parameters if parameter in direction]
    if not moving:
        return {}
    ways = [direction[p] for p in moving]
    factors = [scale] * len(moving)
    if radius is not None:
        lengths = vector.adaptive_norms(moving, ways) if adaptive else vector.measure(ways).norms
        factors = [radius / length if scale * length > radius else scale for length in lengths]
    return dict(zip(moving, vector.moved(moving, ways, factors, room, adaptive), strict=True))


def weighted_pass(passes: Passes, closure: Closure, weighted: bool) -> Pass:
    """Make a pass; its gradient is loss * grad if `weighted`.

    A closure may have a method `weighted` that calls `loss.backward(loss.detach())`, as the released code does. Without
    it the gradient is multiplied by the loss.
    """
    own: Closure | None = getattr(closure, "weighted", None)
    if weighted and own is not None:
        return passes.evaluate(own)
    made = passes.evaluate(closure)
    if not weighted:
        return made
    weight = float(made.loss)
    if made.gradient:
        torch._foreach_mul_(list(made.gradient.values()), weight)
    size = abs(weight)
    return made._replace(norm=made.norm * size, squares=[size**2 * square for square in made.squares], sums=None)
