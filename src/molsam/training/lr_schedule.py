"""Learning-rate schedules: pure functions of the step, as factors of the base optimizer's learning rate."""

from __future__ import annotations

import math


class Constant:
    """Constant factor 1."""

    def __call__(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Factor of step (0-based) of a run of epochs x steps_per_epoch steps."""
        return 1.0


class Noam:
    """Linear warm-up from `initial` to 1, then exponential decay to `final`.

    chemprop and GROVER use it (1e-4 -> 1e-3 -> 1e-4, 2 warm-up epochs).
    """

    def __init__(self, warmup_epochs: float = 2, initial: float = 0.1, final: float = 0.1) -> None:
        _check_non_negative(warmup_epochs=warmup_epochs)
        _check_positive(initial=initial, final=final)
        self.warmup_epochs, self.initial, self.final = warmup_epochs, initial, final

    def __call__(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Factor of step (0-based) of a run of epochs x steps_per_epoch steps."""
        warmup = self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return self.initial + (1 - self.initial) * step / warmup
        rest = max(epochs * steps_per_epoch - warmup, 1)
        return self.final ** min((step - warmup) / rest, 1.0)


class InverseSqrt:
    """Linear warm-up from 0 to 1, then the inverse square root: min(t / w, sqrt(w / t)) for step t = 1, 2, ...

    The Transformer's schedule (Vaswani et al., NeurIPS 2017, equation 3) relative to its peak. The released code of
    CoMPT uses it for Adam only, with 30 warm-up epochs (w is their number of steps), so that a training of 30 epochs
    consists of warm-up only.
    """

    def __init__(self, warmup_epochs: float = 30) -> None:
        _check_positive(warmup_epochs=warmup_epochs)
        self.warmup_epochs = warmup_epochs

    def __call__(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Factor of step (0-based) of a run of epochs x steps_per_epoch steps."""
        share = (step + 1) / (self.warmup_epochs * steps_per_epoch)
        return min(share, share**-0.5)


class Cosine:
    """Linear warm-up from 0, then half a cosine from 1 to `final`."""

    def __init__(self, warmup_epochs: float = 0, final: float = 0.0) -> None:
        _check_non_negative(warmup_epochs=warmup_epochs, final=final)
        self.warmup_epochs, self.final = warmup_epochs, final

    def __call__(self, step: int, steps_per_epoch: int, epochs: int) -> float:
        """Factor of step (0-based) of a run of epochs x steps_per_epoch steps."""
        warmup = self.warmup_epochs * steps_per_epoch
        if step < warmup:
            return (step + 1) / warmup
        rest = max(epochs * steps_per_epoch - warmup, 1)
        progress = min((step - warmup) / rest, 1.0)
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2


def _check_non_negative(**values: float) -> None:
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} is {value}; it must be 0 or more")


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if value <= 0:
            raise ValueError(f"{name} is {value}; it must be positive")
