"""The displacement of the released GraphSAM code (CoMPT-main/sam.py), shared by its SAM and GraphSAM classes."""

from __future__ import annotations

import torch
from torch import Tensor

from molsam.optim import vector
from molsam.optim.passes import Pass
from molsam.optim.vector import Vector


def release_norm(gradient: Vector, adaptive: bool) -> float:
    """`_grad_norm`: norm of g, or of |theta| g if adaptive."""
    if adaptive and gradient:
        scaled = torch._foreach_mul(list(gradient.values()), list(gradient))
        gradient = dict(zip(gradient, scaled, strict=True))
    return vector.norm(gradient)


def release_moves(
    direction: Vector, parameters: list[Tensor], scale: float, radius: float | None, adaptive: bool
) -> tuple[Vector, dict[Tensor, float]]:
    """Vector and factors of a displacement: scale * (theta^2 if adaptive) * direction, each tensor cut to the norm
    `radius` (None: not cut)."""
    moving = [parameter for parameter in parameters if parameter in direction]
    moves: Vector = {}
    sizes: list[Tensor] = []
    for piece in vector.pieces(moving):
        tensors = [direction[p] for p in piece]
        if adaptive:
            squares = torch._foreach_mul(piece, piece)
            torch._foreach_mul_(squares, tensors)
            tensors = list(squares)
        moves.update(zip(piece, tensors, strict=True))
        if radius is not None:
            sizes.append(vector.norms(tensors))
    if radius is None or not moving:
        return moves, dict.fromkeys(moving, scale)
    lengths = torch.cat([part.to(sizes[0]) for part in sizes]).tolist()
    factors = [radius / length if scale * length > radius else scale for length in lengths]
    return moves, dict(zip(moving, factors, strict=True))


def loss_weighted(perturbed: Pass) -> Pass:
    """The pass with loss * grad as its gradient, in place."""
    weight = float(perturbed.loss)
    if perturbed.gradient:
        torch._foreach_mul_(list(perturbed.gradient.values()), weight)
    return perturbed._replace(norm=perturbed.norm * abs(weight))
