"""What a step of Adam in C takes along on its way over the weights, so that memory is read once (c/optim/vectors.c)."""

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
"""A sum of squares that is so much smaller than its terms is not computed from them."""


class Along(NamedTuple):
    """Another vector, which the step adds to the gradient, or moves towards the gradient."""

    other: Vector
    push: float = 0.0
    """The step is made with gradient + push other."""
    a: float = 1.0
    b: float = 0.0
    """Then other = a other + b gradient."""
    factors: Sequence[float] = ()
    """Of each group: then out = weights + factor other, for the next step. Empty: `other` only pushes."""
    out: Vector = {}
    """where to; new tensors are put into it"""

    def plainly(self, gradient: Vector) -> None:
        """Do so before the step, in plain torch; without `out`."""
        if self.factors:
            vector.combine_(self.other, self.a, gradient, self.b)
        else:
            shared = [parameter for parameter in gradient if parameter in self.other]
            torch._foreach_add_([gradient[p] for p in shared], [self.other[p] for p in shared], alpha=self.push)

    def places(self, parameters: list[Tensor], like: Arrays) -> tuple[Arrays, Arrays | None] | None:
        """Where `other` and `out` of these parameters are in memory; None if C cannot compute with them."""
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
    """norm(a x + b y) from what is known of x and y; None if too little is, or they cancel."""
    if dot is None:
        return None
    terms = (a * x_norm) ** 2, (b * y_norm) ** 2, 2 * a * b * dot
    square = sum(terms)
    return math.sqrt(square) if square > CANCELLED * sum(map(abs, terms)) and math.isfinite(square) else None
