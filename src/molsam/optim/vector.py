"""Vectors over the parameters of a model, and the few operations the optimizers need on them.

A vector maps each parameter to a tensor of its shape; a parameter that is absent (frozen, or without
gradient in this pass) counts as zero. Nothing is flattened or copied: the operations run over the list of
tensors at once, in C (c/vectors.c) or by `torch._foreach_*`. A norm or a product becomes one Python float, which
costs one synchronisation however many parameters there are.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from operator import attrgetter

import torch
from torch import Tensor

from molsam import kernels

Vector = dict[Tensor, Tensor]
"""parameter -> tensor of its shape, dtype and device"""

KIND = attrgetter("dtype", "is_cpu")
HALF = (torch.bfloat16, torch.float16)


def total(parts: Sequence[Tensor]) -> Tensor:
    """The parts (0-d tensors, perhaps of several devices and precisions) as one 1-d tensor."""
    if not parts:
        return torch.zeros(0)
    if len({(part.device, part.dtype) for part in parts}) > 1:
        dtype = max((part.dtype for part in parts), key=lambda dtype: torch.finfo(dtype).bits)
        parts = [part.to(parts[0].device, dtype) for part in parts]
    return torch.stack(list(parts))


def norms(tensors: Iterable[Tensor]) -> list[float]:
    """Euclidean norm of each tensor, in its own precision or a higher one (16 bits would ruin it)."""
    tensors = list(tensors)
    if sizes := _sizes(tensors):
        return list(map(math.sqrt, _squares(sizes, tensors)))
    if any(tensor.dtype in HALF for tensor in tensors):
        each = [torch.linalg.vector_norm(t, dtype=torch.float32 if t.dtype in HALF else None) for t in tensors]
        return total(each).tolist()
    return total(torch._foreach_norm(tensors)).tolist() if tensors else []


def norm(vector: Vector) -> float:
    """Euclidean norm over all parameters; no epsilon is added."""
    return measure(vector)[0]


def measure(vector: Vector) -> tuple[float, list[float]]:
    """Euclidean norm over all parameters, and of each tensor."""
    each = norms(vector.values())
    return math.hypot(*each), each


def dot(left: Vector, right: Vector) -> float:
    """Inner product over all parameters."""
    pairs = [(tensor, right[parameter]) for parameter, tensor in left.items() if parameter in right]
    if not pairs:
        return 0.0
    pairs = [(a.float(), b.float()) if a.dtype in HALF else (a, b) for a, b in pairs]
    return float(total([torch.dot(a.flatten(), b.flatten()) for a, b in pairs]).sum())


def combine(left: Vector, right: Vector, factor: float) -> Vector:
    """left + factor * right, as new tensors; a parameter needs to be in only one of them."""
    shared = [parameter for parameter in left if parameter in right]
    sums = torch._foreach_add([left[p] for p in shared], [right[p] for p in shared], alpha=factor) if shared else []
    result = {**left, **dict(zip(shared, sums, strict=True))}
    result.update({p: tensor * factor for p, tensor in right.items() if p not in left})
    return result


def average_(mean: Vector, new: Vector, weight: float) -> float:
    """(1 - weight) * mean + weight * new, in place where `mean` has the parameter; returns its norm."""
    shared = [parameter for parameter in mean if parameter in new]
    moving, targets = [mean[p] for p in shared], [new[p] for p in shared]
    if len(shared) == len(mean) == len(new) and (sizes := _sizes(moving, targets)):
        return math.sqrt(sum(_squares(sizes, moving, targets, weight)))
    if shared:
        torch._foreach_lerp_(moving, targets, weight)
    rest = [tensor for parameter, tensor in mean.items() if parameter not in new]
    if rest:
        torch._foreach_mul_(rest, 1 - weight)
    mean.update({p: tensor * weight for p, tensor in new.items() if p not in mean})
    return norm(mean)


def moved(tensors: list[Tensor], direction: list[Tensor], factor: float, room: Vector) -> Sequence[Tensor]:
    """tensors + factor * direction, as new ones, or written over what this function has put into `room`."""
    if not tensors:
        return ()
    if kernels.available(tensors[0]):
        out = [room[x] if x in room else room.setdefault(x, torch.empty_like(x)) for x in tensors]
        if sizes := _sizes(tensors, direction, out):
            addresses = map(_addresses, (tensors, direction, out))
            kernels.call("moved", tensors[0].dtype, len(tensors), sizes, *addresses, array("d", [factor]))
            return out
        room.clear()  # perhaps it is of other shapes or precision
    return torch._foreach_add(tensors, direction, alpha=factor)


def _squares(
    sizes: array[int], x: Sequence[Tensor], to: Sequence[Tensor] | None = None, weight: float = 0.0
) -> array[float]:
    """Sum of the squares of each tensor, after it moved towards that in `to`: (1 - weight) x + weight to."""
    sums = array("d", bytes(8 * len(x)))
    towards = 0 if to is None else _addresses(to)
    kernels.call("squares", x[0].dtype, len(x), sizes, _addresses(x), towards, array("d", [weight]), sums)
    return sums


def _sizes(*lists: Sequence[Tensor]) -> array[int] | None:
    """How many numbers the tensors have, if C computes with these lists: contiguous ones of the CPU, alike in size and
    precision."""
    if not lists[0] or not kernels.available(lists[0][0]):
        return None
    alike = len({kind for tensors in lists for kind in map(KIND, tensors)}) == 1
    sizes, *others = (array("q", list(map(Tensor.numel, tensors))) for tensors in lists)
    if alike and all(all(map(Tensor.is_contiguous, tensors)) for tensors in lists) and all(s == sizes for s in others):
        return sizes
    return None


def _addresses(tensors: Sequence[Tensor]) -> array[int]:
    return array("q", list(map(Tensor.data_ptr, tensors)))
