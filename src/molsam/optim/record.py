"""Records of a step: its gradients, the event that observers receive, and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from molsam.optim.passes import Closure, Pass
from molsam.optim.vector import Vector

if TYPE_CHECKING:
    from molsam.optim.base import Optimizer

Exchange = Callable[[Vector | None, list[Tensor | None]], tuple[Vector, list[Tensor | None]] | None]
"""Function from (omega, losses) of this process to their means over all processes; None if one has no omega."""


class Gradients(NamedTuple):
    """The two gradients of a step as the GraphSAM paper names them, both un-normalised."""

    eps: Vector
    """the perturbation gradient, exact or approximate; without a perturbation, the gradient at theta"""
    norm: float
    """norm of `eps`"""
    omega: Vector
    """the updating gradient, with which the base optimizer steps"""
    omega_norm: float
    dot: float | None = None
    """inner product of the two, if it was computed without extra cost"""


def unperturbed(clean: Pass) -> Gradients:
    """Return the gradient at theta as both eps and omega."""
    return Gradients(clean.gradient, clean.norm, clean.gradient, clean.norm)


class StepEvent(NamedTuple):
    """What observers receive once per step, before the base optimizer's update. Read only."""

    optimizer: Optimizer
    closure: Closure
    step: int
    """number of steps before this one"""
    epoch: int
    rho: float
    """rho of the first parameter group"""
    eps: Vector
    """the perturbation gradient, un-normalised"""
    norm: float
    """norm of `eps`"""
    omega: Vector
    omega_norm: float


class StepRecord(NamedTuple):
    """Outcome of the last step."""

    loss_clean: Tensor | None
    """loss at theta, if a pass was made there"""
    loss_perturbed: Tensor | None
    """loss at the displaced weights, if a pass was made there"""
    passes: int
    rho: float
    skipped: bool
    """whether the step was skipped, because a loss or gradient was not finite; nothing was changed"""
