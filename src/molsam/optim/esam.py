"""ESAM: Du et al., Efficient Sharpness-aware Minimization for Improved Training of Neural Networks, ICLR 2022.

Stochastic weight perturbation (SWP) displaces a random subset S of the parameter tensors, each chosen with probability
beta. The others need no gradient in the first pass:

    g_S   = grad of L(theta) by S,  e = (rho / beta) g_S / norm(g_S)

Sharpness-sensitive data selection (SDS) uses only the samples whose loss rises most for the second pass:

    B'    = the floor(gamma |B|) samples (at least one) of largest l(theta + e) - l(theta)
    omega = grad of the (weighted) mean of l(theta + e) over B'

Two details follow the authors' code, not the paper's text: the factor is 1 / beta, and the norm is that of the gradient
that was computed. Their code also drops the sample at the threshold, which is kept here.

SDS needs the losses of single samples. For gamma < 1 the closure must have a method

    losses(select: Tensor | None = None) -> Tensor      # differentiable, [samples], or those of the indices `select`

which the step uses instead of the closure itself. If samples have different weights in the closure's loss (a molecule
counts once for each of its labels), a second method returns the weights, and both passes use the weighted mean:

    weights(select: Tensor | None = None) -> Tensor     # [samples], or those of the indices

With gamma = 1 the closure needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from molsam.errors import ConfigError
from molsam.optim import vector
from molsam.optim.base import BaseOptimizer, Closure, Gradients, Pass, check, unperturbed
from molsam.optim.sam import SAM
from molsam.optim.vector import Vector

Losses = Callable[..., Tensor]


class ESAM(SAM):
    """SAM that displaces fewer weights and uses fewer samples in the second pass.

    Args:
        beta: probability that a tensor is displaced, 0 < beta <= 1; 0.5 to 0.6 in the authors' runs.
        gamma: share of the samples in the second pass, 0 < gamma <= 1; 0.5 in the authors' runs, 1 uses all.
        seed: seed of the generator that chooses the tensors; its state is part of the optimizer's.
    """

    carried = ("reached",)

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
        self.reached: list[int] | None = None
        """indices of the parameters that had a gradient in every second pass so far"""

    def gradients(self, closure: Closure) -> Gradients:
        """Return g_S as eps, and omega of the selected samples at the displaced weights."""
        trained = [p for p in self.parameters() if p.requires_grad]
        draws = torch.rand(len(trained), generator=self.generator, dtype=torch.float64, device="cpu").tolist()
        chosen = {p for p, draw in zip(trained, draws, strict=True) if draw < self.beta}
        if not chosen:
            return unperturbed(self.evaluate(closure))
        losses = self._losses(closure) if self.gamma < 1 else None
        before: list[Tensor] = []
        frozen = [p for p in trained if p not in chosen] if self._is_reached(chosen) else []
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            clean = self.evaluate(closure if losses is None else lambda: mean(losses(), weights(closure), before))
        except RuntimeError as error:
            if not frozen or "does not require grad" not in str(error):
                raise
            raise ConfigError(
                "ESAM chose only parameters on which the loss of this batch does not depend; use optimizer.beta=1, "
                "which chooses all parameters."
            ) from error
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)
        part = {p: g for p, g in clean.gradient.items() if p in chosen}
        if not part:
            return unperturbed(clean)
        norm = clean.norm if len(part) == len(clean.gradient) else vector.norm(part)
        with self.perturbed(part, norm * self.beta):
            omega = self._second(closure, losses, before)
        self._remember_reached(omega.gradient)
        return Gradients(part, norm, omega.gradient, omega.norm)

    def _second(self, closure: Closure, losses: Losses | None, before: list[Tensor]) -> Pass:
        if losses is None:
            return self.evaluate(closure)
        with self.frozen_statistics():
            rise = losses() - before[0]
        chosen = rise.topk(max(int(self.gamma * len(rise)), 1)).indices
        return self.evaluate(lambda: mean(losses(chosen), weights(closure, chosen)))

    def _is_reached(self, chosen: set[Tensor]) -> bool:
        """Return whether the loss is known to depend on one of them; else the backward pass might fail."""
        parameters = self.parameters()
        return any(parameters[i] in chosen for i in self.reached or ())

    def _remember_reached(self, gradient: Vector) -> None:
        reached = {i for i, parameter in enumerate(self.parameters()) if parameter in gradient}
        self.reached = sorted(reached if self.reached is None else reached.intersection(self.reached))

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
        """Return the state, including the generator's."""
        return {**super().state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state; the same tensors will be chosen."""
        super().load_state_dict(state_dict)
        self.generator.set_state(state_dict["generator"].cpu())


def weights(closure: Closure, select: Tensor | None = None) -> Tensor | None:
    """Return the weight of each sample in the closure's loss; None if all are equal."""
    own: Callable[..., Tensor] | None = getattr(closure, "weights", None)
    return None if own is None else own(select)


def mean(losses: Tensor, counts: Tensor | None = None, kept: list[Tensor] | None = None) -> Tensor:
    """Backpropagate the (weighted) mean of the losses and return it, detached. The losses are appended to `kept`."""
    average = losses.mean() if counts is None else (losses * counts).sum() / counts.sum().clamp(min=1)
    average.backward()
    if kept is not None:
        kept.append(losses.detach())
    return average.detach()
