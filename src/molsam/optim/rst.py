"""RST: Zhao, Zhang and Hu, Randomized Sharpness-Aware Training for Boosting Computational Efficiency in Deep
Learning (first called SS-SAM), 2022.

    X_t ~ Bernoulli(p(t));  X_t = 1: SAM step,  X_t = 0: base step with g
    G-RST: on SAM steps omega = (1 - gamma) g + gamma grad L(theta + rho g / norm(g))

The mean of p over the training sets the cost; the authors keep it near 0.5. gamma sets the weight of the sharpness
independently of p: gamma = 1 is RST, and gamma = 1 / p is SAM in expectation.

Sources: the paper's abstract and introduction have the random trial, a predefined p(t), half of SAM's extra cost, and
that G-RST sets the weight of the sharpness for any p(t). The form of G-RST's mixture is from memory and could not be
confirmed. Of the authors' code only the README was found, whose example uses a constant p = 0.6. The default here, 0.5,
gives the half of SAM's extra cost that the abstract mentions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import nn

from molsam.errors import ConfigError
from molsam.optim import vector
from molsam.optim.base import BaseOptimizer, Closure, Gradients, check, unperturbed
from molsam.optim.sam import SAM

Shape = Literal["constant", "linear", "piecewise", "trigonometric"]


class RST(SAM):
    """SAM steps with probability p(t), base steps otherwise; on average 1 + p passes per step.

    Args:
        p: probability of a SAM step (constant), or its value at the start of the training.
        p_end: its value at the end of the training; None is p.
        p_schedule: course from p to p_end: constant (p only), linear, piecewise (p, then p_end in the second half) or
            trigonometric (half a cosine). All but constant need total_steps.
        gamma: weight of the SAM gradient on SAM steps (G-RST); 1 is RST.
        seed: seed of the trials' own generator, whose state is part of the optimizer's.
    """

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        base: BaseOptimizer,
        *,
        p: float = 0.5,
        p_end: float | None = None,
        p_schedule: Shape = "constant",
        gamma: float = 1.0,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        check(0 <= p <= 1, "p", p, "from 0 to 1")
        check(p_end is None or 0 <= p_end <= 1, "p_end", p_end, "from 0 to 1, or null")
        check(p_schedule in get_args(Shape), "p_schedule", p_schedule, f"one of {', '.join(get_args(Shape))}")
        if p_schedule != "constant" and settings.get("total_steps") is None:
            raise ConfigError(
                f"optimizer.p_schedule={p_schedule} depends on the length of the training; give total_steps, its "
                "number of steps."
            )
        self.p, self.p_end = p, p if p_end is None else p_end
        self.p_schedule = p_schedule
        self.gamma = gamma
        super().__init__(params, base, **settings)
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def gradients(self, closure: Closure) -> Gradients:
        """Return g as eps; and as omega, by chance, the SAM gradient or g."""
        sharp = float(torch.rand((), generator=self.generator, dtype=torch.float64, device="cpu")) < self.probability()
        clean = self.evaluate(closure)
        if not sharp:
            return unperturbed(clean)
        ascended = self.ascend(closure, clean)
        if self.gamma == 1:
            return ascended
        # (1 - gamma) g + gamma g_s, written as g + gamma (g_s - g)
        sharpness = vector.combine(ascended.omega, clean.gradient, -1.0)
        omega = vector.combine(clean.gradient, sharpness, self.gamma)
        return Gradients(clean.gradient, clean.norm, omega, vector.norm(omega))

    def probability(self) -> float:
        """Return p(t) of this step."""
        if self.p_schedule == "constant":
            return self.p
        assert self.total_steps is not None
        done = min(self.steps / self.total_steps, 1.0)
        if self.p_schedule == "piecewise":
            return self.p if done < 0.5 else self.p_end
        share = done if self.p_schedule == "linear" else (1 - math.cos(math.pi * done)) / 2
        return self.p + (self.p_end - self.p) * share

    def state_dict(self) -> dict[str, Any]:
        """Return the state, including the generator's."""
        return {**super().state_dict(), "generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state; the trials will be the same."""
        super().load_state_dict(state_dict)
        self.generator.set_state(state_dict["generator"].cpu())
