"""Schedules of rho: pure functions of (initial rho, epoch, number of epochs), applied at the start of each epoch.

`gamma` is the factor of one update, and `lam` (the paper's lambda) the number of epochs per update. GraphSAM, ICLR
2024, section 4.2, equation 4: rho_e = rho_0 gamma^(epoch / lambda). Epochs count from 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from molsam.errors import ConfigError


class RhoSchedule(Protocol):
    """Function that returns the rho of an epoch."""

    needs_epochs: bool
    """whether rho depends on the epoch at all"""

    def __call__(self, initial: float, epoch: int, epochs: int | None = None) -> float:
        """Return the rho of `epoch`, given the initial rho and, if known, the number of epochs."""


@dataclass(frozen=True)
class Constant:
    """rho_e = rho_0: the paper's "fixed rho" rows of Table 8."""

    needs_epochs = False

    def __call__(self, initial: float, epoch: int, epochs: int | None = None) -> float:
        return initial


@dataclass(frozen=True)
class _Decay:
    gamma: float = 0.5
    lam: int = 1
    needs_epochs = True

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise ConfigError(f"rho_schedule.gamma is {self.gamma!r}; it must be above 0 and at most 1.")
        if self.lam != int(self.lam) or self.lam < 1:
            raise ConfigError(f"rho_schedule.lam is {self.lam!r}; it must be a whole number of epochs, 1 or more.")


@dataclass(frozen=True)
class Staircase(_Decay):
    """rho_e = rho_0 gamma^floor(epoch / lam): Algorithm 1 (updates where epoch % lambda == 0), like StepLR.

    The paper's default (gamma 0.5, lambda 1): 0.05, 0.025, 0.0125, ...
    """

    def __call__(self, initial: float, epoch: int, epochs: int | None = None) -> float:
        return initial * self.gamma ** (epoch // self.lam)


@dataclass(frozen=True)
class Cutoff(Staircase):
    """Staircase that drops to 0 once it is below `least`; from then on steps are base steps (not in the paper)."""

    least: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least < 0:
            raise ConfigError(f"rho_schedule.least is {self.least!r}; it must be 0 or more.")

    def __call__(self, initial: float, epoch: int, epochs: int | None = None) -> float:
        rho = super().__call__(initial, epoch, epochs)
        return rho if rho >= self.least else 0.0


@dataclass(frozen=True)
class Continuous(_Decay):
    """rho_e = rho_0 gamma^(epoch / lam) with a real quotient: equation 4 as printed; Staircase if lam is 1."""

    def __call__(self, initial: float, epoch: int, epochs: int | None = None) -> float:
        return initial * self.gamma ** (epoch / self.lam)


@dataclass(frozen=True)
class Release(_Decay):
    """Schedule of the released code: each update multiplies the already reduced rho, so the exponents add up.

    rho_e = rho_0 gamma^(0 + 1 + ... + floor(epoch / lam)): 0.05, 0.025, 0.00625, 7.8e-4, ... at the defaults.
    """

    def __call__(self, initial: float, epoch: int, epochs: int | None = None) -> float:
        updates = epoch // self.lam
        return initial * self.gamma ** (updates * (updates + 1) // 2)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from rho_0 at the first epoch towards final * rho_0 after the last (not in the paper)."""

    final: float = 0.0
    """share of rho_0 that remains at the end"""
    needs_epochs = True

    def __post_init__(self) -> None:
        if not 0 <= self.final <= 1:
            raise ConfigError(f"rho_schedule.final is {self.final!r}; it must be from 0 to 1.")

    def __call__(self, initial: float, epoch: int, epochs: int | None = None) -> float:
        if not epochs:
            raise ConfigError(
                "The cosine rho schedule depends on the length of the training; give total_steps, its number of steps."
            )
        done = min(epoch / epochs, 1.0)
        return initial * (self.final + (1 - self.final) * (1 + math.cos(math.pi * done)) / 2)
