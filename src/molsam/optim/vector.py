"""Vectors over the parameters of a model, and the few operations the optimizers need on them.

A vector maps each parameter to a tensor of its shape; a parameter that is absent (frozen, or without
gradient in this pass) counts as zero. Nothing is flattened or copied: the operations run over the list of
tensors at once (`torch._foreach_*`). A norm or a product becomes one Python float, which costs one
synchronisation however many parameters there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch._utils import _flatten_dense_tensors

Vector = dict[Tensor, Tensor]
"""parameter -> tensor of its shape, dtype and device"""

HALF = (torch.bfloat16, torch.float16)
SMALL = 1 << 17
"""numbers of which a norm costs its calls, so that few calls are best"""


def total(parts: Sequence[Tensor]) -> Tensor:
    """The parts (0-d tensors, perhaps of several devices and precisions) as one 1-d tensor."""
    if not parts:
        return torch.zeros(0)
    if len({(part.device, part.dtype) for part in parts}) > 1:
        dtype = max((part.dtype for part in parts), key=lambda dtype: torch.finfo(dtype).bits)
        parts = [part.to(parts[0].device, dtype) for part in parts]
    return torch.stack(list(parts))


def norms(tensors: Iterable[Tensor]) -> Tensor:
    """Euclidean norm of each tensor, in its own precision (16-bit ones in float32: 16 bits would ruin it)."""
    tensors = list(tensors)
    kinds = {(tensor.dtype, tensor.device.type) for tensor in tensors}
    if any(dtype in HALF for dtype, _ in kinds):
        return total([torch.linalg.vector_norm(t, dtype=torch.float32 if t.dtype in HALF else None) for t in tensors])
    if not tensors:
        return total([])
    if {device for _, device in kinds} == {"cpu"} and sum(map(Tensor.numel, tensors)) > SMALL:
        # There a product is up to twice as fast, and nearer to the truth for large tensors in float32.
        flat = [tensor.flatten() for tensor in tensors]
        return total([torch.dot(one, one) for one in flat]).sqrt()
    return total(torch._foreach_norm(tensors))


def norm(vector: Vector) -> float:
    """Euclidean norm over all parameters; no epsilon is added."""
    return measure(vector)[0]


def measure(vector: Vector) -> tuple[float, Tensor | None]:
    """Euclidean norm over all parameters, and of each tensor; None for the latter where it would cost more."""
    tensors = list(vector.values())
    if tensors and all(tensor.is_cpu for tensor in tensors) and sum(map(Tensor.numel, tensors)) <= SMALL:
        flat = _flatten_dense_tensors(tensors)  # in the highest of their precisions
        flat = flat.float() if flat.dtype in HALF else flat
        return math.sqrt(float(torch.dot(flat, flat))), None
    each = norms(tensors)
    return float(torch.linalg.vector_norm(each)), each


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
    if shared:
        torch._foreach_lerp_([mean[p] for p in shared], [new[p] for p in shared], weight)
    rest = [tensor for parameter, tensor in mean.items() if parameter not in new]
    if rest:
        torch._foreach_mul_(rest, 1 - weight)
    mean.update({p: tensor * weight for p, tensor in new.items() if p not in mean})
    return norm(mean)
