"""ASAM: Kwon, Kim, Park and Choi, ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep
Neural Networks, ICML 2021.

    T     = |theta| + eta for weights, 1 for the other parameters
    omega = grad L(theta + rho T^2 g / norm(T g))

The authors' code uses T = |theta| + eta for parameters whose name contains "weight", which includes the gains of
normalisation layers. Here weights are parameters of two or more dimensions, so that biases and gains have T = 1.
davda54/sam uses T = |theta| for all parameters, which is weights_only=False, eta=0 here (and rho 2.0).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from molsam.optim import vector
from molsam.optim.base import BaseOptimizer, Closure, Gradients, Optimizer, check


class ASAM(Optimizer):
    """SAM in a neighbourhood scaled by the weights; two passes per step.

    Args:
        rho: radius; 0.5 in the authors' code.
        eta: added to |theta|; 0.01 in the authors' code.
        weights_only: scale only parameters of two or more dimensions.
    """

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        base: BaseOptimizer,
        *,
        rho: float = 0.5,
        eta: float = 0.01,
        weights_only: bool = True,
        **settings: Any,
    ) -> None:
        check(eta >= 0, "eta", eta, "0 or more")
        self.eta = eta
        self.weights_only = weights_only
        super().__init__(params, base, rho=rho, **settings)

    def gradients(self, closure: Closure) -> Gradients:
        """Return eps at theta, and omega at theta + rho T^2 eps / norm(T eps)."""
        clean = self.evaluate(closure)
        eps = clean.gradient
        scaled = [p for p in eps if p.ndim >= 2 or not self.weights_only]
        scales = torch._foreach_abs(scaled) if scaled else ()
        if self.eta and scaled:
            torch._foreach_add_(scales, self.eta)
        once = {**eps, **self._times(eps, scaled, scales)}
        twice = {**once, **self._times(once, scaled, scales)}
        with self.perturbed(twice, vector.norm(once)):
            omega = self.evaluate(closure)
        return Gradients(eps, clean.norm, omega.gradient, omega.norm)

    @staticmethod
    def _times(vec: vector.Vector, parameters: list[torch.Tensor], scales: Iterable[torch.Tensor]) -> vector.Vector:
        if not parameters:
            return {}
        products = torch._foreach_mul([vec[p] for p in parameters], list(scales))
        return dict(zip(parameters, products, strict=True))
