"""The displacement of the released GraphSAM code (CoMPT-main/sam.py), shared by its SAM and GraphSAM classes."""

from __future__ import annotations

import torch
from torch import Tensor

from molsam.optim import vector
from molsam.optim.passes import Closure, Pass, Passes
from molsam.optim.vector import Vector


def release_norm(gradient: Vector, adaptive: bool) -> float:
    """`_grad_norm`: norm of g, or of |theta| g if adaptive."""
    if adaptive and gradient:
        scaled = torch._foreach_mul(list(gradient.values()), list(gradient))
        gradient = dict(zip(gradient, scaled, strict=True))
    return vector.norm(gradient)


def release_displacement(
    direction: Vector, parameters: list[Tensor], scale: float, radius: float | None, adaptive: bool
) -> Vector:
    """The displaced weights theta + scale * (theta^2 if adaptive) * direction, each tensor's displacement cut to the
    norm `radius` (None: not cut)."""
    moving = [parameter for parameter in parameters if parameter in direction]
    if not moving:
        return {}
    moves = [direction[p] for p in moving]
    if adaptive:
        squares = torch._foreach_mul(moving, moving)
        torch._foreach_mul_(squares, moves)
        moves = list(squares)
    factors = [scale] * len(moving)
    if radius is not None:
        lengths = vector.norms(moves)
        factors = [radius / length if scale * length > radius else scale for length in lengths]
    return {
        p: torch.add(p, move, alpha=factor, out=move if adaptive else None)
        for p, move, factor in zip(moving, moves, factors, strict=True)
    }


def weighted_pass(passes: Passes, closure: Closure, weighted: bool) -> Pass:
    """A pass with, if `weighted`, loss * grad as its gradient. A closure may have a method `weighted`, which gives that
    by `loss.backward(loss.detach())`, as the released code has it; the gradient of others is multiplied."""
    own: Closure | None = getattr(closure, "weighted", None)
    if weighted and own is not None:
        return passes.evaluate(own)
    made = passes.evaluate(closure)
    if not weighted:
        return made
    weight = float(made.loss)
    if made.gradient:
        torch._foreach_mul_(list(made.gradient.values()), weight)
    return made._replace(norm=made.norm * abs(weight), norms=None)
