"""Vectors over the parameters of a model, and the operations on them that the optimizers need.

A vector maps each parameter to a tensor of its shape. A parameter that is absent (frozen, or without gradient in this
pass) counts as zero. Nothing is flattened or copied: an operation runs over the whole list of tensors, in C
(c/optim/vectors.c) or by `torch._foreach_*`. A norm or an inner product is returned as a Python float, which takes one
synchronisation with the device, whatever the number of parameters.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter, is_
from typing import NamedTuple

import torch
from torch import Tensor

from molsam.errors import ConfigError
from molsam.native import kernels
from molsam.native.kernels import Arrays

Vector = dict[Tensor, Tensor]
"""parameter -> tensor of its shape, dtype and device"""

DTYPE, IS_CPU, GRADIENT = attrgetter("dtype"), attrgetter("is_cpu"), attrgetter("grad")
HALF = (torch.bfloat16, torch.float16)


def values(vector: Vector, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Return the tensors of these parameters, all of which the vector has; without look-ups if they are all it has."""
    if len(vector) == len(parameters) and all(map(is_, vector, parameters)):
        return list(vector.values())
    return [vector[parameter] for parameter in parameters]


def shared(vector: Vector, parameters: list[Tensor]) -> list[Tensor]:
    """Return the parameters that the vector has."""
    if len(vector) == len(parameters) and all(map(is_, vector, parameters)):
        return parameters
    return [parameter for parameter in parameters if parameter in vector]


def total(parts: Sequence[Tensor]) -> Tensor:
    """Return 0-d tensors, possibly of several devices and dtypes, as one 1-d tensor."""
    if not parts:
        return torch.zeros(0)
    if len({(part.device, part.dtype) for part in parts}) > 1:
        dtype = max((part.dtype for part in parts), key=lambda dtype: torch.finfo(dtype).bits)
        parts = [part.to(parts[0].device, dtype) for part in parts]
    return torch.stack(list(parts))


class Measure(NamedTuple):
    """Norms and sums of a list of tensors, from one pass over memory."""

    norm: float
    """norm of all of them together"""
    squares: Sequence[float]
    """sum of squares of each tensor"""
    sums: Sequence[float] | None
    """sum of each tensor; None if that would take another pass"""
    places: Arrays | None
    """addresses of the tensors, if C computed the norms"""
    dot: float | None
    """their inner product with other tensors, if some were given and C computed it"""

    @property
    def norms(self) -> list[float]:
        """Norm of each tensor."""
        return list(map(math.sqrt, self.squares))


def measure(tensors: Iterable[Tensor], by: Sequence[Tensor] = ()) -> Measure:
    """Return Euclidean norms, computed in the tensors' precision, or in float32 for 16 bits; no epsilon is added.

    C also computes the inner product with `by`, a list of tensors of the same sizes, in the same pass over memory.

    Raises:
        ConfigError: a tensor is sparse.
    """
    tensors = list(tensors)
    if places := Arrays.of(tensors):
        others = in_memory(tensors, by) if by else None
        found, count = _squares(tensors[0].dtype, places, y=others[1] if others else None), len(tensors)
        squares, sums = found[:count], found[count : 2 * count]
        return Measure(math.sqrt(sum(squares)), squares, sums, places, sum(found[2 * count :]) if others else None)
    return _measured(total(_norms(tensors)).tolist() if tensors else [])


def measure_with(loss: Tensor, tensors: Iterable[Tensor], by: Sequence[Tensor] = ()) -> tuple[Tensor, Measure]:
    """Return the scalar loss on the CPU, and the result of `measure`, with one synchronisation with the device."""
    if loss.is_cpu:
        return loss, measure(tensors, by)
    value, *each = total([loss.view(()), *_norms(list(tensors))]).tolist()
    return torch.tensor(value, dtype=loss.dtype, device="cpu"), _measured(each)


def _measured(norms: list[float]) -> Measure:
    return Measure(math.hypot(*norms), [norm * norm for norm in norms], None, None, None)


def _norms(tensors: list[Tensor]) -> Sequence[Tensor]:
    """Return the norm of each tensor, float []."""
    if sparse := [tuple(tensor.shape) for tensor in tensors if tensor.is_sparse]:
        raise ConfigError(
            f"A parameter of shape {sparse[0]} has a sparse gradient, which molsam's optimizers do not support; build "
            "its layer with sparse=False."
        )
    if any(tensor.dtype in HALF for tensor in tensors):
        return [torch.linalg.vector_norm(t, dtype=torch.float32 if t.dtype in HALF else None) for t in tensors]
    return torch._foreach_norm(tensors) if tensors else ()


def norm(vector: Vector) -> float:
    """Return the Euclidean norm over all parameters."""
    return measure(vector.values()).norm


def sums(tensors: list[Tensor]) -> list[float]:
    """Return the sum of each tensor."""
    each: list[float] = total([t.sum(dtype=torch.float32 if t.dtype in HALF else None) for t in tensors]).tolist()
    return each


def adaptive_norms(tensors: list[Tensor], direction: list[Tensor]) -> list[float]:
    """Return the norm of tensor^2 * direction for each tensor."""
    if places := in_memory(tensors, direction):
        found = _squares(tensors[0].dtype, places[1], by=places[0])
        return list(map(math.sqrt, found[: len(tensors)]))
    return measure(_adaptive(tensors, direction)).norms


def dot(left: Vector, right: Vector) -> float:
    """Return the inner product over all parameters."""
    pairs = [(tensor, right[parameter]) for parameter, tensor in left.items() if parameter in right]
    if not pairs:
        return 0.0
    pairs = [(a.float(), b.float()) if a.dtype in HALF else (a, b) for a, b in pairs]
    return float(total([torch.dot(a.flatten(), b.flatten()) for a, b in pairs]).sum())


def combine(left: Vector, right: Vector, factor: float) -> Vector:
    """Return left + factor * right, as new tensors; a parameter may be in only one of them."""
    shared = [parameter for parameter in left if parameter in right]
    sums = torch._foreach_add([left[p] for p in shared], [right[p] for p in shared], alpha=factor) if shared else []
    result = {**left, **dict(zip(shared, sums, strict=True))}
    result.update({p: tensor * factor for p, tensor in right.items() if p not in left})
    return result


def combine_(x: Vector, a: float, y: Vector, b: float | Mapping[Tensor, float]) -> float:
    """Set x = a x + b y in place, and return its norm. b may differ by parameter, and `x` gains y's parameters."""
    factor = b.__getitem__ if isinstance(b, Mapping) else lambda parameter: b
    shared = [parameter for parameter in x if parameter in y]
    if x:
        torch._foreach_mul_(list(x.values()), a)
    if shared:
        pushes = torch._foreach_mul([y[p] for p in shared], [float(factor(p)) for p in shared])
        torch._foreach_add_([x[p] for p in shared], pushes)
    x.update({p: tensor * factor(p) for p, tensor in y.items() if p not in x})
    return norm(x)


def moved(
    tensors: list[Tensor], direction: list[Tensor], factors: Sequence[float], room: Vector, adaptive: bool = False
) -> Sequence[Tensor]:
    """Return tensors + factor * (tensors^2 if adaptive) * direction, with one factor for each tensor.

    The result is new, or overwrites the tensors that an earlier call has put into `room`.
    """
    if not tensors:
        return ()
    if kernels.fits(tensors[0]):
        out = [room[x] if x in room else room.setdefault(x, torch.empty_like(x)) for x in tensors]
        if _move(tensors, direction, factors, out, adaptive):
            return out
        room.clear()  # its tensors may be of other shapes or dtypes
    if not adaptive and len(set(factors)) == 1:
        return torch._foreach_add(tensors, direction, alpha=factors[0])
    ways = torch._foreach_mul(_adaptive(tensors, direction) if adaptive else direction, list(factors))
    torch._foreach_add_(ways, tensors)
    return ways


def _move(
    tensors: list[Tensor], direction: list[Tensor], factors: Sequence[float], out: list[Tensor], adaptive: bool = False
) -> bool:
    """Compute `moved` in C, and return whether C could."""
    places = in_memory(tensors, direction, out)
    if places is not None:
        given = places[0].sizes, *places, array("d", factors)
        kernels.call("moved", tensors[0].dtype, len(tensors), int(adaptive), *given)
    return places is not None


def _adaptive(tensors: list[Tensor], direction: list[Tensor]) -> list[Tensor]:
    """Return tensors^2 * direction."""
    squares = torch._foreach_mul(tensors, tensors)
    torch._foreach_mul_(squares, direction)
    return list(squares)


def _squares(dtype: torch.dtype, x: Arrays, by: Arrays | None = None, y: Arrays | None = None) -> array[float]:
    """Return each array's sum of squares of x (or of by^2 x), then each one's sum of x, then each one's x . y."""
    sums = array("d", bytes(24 * len(x.sizes)))
    kernels.call("squares", dtype, len(x.sizes), x.sizes, x, by, y, sums)
    return sums


def in_memory(*lists: Sequence[Tensor]) -> list[Arrays] | None:
    """Return the addresses of the tensors of each list; None if C cannot compute with them.

    They must be contiguous, on the CPU, and of equal sizes and dtype in all lists.
    """
    found = list[Arrays]()
    for tensors in lists:
        places = Arrays.of(tensors)
        if places is None or (found and not places.is_like(found[0])):
            return None
        found.append(places)
    return found
