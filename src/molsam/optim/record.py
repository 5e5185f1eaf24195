"""What a step finds: its gradients, what observers see of it, what it did."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from molsam.optim.passes import Closure, Pass
from molsam.optim.vector import Vector

if TYPE_CHECKING:
    from molsam.optim.base import Optimizer

Exchange = Callable[[Vector | None, list[Tensor | None]], tuple[Vector, list[Tensor | None]] | None]
"""(omega, losses) of this process -> their means over all processes; None if one of them has no omega"""


class Gradients(NamedTuple):
    """The paper's two gradients of one step, both un-normalised."""

    eps: Vector
    """the perturbation gradient, exact or approximated; where nothing is perturbed, the gradient at theta"""
    norm: float
    """of `eps`"""
    omega: Vector
    """the updating gradient, which the base optimizer gets"""
    omega_norm: float
    dot: float | None = None
    """inner product of the two, where it was to be had for nothing"""


def unperturbed(clean: Pass) -> Gradients:
    """The gradient at theta as both eps and omega."""
    return Gradients(clean.gradient, clean.norm, clean.gradient, clean.norm)


class StepEvent(NamedTuple):
    """What an observer is called with, once a step, before the base optimizer moves. Read only."""

    optimizer: Optimizer
    closure: Closure
    step: int
    """steps made before this one"""
    epoch: int
    rho: float
    """of the first parameter group"""
    eps: Vector
    """the perturbation gradient, un-normalised"""
    norm: float
    """of `eps`"""
    omega: Vector
    omega_norm: float


class StepRecord(NamedTuple):
    """What the last step did."""

    loss_clean: Tensor | None
    """loss at theta, if a pass was made there"""
    loss_perturbed: Tensor | None
    """loss at the displaced weights, if a pass was made there"""
    passes: int
    rho: float
    skipped: bool
    """the loss or a gradient was not finite and `nonfinite` is "skip": nothing was changed"""
