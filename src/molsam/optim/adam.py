"""Adam and AdamW as torch has them, at one call a step: of C (c/optim/vectors.c), or of torch's fused kernel without a
compiler.

For a small model torch's step takes four times as long as its arithmetic, because it gathers the state and counts the
steps tensor by tensor. Here the lists are kept from step to step. The state has torch's form, so either implementation
can continue from the other's. C rounds differently from torch's kernel, as that does on another processor.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from itertools import count
from operator import is_
from typing import Any, NamedTuple

import torch
from torch import Tensor

from molsam.native import kernels
from molsam.native.kernels import Arrays
from molsam.optim.companion import Companion
from molsam.optim.hooks import Unrecorded, unhooked
from molsam.optim.vector import GRADIENT

UNSUPPORTED = ("amsgrad", "maximize", "capturable", "differentiable")
"""Settings with which the step is torch's own."""
Places = tuple[Arrays, Arrays | None]
"""Addresses of a companion's vector, and of the displaced weights that it writes."""


class _State(NamedTuple):
    """State of a group's parameters that have a gradient: floating-point tensors on the CPU, all of one dtype."""

    parameters: list[Tensor]
    addresses: list[int]
    """addresses of the parameters; if they have changed, so may have their dtype or device"""
    exp_avg: list[Tensor]
    exp_avg_sq: list[Tensor]
    step: list[Tensor]
    """float32 [] each"""
    places: tuple[Arrays, Arrays, Arrays, Arrays] | None
    """addresses of parameters, exp_avg, exp_avg_sq and step; None if C cannot compute with them"""


class OneCall(Unrecorded):
    """The step of Adam and AdamW in one call."""

    _states: dict[int, _State]
    measured: tuple[list[Tensor], Arrays | None] = ([], None)
    """Gradients and their addresses, if a caller has just looked them up: the next step reuses them."""
    companion: Companion | None = None
    """what the next step does besides"""
    had_companion = False
    """whether the last step did so in C"""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step; arguments and return value are those of torch's step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        gradients = [list(map(GRADIENT, group["params"])) for group in self.param_groups]
        states = list(map(self._state, count(), self.param_groups, gradients))
        present = [[gradient for gradient in there if gradient is not None] for there in gradients]
        places = list(map(self._places, states, present))
        companions = self._companion_places(states, places)
        if self.companion is not None and not companions:
            every = (p for group in self.param_groups for p in group["params"])
            self.companion.apply({p: p.grad for p in every if p.grad is not None})
        if None in states:
            unhooked(super().step)()
        else:
            for i, (group, state) in enumerate(zip(self.param_groups, states, strict=True)):
                if state is not None and state.parameters:
                    self._update(i, group, state, present[i], places[i], companions[i] if companions else None)
        self.measured, self.companion, self.had_companion = ([], None), None, bool(companions)
        return loss

    def _companion_places(self, states: list[_State | None], places: list[Arrays | None]) -> list[Places | None]:
        """Return the addresses of the companion for each group; empty if C cannot compute with one of them."""
        found: list[Places | None] = []
        for state, there in zip(states, places, strict=True) if self.companion else ():
            assert self.companion is not None
            own = self.companion.places(state.parameters, there) if state is not None and there is not None else None
            if own is None and (state is None or state.parameters):
                return []
            found.append(own)
        return found

    def _update(
        self,
        place: int,
        group: dict[str, Any],
        state: _State,
        gradients: list[Tensor],
        found: Arrays | None,
        other: Places | None,
    ) -> None:
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        decoupled = isinstance(self, torch.optim.AdamW) or group.get("decoupled_weight_decay", False)
        torch.autograd.graph.increment_version(state.parameters)
        if state.places and found:
            beside = self.companion or Companion({})
            factor = beside.factors[place] if beside.factors else 0.0
            parameters, mean, square, step = state.places
            settings = group["lr"], beta1, beta2, group["eps"], decay, beside.push, beside.a, beside.b, factor
            kernels.call(
                "adam",
                state.parameters[0].dtype,
                count=len(gradients),
                decoupled=int(decoupled),
                settings=array("d", settings),
                size=parameters.sizes,
                x=parameters,
                gradient=found,
                mean=mean,
                square=square,
                step=step,
                other=other and other[0],
                out=other and other[1],
            )
            return
        with torch.no_grad():
            torch._foreach_add_(state.step, 1)
            (torch._fused_adamw_ if decoupled else torch._fused_adam_)(
                state.parameters,
                gradients,
                state.exp_avg,
                state.exp_avg_sq,
                [],
                state.step,
                lr=group["lr"],
                beta1=beta1,
                beta2=beta2,
                weight_decay=decay,
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
                grad_scale=None,
                found_inf=None,
            )

    def _places(self, state: _State | None, gradients: list[Tensor]) -> Arrays | None:
        """Return the gradients' addresses; None if C cannot compute with them and the state."""
        if state is None or not state.places:
            return None
        known, places = self.measured
        if len(known) != len(gradients) or not all(map(is_, known, gradients)):
            places = Arrays.of(gradients)
        return places if places and places.is_like(state.places[0]) else None

    def _state(self, place: int, group: dict[str, Any], gradients: list[Tensor | None]) -> _State | None:
        """Return the state of a group's parameters that have a gradient.

        The lists of the last step are reused, unless other parameters have a gradient, a parameter moved in memory, or
        a state was loaded. None if torch's step would do more than call its fused kernel.
        """
        if not group["fused"] or isinstance(group["lr"], Tensor) or any(map(group.__getitem__, UNSUPPORTED)):
            return None
        parameters = [p for p, gradient in zip(group["params"], gradients, strict=True) if gradient is not None]
        kept = self.__dict__.setdefault("_states", {}).get(place)
        if kept is not None and self._is_current(kept, parameters):
            return kept
        if not all(p.is_cpu and p.is_floating_point() and p.dtype == parameters[0].dtype for p in parameters):
            return None
        self._states[place] = made = self._gather(parameters)
        return made

    def _is_current(self, kept: _State, parameters: list[Tensor]) -> bool:
        if len(parameters) != len(kept.parameters) or not all(map(is_, parameters, kept.parameters)):
            return False
        if not parameters:
            return True
        loaded = self.state[parameters[0]].get("exp_avg") is not kept.exp_avg[0]
        return not loaded and list(map(Tensor.data_ptr, parameters)) == kept.addresses

    def _gather(self, parameters: list[Tensor]) -> _State:
        """Return the state of these parameters, creating what is missing."""
        for parameter in parameters:
            if not self.state[parameter]:
                zeros = (torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2))
                names = ("step", "exp_avg", "exp_avg_sq")
                self.state[parameter] = dict(zip(names, (torch.zeros((), dtype=torch.float32), *zeros), strict=True))
        own = [self.state[parameter] for parameter in parameters]
        exp_avg, exp_avg_sq = ([one[name] for one in own] for name in ("exp_avg", "exp_avg_sq"))
        step = [one["step"] for one in own]
        addresses = list(map(Tensor.data_ptr, parameters))
        return _State(parameters, addresses, exp_avg, exp_avg_sq, step, _for_c(parameters, exp_avg, exp_avg_sq, step))


def _for_c(
    parameters: list[Tensor], exp_avg: list[Tensor], exp_avg_sq: list[Tensor], step: list[Tensor]
) -> tuple[Arrays, Arrays, Arrays, Arrays] | None:
    """Return the addresses of all four lists; None if C cannot compute with them."""
    lists = map(Arrays.of, (parameters, exp_avg, exp_avg_sq, step))
    first, second, third, steps = lists
    if first is None or second is None or third is None or steps is None:
        return None
    alike = second.is_like(first) and third.is_like(first)
    counted = all(one.dtype == torch.float32 and one.numel() == 1 for one in step)
    return (first, second, third, steps) if alike and counted else None


class Adam(OneCall, torch.optim.Adam):
    """torch.optim.Adam with `fused=True`, faster on a CPU for small models; Kingma and Ba, ICLR 2015, algorithm 1.

    The arguments are torch's. With fused=False, or one of the settings in UNSUPPORTED, the step is torch's own.
    """


class AdamW(OneCall, torch.optim.AdamW):
    """torch.optim.AdamW, made faster in the same way; Loshchilov and Hutter, ICLR 2019, algorithm 2."""
