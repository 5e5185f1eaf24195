"""A second vector that Adam's step in C updates in the same pass over memory (c/optim/vectors.c)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from molsam.native.kernels import Arrays
from molsam.optim import vector
from molsam.optim.vector import Vector

CANCELLED = 0.1
"""Smallest ratio of a squared norm to the sum of its terms' sizes at which rounding leaves it accurate."""


class Companion(NamedTuple):
    """A vector that the step adds to the gradient, or moves towards the gradient."""

    other: Vector
    push: float = 0.0
    """the step uses gradient + push * other"""
    a: float = 1.0
    b: float = 0.0
    """afterwards other = a * other + b * gradient"""
    factors: Sequence[float] = ()
    """one for each group: then out = weights + factor * other, for the next step; empty: `other` does not change"""
    out: Vector = {}
    """receives the displaced weights; missing tensors are created in it"""

    def apply(self, gradient: Vector) -> None:
        """Do the same before the step, in plain torch; `out` is not computed."""
        if self.factors:
            vector.combine_(self.other, self.a, gradient, self.b)
        else:
            shared = [parameter for parameter in gradient if parameter in self.other]
            torch._foreach_add_([gradient[p] for p in shared], [self.other[p] for p in shared], alpha=self.push)

    def places(self, parameters: list[Tensor], like: Arrays) -> tuple[Arrays, Arrays | None] | None:
        """Return the addresses of `other` and `out` for these parameters; None if C cannot compute with them."""
        if len(vector.shared(self.other, parameters)) < len(parameters):
            return None
        other, out = Arrays.of(vector.values(self.other, parameters)), None
        if other is None or not other.is_like(like):
            return None
        if self.factors:
            for parameter in parameters if len(vector.shared(self.out, parameters)) < len(parameters) else ():
                self.out.setdefault(parameter, torch.empty_like(parameter))
            out = Arrays.of(vector.values(self.out, parameters))
            if out is None or not out.is_like(like):
                return None
        return other, out


def norm_of(a: float, x_norm: float, b: float, y_norm: float, dot: float | None) -> float | None:
    """Return norm(a x + b y) from the norms and the inner product of x and y.

    None if the inner product is not known, or the terms cancel, so that rounding would spoil the result.
    """
    if dot is None:
        return None
    terms = (a * x_norm) ** 2, (b * y_norm) ** 2, 2 * a * b * dot
    square = sum(terms)
    return math.sqrt(square) if square > CANCELLED * sum(map(abs, terms)) and math.isfinite(square) else None
