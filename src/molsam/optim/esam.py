"""ESAM: Du et al., Efficient Sharpness-aware Minimization for Improved Training of Neural Networks, ICLR 2022.

Stochastic weight perturbation (SWP): only a random subset S of the parameter tensors, each taken with probability
beta, is displaced, and the others need no gradient in the first pass:

    g_S   = grad of L(theta) by S,  e = (rho / beta) g_S / norm(g_S)

Sharpness-sensitive data selection (SDS): only the samples whose loss rises most make the second pass:

    B'    = the floor(gamma |B|) samples (at least one) of largest l(theta + e) - l(theta)
    omega = grad of the mean of l(theta + e) over B'

As in the authors' code, which the paper's text differs from: the factor is 1 / beta, and the norm is that of the
gradient that was computed. Their code drops the sample at the threshold, too; here it stays.
SDS needs the losses of single samples. For it the closure must also have a method

    losses(select: Tensor | None = None) -> Tensor      # differentiable, [samples], or those of the indices `select`

and the step then uses that instead of the closure itself. With gamma = 1 any closure will do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from molsam.errors import ConfigError
from molsam.optim.base import BaseOptimizer, Closure, Gradients, check
from molsam.optim.sam import SAM

Losses = Callable[..., Tensor]


class ESAM(SAM):
    """SAM with fewer weights displaced and fewer samples in the second pass.

    Args:
        beta: probability of a tensor to be displaced, 0 < beta <= 1; 0.5 to 0.6 in the authors' runs.
        gamma: share of the samples in the second pass, 0 < gamma <= 1; 0.5 in the authors' runs, 1 is no selection.
        seed: of the choice of tensors, which has a generator of its own; its state is part of the optimizer's.
    """

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        base: BaseOptimizer,
        *,
        beta: float = 0.6,
        gamma: float = 1.0,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        check(0 < beta <= 1, "beta", beta, "above 0 and at most 1")
        check(0 < gamma <= 1, "gamma", gamma, "above 0 and at most 1")
        self.beta = beta
        self.gamma = gamma
        super().__init__(params, base, **settings)
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def gradients(self, closure: Closure) -> Gradients:
        """g_S, and omega of the selected samples at the displaced weights."""
        trained = [p for p in self.parameters() if p.requires_grad]
        draws = torch.rand(len(trained), generator=self.generator, dtype=torch.float64, device="cpu").tolist()
        rest = [p for p, draw in zip(trained, draws, strict=True) if draw >= self.beta]
        if len(rest) == len(trained):
            clean = self.evaluate(closure)
            return Gradients(clean.gradient, clean.gradient, clean.norm)
        losses = self._losses(closure) if self.gamma < 1 else None
        before: list[Tensor] = []
        for parameter in rest:
            parameter.requires_grad_(False)
        try:
            clean = self.evaluate(closure if losses is None else lambda: mean(losses(), before))
        finally:
            for parameter in rest:
                parameter.requires_grad_(True)
        with self.perturbed(clean.gradient, clean.norm * self.beta):
            if losses is None:
                omega = self.evaluate(closure)
            else:
                with self.frozen_statistics():
                    rise = losses() - before[0]
                chosen = rise.topk(max(int(self.gamma * len(rise)), 1)).indices
                omega = self.evaluate(lambda: mean(losses(chosen)))
        return Gradients(clean.gradient, omega.gradient, omega.norm)

    @staticmethod
    def _losses(closure: Closure) -> Losses:
        losses: Losses | None = getattr(closure, "losses", None)
        if losses is None:
            raise ConfigError(
                "optimizer.gamma below 1 selects samples by their losses, and this closure has no method "
                "losses(select); use optimizer.gamma=1 or give the closure one (see molsam.optim.esam)."
            )
        return losses

    def state_dict(self) -> dict[str, Any]:
        """The state, with the generator's."""
        return {**super().state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state, with the same choices of tensors."""
        super().load_state_dict(state_dict)
        self.generator.set_state(state_dict["generator"].cpu())


def mean(losses: Tensor, kept: list[Tensor] | None = None) -> Tensor:
    """The mean of the losses, back-propagated; the losses are appended to `kept`."""
    average = losses.mean()
    average.backward()
    if kept is not None:
        kept.append(losses.detach())
    return average.detach()
