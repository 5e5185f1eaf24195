"""Tensors from the CPU's memory to a device's: many small ones in one copy, constant ones once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

ALIGNMENT = 64
"""Bytes: where each tensor of a buffer begins, in multiples; every dtype can be read there, and wide loads are fast."""

_SENT = WeakTensorKeyDictionary()
"""tensor of the CPU -> (device, dtype) -> its copy there; forgotten with the tensor"""


def send(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return the tensors on a device, as views of one buffer that is sent in one copy.

    On CUDA the buffer is pinned, so the copy goes on while the CPU does something else. torch keeps the buffer until
    the copy is done.
    """
    starts, size = [], 0
    for tensor in tensors:
        starts.append(size)
        size += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    buffer = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    for tensor, start in zip(tensors, starts, strict=True):
        _part(buffer, start, tensor).copy_(tensor)
    there = buffer.to(device, non_blocking=True)
    return [_part(there, start, tensor) for tensor, start in zip(tensors, starts, strict=True)]


def send_once(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a tensor that never changes on a device; sent at the first call alone."""
    known: dict[tuple[torch.device, torch.dtype], Tensor] = _SENT.setdefault(tensor, {})
    if (device, dtype) not in known:
        known[device, dtype] = tensor.to(device=device, dtype=dtype)
    return known[device, dtype]


def _part(buffer: Tensor, start: int, like: Tensor) -> Tensor:
    """The part of a buffer that holds a tensor like this one."""
    return buffer[start : start + like.nbytes].view(like.dtype).view(like.shape)
