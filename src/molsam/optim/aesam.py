"""AE-SAM: Jiang, Yang, Zhang and Kwok, An Adaptive Policy to Employ Sharpness-Aware Minimization, ICLR 2023.

A SAM step is made only if the squared norm of the stochastic gradient is large compared with its running distribution:

    x_t      = norm(g_t)^2
    mu_t     = delta mu_t-1 + (1 - delta) x_t
    sigma2_t = delta sigma2_t-1 + (1 - delta) (x_t - mu_t)^2
    c_t      = (t / T) lambda_1 + (1 - t / T) lambda_2
    SAM if x_t >= mu_t + c_t sigma_t, else a base step with g_t

mu and sigma2 start from x_0 and 0, so the first step is a SAM step. With lambda_1 < lambda_2 the threshold falls during
training, and SAM steps become more frequent.

Sources: the formulas agree with the paper's abstract and introduction and with the documentation of another
implementation (junaidaliop/zij). delta = 0.9 is from a reader's notes on the paper. lambda_1 = -1, lambda_2 = 1 and the
start values could not be confirmed, because the authors' code was not found.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn

from molsam.errors import ConfigError
from molsam.optim.base import BaseOptimizer, Closure, Gradients, check, unperturbed
from molsam.optim.sam import SAM


class AESAM(SAM):
    """SAM steps where the gradient is unusually large, base steps elsewhere; 1 + (share of SAM steps) passes per step.

    Args:
        delta: weight of the old value in the running mean and variance, 0 <= delta < 1.
        lambda_1: threshold at the end of the training, in standard deviations above the mean.
        lambda_2: threshold at its start.
    """

    carried = ("mu", "variance")

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        base: BaseOptimizer,
        *,
        delta: float = 0.9,
        lambda_1: float = -1.0,
        lambda_2: float = 1.0,
        **settings: Any,
    ) -> None:
        check(0 <= delta < 1, "delta", delta, "from 0 to below 1")
        if settings.get("total_steps") is None:
            raise ConfigError(
                "AESAM's threshold depends on the length of the training; give total_steps, its number of steps."
            )
        self.delta = delta
        self.lambda_1 = lambda_1
        self.lambda_2 = lambda_2
        super().__init__(params, base, **settings)
        self.mu: float | None = None
        self.variance = 0.0
        self._next = (0.0, 0.0)

    def gradients(self, closure: Closure) -> Gradients:
        """Return g as eps; and as omega the gradient at the displaced weights if g is large, else g."""
        clean = self.evaluate(closure)
        square = clean.norm**2
        if self.mu is None:
            mu, variance = square, 0.0
        else:
            mu = self.delta * self.mu + (1 - self.delta) * square
            variance = self.delta * self.variance + (1 - self.delta) * (square - mu) ** 2
        self._next = mu, variance
        if square >= mu + self.threshold() * math.sqrt(variance):
            return self.ascend(closure, clean)
        return unperturbed(clean)

    def threshold(self) -> float:
        """Return c_t of this step."""
        assert self.total_steps is not None
        done = min(self.steps / self.total_steps, 1.0)
        return done * self.lambda_1 + (1 - done) * self.lambda_2

    def remember(self, gradients: Gradients) -> None:
        """Store the running mean and variance."""
        self.mu, self.variance = self._next
