"""The step of the base optimizer: torch's own, or for a fused Adam on a CPU its kernel without what surrounds it.

For a small model torch spends three times as long around the kernel as in it: it gathers the state anew and counts the
steps tensor by tensor. The arithmetic and the state are torch's; only the lists are kept from step to step, and the
parameters' step counts are views of one tensor.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

KERNELS: dict[type, Any] = {torch.optim.Adam: torch._fused_adam_, torch.optim.AdamW: torch._fused_adamw_}
OTHERWISE = ("amsgrad", "maximize", "capturable", "differentiable")
"""settings under which torch does more"""


class _State(NamedTuple):
    """Of the parameters of a group that have a gradient."""

    parameters: list[Tensor]
    exp_avg: list[Tensor]
    exp_avg_sq: list[Tensor]
    steps: Tensor
    """float32 [parameters]"""
    step: list[Tensor]
    """views of `steps`"""


class BaseStep:
    """Makes the steps of a base optimizer; the gradients are in `.grad`."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        self.base = base
        self.states: dict[int, _State] = {}
        """of the groups, by their place"""

    def __call__(self) -> None:
        """Make one step."""
        if not self.is_fused():
            self.base.step()
            return
        for place, group in enumerate(self.base.param_groups):
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step(group, self._state(place, parameters))

    def is_fused(self) -> bool:
        """Whether torch would do no more than call the fused kernel once a group."""
        base = self.base
        if type(base) not in KERNELS or base._optimizer_step_pre_hooks or base._optimizer_step_post_hooks:
            return False
        return all(
            group["fused"] and not any(group[name] for name in OTHERWISE) and not isinstance(group["lr"], Tensor)
            for group in base.param_groups
        ) and all(map(self._is_uniform, range(len(base.param_groups))))

    def _is_uniform(self, place: int) -> bool:
        """Whether the parameters of a group, asked when its state is made, are of one dtype and on the CPU."""
        if place in self.states:
            return True
        group = self.base.param_groups[place]["params"]
        return len({(p.device.type, p.dtype) for p in group} | {("cpu", group[0].dtype)}) == 1

    def _step(self, group: dict[str, Any], state: _State) -> None:
        beta1, beta2 = group["betas"]
        state.steps.add_(1)
        KERNELS[type(self.base)](
            state.parameters,
            [parameter.grad for parameter in state.parameters],
            state.exp_avg,
            state.exp_avg_sq,
            [],
            state.step,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            grad_scale=None,
            found_inf=None,
        )

    def _state(self, place: int, parameters: list[Tensor]) -> _State:
        """The state of these parameters; what was kept, unless others have a gradient or a state was loaded."""
        state, kept = self.base.state, self.states.get(place)
        if kept is not None and len(kept.parameters) == len(parameters):
            same = all(one is other for one, other in zip(kept.parameters, parameters, strict=True))
            if same and state[parameters[0]].get("exp_avg") is kept.exp_avg[0]:
                return kept
        for parameter in parameters:
            if not state[parameter]:
                zeros = (torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2))
                state[parameter] = dict(zip(("step", "exp_avg", "exp_avg_sq"), (torch.zeros(()), *zeros), strict=True))
        own = [state[parameter] for parameter in parameters]
        steps = torch.stack([one["step"] for one in own])
        for one, step in zip(own, steps, strict=True):
            one["step"] = step
        kept = _State(
            parameters,
            [one["exp_avg"] for one in own],
            [one["exp_avg_sq"] for one in own],
            steps,
            [one["step"] for one in own],
        )
        self.states[place] = kept
        return kept
