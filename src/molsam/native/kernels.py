"""Loops in C for what torch can only do as many calls; without a C compiler torch does it all the same.

Who has two ways asks `available(x)` or `fits(x)`, and calls their functions by `call`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from array import array
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from molsam.native import build as library

LANES = 16
"""the most numbers that a vector has in c/"""
INTEGERS = (torch.int64, torch.int16)
PLAIN = (Tensor, torch.nn.Parameter)
DTYPES = {torch.float32: False, torch.float64: True}
"""and whether they are double"""


class _Switch:
    on = True


def available(x: Tensor) -> bool:
    """Whether c/ can compute with tensors like x, and torch would not compute in 16 bits (autocast)."""
    return fits(x) and not torch.is_autocast_enabled("cpu")


def fits(x: Tensor) -> bool:
    """Whether c/ can compute with tensors like x: plain float32 or float64 ones of the CPU."""
    there = type(x) in PLAIN and x.is_cpu and x.dtype in DTYPES
    return there and _Switch.on and library.compiled(DTYPES[x.dtype]) is not None


@contextlib.contextmanager
def torch_only() -> Iterator[None]:
    """Inside, torch computes everything, so that who counts its operations sees all of them."""
    before, _Switch.on = _Switch.on, False
    try:
        yield
    finally:
        _Switch.on = before


def in_use() -> str:
    """What computes on the CPU: compiled or torch."""
    return "torch" if library.compiled(False) is None else "compiled"


def whole_vectors(width: int) -> int:
    """The width of a row that holds `width` numbers in whole vectors."""
    return -(-width // LANES) * LANES


def call(name: str, dtype: torch.dtype, *arguments: Tensor | array[Any] | int) -> None:
    """Call a function of c/ with the number of threads, and these: contiguous tensors, arrays and whole numbers.

    Raises MemoryError if it found no memory.
    """
    values = [torch.get_num_threads()]
    for argument in arguments:
        if type(argument) is int:
            values.append(argument)
        elif type(argument) is array:
            values.append(argument.buffer_info()[0])
        else:
            assert isinstance(argument, Tensor), (name, argument)
            assert argument.is_cpu and argument.is_contiguous(), name  # noqa: PT018 - it is asked hundreds of times a step
            assert argument.dtype is dtype or argument.dtype in INTEGERS, name
            values.append(argument.data_ptr())
    if _function(name, dtype, len(values))(*values):
        raise MemoryError(f"no memory for {name}")


@functools.cache
def _function(name: str, dtype: torch.dtype, count: int) -> Callable[..., int]:
    """A function of c/ that takes `count` numbers and addresses, both as wide as a machine word."""
    function: Callable[..., int] = getattr(library.compiled(DTYPES[dtype]), name)
    function.argtypes = [ctypes.c_size_t] * count  # type: ignore[attr-defined]
    return function
