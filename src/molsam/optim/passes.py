"""Passes: calls of the closure, at the weights theta or displaced from them, and what surrounds them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from molsam.native.kernels import Arrays
from molsam.optim import vector
from molsam.optim.noise import noise_state, set_noise_state
from molsam.optim.vector import GRADIENT, Vector

Closure = Callable[[], Tensor]
TINY = torch.finfo(torch.float32).tiny


class Pass(NamedTuple):
    """One call of the closure."""

    loss: Tensor
    """on the CPU"""
    gradient: Vector
    norm: float
    """of the gradient, over all parameters"""
    squares: Sequence[float]
    """of the gradient's tensors, summed"""
    sums: Sequence[float] | None
    """of the gradient's tensors, if they are known"""
    places: Arrays | None
    """of the gradient's tensors in memory, if C computed (`vector.Measure`)"""
    dot: float | None
    """of the gradient with another vector, if that was asked for and C computed"""


class Ahead(NamedTuple):
    """Displaced weights that a step has left behind for the next one, on its own way over memory (along.py)."""

    direction: Vector
    factors: list[float]
    """rho / norm of each group"""
    weights: list[tuple[int, int]]
    """version and address of each parameter then: it has changed since if they have"""

    @staticmethod
    def of(direction: Vector, factors: list[float], parameters: list[Tensor]) -> Ahead:
        """As of now."""
        return Ahead(direction, factors, Ahead.state(parameters))

    @staticmethod
    def state(parameters: list[Tensor]) -> list[tuple[int, int]]:
        """Version and address of each."""
        return [(parameter._version, parameter.data_ptr()) for parameter in parameters]


class NonFinite(Exception):  # noqa: N818 - `Optimizer.step` turns it into a skipped step or a NumericalError
    """A pass gave a loss or a gradient that is not finite."""


class Passes:
    """What the passes of a step need: the parameters, the noise, running statistics, the counter."""

    param_groups: list[dict[str, Any]]

    def __init__(self, module: nn.Module | None, same_noise: bool) -> None:
        self.same_noise = same_noise
        self.passes = 0
        """passes made since the start of the training: the one counter of them"""
        modules = module.modules() if module is not None else ()
        self._keepers = [one for one in modules if any(buffer is not None for buffer in one._buffers.values())]
        """modules with running statistics"""
        self._noise: list[Tensor] = []
        self._room: Vector = {}
        """memory of the displaced weights, used again in every step"""
        self._ahead: Ahead | None = None
        self._known: tuple[Vector, int, list[list[Tensor]]] = {}, 0, []
        self._begin()

    def _begin(self) -> None:
        """Forget the previous step."""
        self._displaced = False
        self._made: list[Pass] = []
        self._loss_clean: Tensor | None = None
        self._loss_perturbed: Tensor | None = None

    def evaluate(self, closure: Closure, by: Vector | None = None) -> Pass:
        """One pass at the present weights. The caller owns its gradient tensors: the next pass makes new ones.

        With `by`, the gradient's inner product with that vector is taken where it costs no pass over memory of its own.
        """
        self._clear()
        with self._repetition() if self._made else nullcontext():
            if not self._made and self.same_noise:
                self._noise = noise_state(self._devices())
            loss = call(closure)
        gradient = self._gradients()
        others = list(by.values()) if by and list(by) == list(gradient) else ()
        loss, measured = vector.measure_with(loss, gradient.values(), others)
        made = Pass(loss, gradient, *measured)
        self._made.append(made)
        self.passes += 1
        if self._displaced:
            self._loss_perturbed = loss
        else:
            self._loss_clean = loss
        if not math.isfinite(float(loss)):
            raise NonFinite("the loss")
        if not math.isfinite(made.norm):
            raise NonFinite("the gradient")
        return made

    def perturbed(self, direction: Vector, norm: float) -> AbstractContextManager[None]:
        """Weights at theta + rho * direction / norm while inside, and exactly theta again after it.

        rho is that of each parameter's group. A norm of zero (or below the normal numbers of float32, by
        which nothing can be divided) displaces nothing.
        """
        parameters: list[Tensor] = []
        copies: list[Tensor] = []
        # Inside another displacement the memory of the copies is in use.
        room = {} if self._displaced else self._room
        factors = self.factors(norm)
        there = self._are_ahead(direction, factors)
        for group, factor in zip(self._groups_of(direction), factors, strict=True):
            moving = group if factor > 0 else []
            parameters += moving
            if there:
                copies += vector.values(room, moving)
            else:
                copies += vector.moved(moving, vector.values(direction, moving), [factor] * len(moving), room)
        return self.displaced_to(parameters, copies)

    def factors(self, norm: float) -> list[float]:
        """rho / norm of each group; 0 where nothing is displaced."""
        return [group["rho"] / norm if norm > TINY and group["rho"] > 0 else 0.0 for group in self.param_groups]

    def _groups_of(self, direction: Vector) -> list[list[Tensor]]:
        """The parameters of each group that it has; asked once for a vector that is carried from step to step."""
        known, count, groups = self._known
        if known is not direction or count != len(direction) or len(groups) != len(self.param_groups):
            groups = [vector.shared(direction, group["params"]) for group in self.param_groups]
            self._known = direction, len(direction), groups
        return groups

    def _are_ahead(self, direction: Vector, factors: list[float]) -> bool:
        """Whether the last step has left these displaced weights, and nothing has changed since. They serve once."""
        ahead = self._ahead
        if self._displaced or ahead is None:
            return False
        self._ahead = None
        alike = ahead.direction is direction and ahead.factors == factors
        return alike and ahead.weights == Ahead.state(self.parameters())

    @contextmanager
    def displaced_to(self, parameters: list[Tensor], copies: list[Tensor]) -> Iterator[None]:
        """These parameters at these copies while inside; then at theta.

        The memory of theta is never written: inside, the parameters point to the copies. That moves half the
        bytes of saving, adding and restoring, and whatever happens inside, theta comes back bit for bit.
        """
        originals = [parameter.data for parameter in parameters]
        within, self._displaced = self._displaced, True
        try:
            for parameter, displaced in zip(parameters, copies, strict=True):
                parameter.data = displaced
            yield
        finally:
            self._displaced = within
            for parameter, original in zip(parameters, originals, strict=True):
                parameter.data = original

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Passes inside leave no trace: counters, losses, random numbers and running statistics stay."""
        kept = self.passes, list(self._made), self._loss_clean, self._loss_perturbed
        noise = noise_state(self._devices())
        try:
            yield
        finally:
            self.passes, self._made, self._loss_clean, self._loss_perturbed = kept
            set_noise_state(noise, self._devices())

    @contextmanager
    def frozen_statistics(self) -> Iterator[None]:
        """What modules in training do to their buffers inside is undone: BatchNorm normalises by the batch, but its running
        statistics stay."""
        kept = [
            (module._buffers, name, buffer, buffer.detach().clone())
            for module in self._keepers
            if module.training
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        try:
            yield
        finally:
            for buffers, name, buffer, before in kept:
                buffer.detach().copy_(before)
                buffers[name] = buffer

    @contextmanager
    def _repetition(self) -> Iterator[None]:
        """Conditions of every pass of a step after the first."""
        if self.same_noise:
            set_noise_state(self._noise, self._devices())
        with self.frozen_statistics():
            yield

    def parameters(self) -> list[Tensor]:
        """All parameters, group by group."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _devices(self) -> list[torch.device]:
        return sorted({p.device for p in self.parameters() if p.device.type != "cpu"}, key=str)

    def _clear(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    def _gradients(self) -> Vector:
        """What a pass left in `.grad`."""
        parameters = self.parameters()
        return {p: grad for p, grad in zip(parameters, map(GRADIENT, parameters), strict=True) if grad is not None}


def call(closure: Closure) -> Tensor:
    """The detached scalar loss of one call of the closure.

    Raises:
        TypeError: it returned none.
    """
    with torch.set_grad_enabled(True):
        loss = closure()
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise TypeError(f"The closure must return the loss, a tensor of one element; it returned {loss!r}.")
    return loss.detach()
