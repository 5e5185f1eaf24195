"""The machine's limit: the rate of its matrix products, measured within the same minute as everything else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode


def matrix_peak(dtype: torch.dtype = torch.float32, seconds: float = 0.3, size: int = 1024) -> float:
    """Return the best rate of a square matrix product within `seconds`, in GFLOP/s."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    out = torch.empty(size, size, dtype=dtype)
    torch.mm(a, b, out=out)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


def count_flops(action: Callable[[], object]) -> int:
    """Return the number of floating-point operations of torch's matrix products in an action, with backward passes.

    Products in C are not counted; run with MOLSAM_KERNELS=torch to count all.
    """
    unknown = dict.fromkeys((torch.ops.aten.addmm_, torch.ops.aten.baddbmm_), _flops)  # unknown to torch's counter
    with FlopCounterMode(display=False, custom_mapping=unknown) as counter:
        action()
    return int(counter.get_total_flops())


def _flops(total: torch.Size, left: torch.Size, right: torch.Size, **_: object) -> int:
    return 2 * math.prod(left) * right[-1]


def median(values: list[float]) -> float:
    """Return the median; for an even number of values the lower middle one."""
    return sorted(values)[(len(values) - 1) // 2]


def spread(values: list[float]) -> float:
    """Return (largest - smallest) / median."""
    return (max(values) - min(values)) / median(values)
