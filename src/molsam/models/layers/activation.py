"""The activation functions that a model's settings can name, as in the published models."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

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
    """Return a new module of that name, in upper or lower case; raises ConfigError for an unknown name.

    LeakyReLU has slope 0.1. PReLU has one weight, so each call makes a new parameter.
    """
    if name.lower() not in ACTIVATIONS:
        raise ConfigError(f"activation={name!r} is unknown; choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name.lower()]()


class Leaky(NamedTuple):
    """An activation that is the identity above zero and linear below it: the form that the C kernels take."""

    plain: Callable[[Tensor], Tensor]
    below: float
    """slope below zero"""


def leaky(act: nn.Module) -> Leaky | None:
    """Return the activation as a `Leaky`; None if it does not have that form."""
    if isinstance(act, nn.ReLU):
        return Leaky(act, 0.0)
    return Leaky(act, act.negative_slope) if isinstance(act, nn.LeakyReLU) else None
