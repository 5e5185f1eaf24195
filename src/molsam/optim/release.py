"""The displacement of the released GraphSAM code (CoMPT-main/sam.py), shared by its SAM and GraphSAM classes."""

from __future__ import annotations

import torch
from torch import Tensor

from molsam.optim.vector import Vector, norms


def release_norm(gradient: Vector, adaptive: bool) -> float:
    """`_grad_norm`: norm of g, or of |theta| g if adaptive."""
    if adaptive and gradient:
        gradient = {p: p.abs() * tensor for p, tensor in gradient.items()}
    return float(torch.linalg.vector_norm(norms(gradient.values()))) if gradient else 0.0


def release_displacement(
    direction: Vector, parameters: list[Tensor], scale: float, radius: float | None, adaptive: bool
) -> Vector:
    """scale * (theta^2 if adaptive) * direction, each tensor cut to the norm `radius` (None: not cut)."""
    result = {}
    for parameter in parameters:
        if parameter not in direction:
            continue
        move = (parameter.square() if adaptive else 1.0) * direction[parameter] * scale
        size = float(torch.linalg.vector_norm(move))
        result[parameter] = radius * move / size if radius is not None and size > radius else move
    return result
