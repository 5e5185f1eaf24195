"""Transfer of tensors from the CPU to a device: many small tensors in one copy, constant ones only once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

ALIGNMENT = 64
"""Alignment in bytes of each tensor in a buffer: sufficient for every dtype, and fast for wide loads."""

_SENT = WeakTensorKeyDictionary()
"""Tensor on the CPU -> (device, dtype) -> its copy; dropped together with the tensor."""


def send(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Return the tensors on a device, as views of one buffer that is transferred in one copy.

    For CUDA the buffer is pinned, so the copy runs asynchronously. torch keeps the buffer until the copy is done.
    """
    return parts(joined(tensors, pinned=device.type == "cuda").to(device, non_blocking=True), tensors)


def joined(tensors: Sequence[Tensor], *, pinned: bool = False) -> Tensor:
    """Return copies of tensors on the CPU in one buffer, uint8 [bytes], which a GPU can read itself if it is pinned."""
    starts = _starts(tensors)
    buffer = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=pinned)
    for tensor, start in zip(tensors, starts, strict=False):
        _part(buffer, start, tensor).copy_(tensor)
    return buffer


def parts(buffer: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return views of a buffer that `joined` made of tensors with the dtypes and shapes of `like`."""
    return [_part(buffer, start, tensor) for tensor, start in zip(like, _starts(like), strict=False)]


def _starts(tensors: Sequence[Tensor]) -> list[int]:
    """Return where each tensor begins in a buffer, and the buffer's size."""
    return [0, *accumulate(-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors)]


def send_once(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a constant tensor on a device; only the first call transfers it."""
    known: dict[tuple[torch.device, torch.dtype], Tensor] = _SENT.setdefault(tensor, {})
    if (device, dtype) not in known:
        known[device, dtype] = tensor.to(device=device, dtype=dtype)
    return known[device, dtype]


def _part(buffer: Tensor, start: int, like: Tensor) -> Tensor:
    """Return a view of a buffer from `start` on, with the dtype and shape of `like`."""
    return buffer[start : start + like.nbytes].view(like.dtype).view(like.shape)
