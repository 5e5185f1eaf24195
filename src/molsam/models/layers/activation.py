"""The activation functions that the published models name in their settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from molsam.errors import ConfigError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leakyrelu": lambda: nn.LeakyReLU(0.1),
    "prelu": nn.PReLU,
    "tanh": nn.Tanh,
    "selu": nn.SELU,
    "elu": nn.ELU,
    "mish": nn.Mish,
    "gelu": nn.GELU,
}


def activation(name: str) -> nn.Module:
    """A new module of that name, upper or lower case; raises ConfigError for an unknown one.

    LeakyReLU has slope 0.1; PReLU has one weight of its own, so each call is a new parameter.
    """
    if name.lower() not in ACTIVATIONS:
        raise ConfigError(f"activation={name!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name.lower()]()


class Elementwise(NamedTuple):
    """An activation function whose slope can be told from its result, for hand-written backward passes."""

    plain: Callable[[Tensor], Tensor]
    apply_: Callable[[Tensor], Tensor]
    """in place"""
    slope: Callable[[Tensor, Tensor, Tensor], Any]
    """(gradient of the result, result, out): the gradient of the argument, written to out"""
    below: float | None = None
    """the slope below zero of a function that is linear there and the identity above"""


def elementwise(act: nn.Module) -> Elementwise | None:
    """The activation by its result, or None if the result does not tell (PReLU, Mish, GELU)."""
    aten = torch.ops.aten
    if isinstance(act, nn.ReLU):
        return Elementwise(
            act, torch.relu_, lambda g, y, out: aten.threshold_backward.grad_input(g, y, 0, grad_input=out), 0.0
        )
    if isinstance(act, nn.LeakyReLU):
        slope = act.negative_slope
        return Elementwise(
            act,
            lambda x: nn.functional.leaky_relu_(x, slope),
            lambda g, y, out: aten.leaky_relu_backward.grad_input(g, y, slope, True, grad_input=out),
            slope,
        )
    if isinstance(act, nn.Tanh):
        return Elementwise(act, torch.tanh_, lambda g, y, out: aten.tanh_backward.grad_input(g, y, grad_input=out))
    if isinstance(act, nn.SELU):
        scaled = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1
        return Elementwise(
            act, torch.selu_, lambda g, y, out: aten.elu_backward.grad_input(g, *scaled, True, y, grad_input=out)
        )
    if isinstance(act, nn.ELU):
        alpha = act.alpha
        return Elementwise(
            act,
            lambda x: nn.functional.elu_(x, alpha),
            lambda g, y, out: aten.elu_backward.grad_input(g, alpha, 1, 1, True, y, grad_input=out),
        )
    return None
