"""Passes: calls of the closure at the weights theta or at displaced weights."""

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
    """Result of one call of the closure."""

    loss: Tensor
    """on the CPU"""
    gradient: Vector
    norm: float
    """norm of the gradient, over all parameters"""
    squares: Sequence[float]
    """sum of squares of each tensor of the gradient"""
    sums: Sequence[float] | None
    """sum of each tensor of the gradient, if known"""
    places: Arrays | None
    """addresses of the gradient's tensors, if C can compute with them (`vector.Measure`)"""
    dot: float | None
    """inner product of the gradient with another vector, if one was given and C computed it"""


class Precomputed(NamedTuple):
    """Displaced weights that the last step's update computed for this step (companion.py)."""

    direction: Vector
    factors: list[float]
    """rho / norm of each group"""
    weights: list[tuple[int, int]]
    """version and address of each parameter, which show whether it has changed since"""

    @staticmethod
    def of(direction: Vector, factors: list[float], parameters: list[Tensor]) -> Precomputed:
        """Return a record for the parameters as they are now."""
        return Precomputed(direction, factors, Precomputed.state(parameters))

    @staticmethod
    def state(parameters: list[Tensor]) -> list[tuple[int, int]]:
        """Return version and address of each parameter."""
        return [(parameter._version, parameter.data_ptr()) for parameter in parameters]


class NonFinite(Exception):  # noqa: N818 - `Optimizer.step` turns it into a skipped step or a NumericalError
    """The loss or the gradient of a pass is not finite."""


class Passes:
    """State that the passes of a step share: parameters, random numbers, running statistics and counters."""

    param_groups: list[dict[str, Any]]
    in_place = False
    """whether displaced weights are written into the parameters' own memory, which a captured CUDA graph reads"""

    def __init__(self, module: nn.Module | None, same_noise: bool) -> None:
        self.same_noise = same_noise
        self.passes = 0
        """number of passes since the start of the training"""
        modules = module.modules() if module is not None else ()
        self._keepers = [one for one in modules if any(buffer is not None for buffer in one._buffers.values())]
        """modules with running statistics"""
        self._noise: list[Tensor] = []
        self._room: Vector = {}
        """memory of the displaced weights, reused in every step"""
        self._precomputed: Precomputed | None = None
        self._known: tuple[Vector, int, list[list[Tensor]]] = {}, 0, []
        self._begin()

    def _begin(self) -> None:
        """Reset the records of the previous step."""
        self._displaced = False
        self._made: list[Pass] = []
        self._loss_clean: Tensor | None = None
        self._loss_perturbed: Tensor | None = None

    def evaluate(self, closure: Closure, by: Vector | None = None) -> Pass:
        """Make one pass at the current weights. The caller owns its gradient tensors: the next pass creates new ones.

        With `by`, the pass includes the gradient's inner product with that vector, if it takes no extra pass over
        memory.
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
        """Return a context in which the weights are theta + rho * direction / norm; afterwards they are theta again.

        Each group has its own rho. A norm of zero, or below the normal numbers of float32, displaces nothing.
        """
        parameters: list[Tensor] = []
        copies: list[Tensor] = []
        # Within another displacement the memory of the copies is in use.
        room = {} if self._displaced else self._room
        factors = self.factors(norm)
        there = self._is_precomputed(direction, factors)
        for group, factor in zip(self._groups_of(direction), factors, strict=True):
            moving = group if factor > 0 else []
            parameters += moving
            if there:
                copies += vector.values(room, moving)
            else:
                copies += vector.moved(moving, vector.values(direction, moving), [factor] * len(moving), room)
        return self.displaced_to(parameters, copies)

    def factors(self, norm: float) -> list[float]:
        """Return rho / norm of each group; 0 for groups that are not displaced."""
        return [group["rho"] / norm if norm > TINY and group["rho"] > 0 else 0.0 for group in self.param_groups]

    def _groups_of(self, direction: Vector) -> list[list[Tensor]]:
        """Return the parameters of each group that the vector has. The last answer is reused for the same vector."""
        known, count, groups = self._known
        if known is not direction or count != len(direction) or len(groups) != len(self.param_groups):
            groups = [vector.shared(direction, group["params"]) for group in self.param_groups]
            self._known = direction, len(direction), groups
        return groups

    def _is_precomputed(self, direction: Vector, factors: list[float]) -> bool:
        """Return whether the last step computed these displaced weights, and nothing has changed since.

        They can be used only once.
        """
        known = self._precomputed
        if self._displaced or known is None:
            return False
        self._precomputed = None
        alike = known.direction is direction and known.factors == factors
        return alike and known.weights == Precomputed.state(self.parameters())

    @contextmanager
    def displaced_to(self, parameters: list[Tensor], copies: list[Tensor]) -> Iterator[None]:
        """Within the context the parameters have the values of `copies`; afterwards they are theta again.

        The memory of theta is never written: within the context the parameters point to the copies. This moves half as
        many bytes as saving, adding and restoring, and theta is restored bit for bit even after an error. If
        `in_place`, theta is saved, overwritten and written back.
        """
        originals = [parameter.data for parameter in parameters]
        theta = torch._foreach_mul(originals, 1.0) if self.in_place and originals else ()
        within, self._displaced = self._displaced, True
        try:
            if self.in_place:
                _write(originals, copies)
            else:
                for parameter, displaced in zip(parameters, copies, strict=True):
                    parameter.data = displaced
            yield
        finally:
            self._displaced = within
            if self.in_place:
                _write(originals, theta)
            else:
                for parameter, original in zip(parameters, originals, strict=True):
                    parameter.data = original

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Passes within the context leave no trace in counters, losses and random numbers."""
        kept = self.passes, list(self._made), self._loss_clean, self._loss_perturbed
        noise = noise_state(self._devices())
        try:
            yield
        finally:
            self.passes, self._made, self._loss_clean, self._loss_perturbed = kept
            set_noise_state(noise, self._devices())

    @contextmanager
    def frozen_statistics(self) -> Iterator[None]:
        """Afterwards undo all changes of modules in training mode to their buffers.

        BatchNorm then normalises by the batch, but its running statistics do not change.
        """
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
        """Context of all passes of a step except the first."""
        if self.same_noise:
            set_noise_state(self._noise, self._devices())
        with self.frozen_statistics():
            yield

    def parameters(self) -> list[Tensor]:
        """Return all parameters, group by group."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _devices(self) -> list[torch.device]:
        return sorted({p.device for p in self.parameters() if p.device.type != "cpu"}, key=str)

    def _clear(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    def _gradients(self) -> Vector:
        """Return the parameters' `.grad`."""
        parameters = self.parameters()
        return {p: grad for p, grad in zip(parameters, map(GRADIENT, parameters), strict=True) if grad is not None}


def _write(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy values into tensors of the same shapes."""
    if tensors:
        torch._foreach_copy_(list(tensors), list(values))


def call(closure: Closure) -> Tensor:
    """Call the closure and return its detached scalar loss.

    Raises:
        TypeError: it returned no loss.
    """
    with torch.set_grad_enabled(True):
        loss = closure()
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise TypeError(f"The closure must return the loss, a tensor of one element; it returned {loss!r}.")
    return loss.detach()
