"""GSAM: Zhuang et al., Surrogate Gap Minimization Improves Sharpness-Aware Training, ICLR 2022.

    g_p    = grad L(theta + rho g / norm(g))
    g_perp = g - (g . g_p / norm(g_p)^2) g_p           the part of g orthogonal to g_p
    omega  = g_p - alpha g_perp                        to first order g_perp changes only the gap
    rho_t  = rho_min + (rho - rho_min) (lr_t - lr_min) / (lr_max - lr_min)

The gap is the difference between perturbed and plain loss. In the paper rho follows the learning rate, as here with
`rho_min` and `lr_max`. Without them the rho schedule applies, so that all rows of a table share one. alpha is 0.4 in a
common port (pytorch_optimizer); the authors tune it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from molsam.errors import ConfigError
from molsam.optim import vector
from molsam.optim.base import BaseOptimizer, Closure, Gradients, check
from molsam.optim.looksam import orthogonal
from molsam.optim.sam import SAM


class GSAM(SAM):
    """SAM that also reduces the gap between perturbed and plain loss; two passes per step.

    Args:
        alpha: weight of the orthogonal part.
        rho_min: rho at lr_min, if rho follows the learning rate; then no rho schedule may be given.
        lr_max: learning rate at which rho has its full value (the peak of the learning-rate schedule).
        lr_min: learning rate at which rho is rho_min.
    """

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        base: BaseOptimizer,
        *,
        alpha: float = 0.4,
        rho_min: float | None = None,
        lr_max: float | None = None,
        lr_min: float = 0.0,
        **settings: Any,
    ) -> None:
        check(alpha >= 0, "alpha", alpha, "0 or more")
        check(rho_min is None or rho_min >= 0, "rho_min", rho_min, "0 or more, or null")
        if rho_min is not None:
            if lr_max is None or lr_max <= lr_min:
                raise ConfigError(
                    f"optimizer.rho_min={rho_min} needs optimizer.lr_max; give the largest learning rate, above "
                    f"optimizer.lr_min={lr_min}."
                )
            if getattr(settings.get("rho_schedule"), "needs_epochs", False):
                raise ConfigError(
                    "optimizer.rho_min makes rho follow the learning rate, but rho_schedule sets rho too; use "
                    "rho_schedule=constant."
                )
        self.alpha = alpha
        self.rho_min = rho_min
        self.lr_max, self.lr_min = lr_max, lr_min
        super().__init__(params, base, **settings)

    def prepare(self) -> None:
        """Set rho from the learning rate, if `rho_min` is given."""
        super().prepare()
        if self.rho_min is not None and self.lr_max is not None:
            for group in self.param_groups:
                share = (float(group["lr"]) - self.lr_min) / (self.lr_max - self.lr_min)
                group["rho"] = max(self.rho_min + (group["initial_rho"] - self.rho_min) * share, 0.0)

    def gradients(self, closure: Closure) -> Gradients:
        """Return g as eps, and g_p - alpha g_perp as omega."""
        g, norm, g_p, *_ = super().gradients(closure)
        omega = vector.combine(g_p, orthogonal(g, g_p), -self.alpha)
        return Gradients(g, norm, omega, vector.norm(omega))
