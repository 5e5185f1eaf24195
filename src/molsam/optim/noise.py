"""State of torch's global random generators, from which a model draws during a pass."""

from __future__ import annotations

import torch
from torch import Tensor


def noise_state(devices: list[torch.device]) -> list[Tensor]:
    """Return the states of the CPU's generator and of the generators of the given devices."""
    return [torch.get_rng_state(), *(torch.get_device_module(d).get_rng_state(d) for d in devices)]


def set_noise_state(states: list[Tensor], devices: list[torch.device]) -> None:
    """Restore the states that `noise_state` returned for the same devices."""
    torch.set_rng_state(states[0])
    for state, device in zip(states[1:], devices, strict=True):
        torch.get_device_module(device).set_rng_state(state, device)
