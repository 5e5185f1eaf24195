"""Functions that depend on the kind of device: random numbers, determinism, memory."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor


def random_state(device: str) -> Tensor | None:
    """Return the state of a device's random generator, uint8 [.]; None for the CPU, which uses torch's default one."""
    if torch.device(device).type == "cpu":
        return None
    state: Tensor = torch.get_device_module(device).get_rng_state(torch.device(device))
    return state


def set_random_state(device: str, state: Tensor) -> None:
    """Restore the `random_state` of a device of the same kind."""
    torch.get_device_module(device).set_rng_state(state, torch.device(device))


def be_deterministic(wanted: bool) -> None:
    """Switch torch's deterministic algorithms on or off. They give the same bits each time, but are slower on a GPU.

    An operation without a deterministic form then raises a RuntimeError when it is called.
    """
    if wanted:
        # cuBLAS reads this when it is initialised.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if wanted != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(wanted)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def forget_memory(device: str) -> None:
    """Count the most memory on a device anew."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def device_memory_mb(device: str) -> float | None:
    """Return the peak memory of tensors on a device in MB; None if torch does not track it."""
    module: Any = torch.cuda if torch.device(device).type == "cuda" else None
    return None if module is None else module.max_memory_allocated(device) / 1024**2
