"""Base class of molsam's optimizers: one `step(closure)` around any base optimizer.

    optimizer = GraphSAM(model, functools.partial(torch.optim.Adam, lr=1e-3), steps_per_epoch=len(loader))
    ...
    loss = optimizer.step(closure)      # closure: zero_grad, forward, loss, backward, return loss

A step makes one or more passes (a pass is one call of the closure), computes the updating gradient omega, puts it into
`.grad`, and lets the base optimizer step from the weights at which the step began. A subclass defines only how omega is
computed (`gradients`). Everything else is here and in passes.py:

- Weights are displaced only inside `step`, in a copy. They are restored bit for bit, even if a pass fails.
- With rho = 0 a step is one pass and a base step, bit for bit the same as the base optimizer's.
- Norms are global, over all parameters of all groups, in the parameters' precision and without an epsilon. A zero
  vector displaces nothing. Each group may have its own rho.
- Only the first pass of a step changes running statistics (all buffers of the module). It is the unperturbed pass, if
  there is one.
- The two passes draw different noise (dropout masks), as in SAM's code and the paper's release. With `same_noise` the
  second pass repeats the first one's random numbers, so that eps and omega differ only by the weights. The step then
  sees one mask instead of two.
- The gradients are cleared before each pass. To accumulate gradients, run several backward passes in the closure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from molsam.errors import ConfigError, NumericalError
from molsam.optim import vector
from molsam.optim.adam import OneCall
from molsam.optim.companion import Companion, norm_of
from molsam.optim.hooks import Unrecorded
from molsam.optim.passes import Closure, NonFinite, Pass, Passes, Precomputed
from molsam.optim.record import Exchange, Gradients, StepEvent, StepRecord, unperturbed
from molsam.optim.schedules import RhoSchedule
from molsam.optim.state import load_base, snapshot
from molsam.optim.vector import Vector

__all__ = [
    "BaseOptimizer",
    "Closure",
    "Gradients",
    "Optimizer",
    "Pass",
    "StepEvent",
    "StepRecord",
    "check",
    "unperturbed",
]

BaseOptimizer = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]

# When the first parameter group is added, torch imports its compiler to exempt `add_param_group` from compilation. That
# takes a second or two. This mark tells torch that it is exempt already.
if adding := getattr(torch.optim.Optimizer.add_param_group, "__wrapped__", None):
    adding.__dict__.setdefault("__dynamo_disable", adding)


class Optimizer(Passes, Unrecorded):
    """Base of all optimizers here.

    Args:
        params: the module to train, or parameters or parameter groups. With a module, its running statistics are known.
        base: builds the base optimizer from the parameter groups, which both then share.
        rho: radius of the displacement, >= 0; a group may have its own under "rho".
        rho_schedule: (initial rho, epoch, number of epochs) -> rho, applied at the start of each epoch; None keeps rho.
        steps_per_epoch: steps in an epoch; required by everything that depends on the epoch.
        total_steps: steps of the whole training; required by schedules that depend on its length.
        same_noise: whether all passes of a step draw the same random numbers (of torch's generators).
        max_grad_norm: largest global norm of the updating gradient, which is scaled down to it; None: not scaled.
        nonfinite: what to do if a loss or gradient is not finite: "raise" NumericalError, or "skip" the step.
        module: the module, if `params` are parameters or groups.

    Raises:
        ConfigError: a setting is out of range or missing.
    """

    needs_epochs = False
    """whether the method requires steps_per_epoch"""
    carried: tuple[str, ...] = ()
    """attributes (JSON-able values) that belong to the state, besides the vectors in `memory`"""
    remembered: tuple[str, ...] = ()
    """the names that vectors in `memory` may have"""

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        base: BaseOptimizer,
        *,
        rho: float = 0.05,
        rho_schedule: RhoSchedule | None = None,
        steps_per_epoch: int | None = None,
        total_steps: int | None = None,
        same_noise: bool = False,
        max_grad_norm: float | None = None,
        nonfinite: str = "raise",
        module: nn.Module | None = None,
    ) -> None:
        if isinstance(params, nn.Module):
            module, params = params, params.parameters()
        check(nonfinite in ("raise", "skip"), "nonfinite", nonfinite, '"raise" or "skip"')
        check(max_grad_norm is None or max_grad_norm > 0, "max_grad_norm", max_grad_norm, "positive or null")
        check(steps_per_epoch is None or steps_per_epoch > 0, "steps_per_epoch", steps_per_epoch, "1 or more")
        if steps_per_epoch is None and (self.needs_epochs or (rho_schedule and rho_schedule.needs_epochs)):
            raise ConfigError(
                f"{type(self).__name__} or its rho schedule depends on the epoch; give steps_per_epoch, the number of "
                "steps in an epoch, as in steps_per_epoch=len(loader)."
            )
        self.base: torch.optim.Optimizer | None = None
        torch.optim.Optimizer.__init__(self, params, {"rho": rho})
        Passes.__init__(self, module, same_noise)
        named: dict[Tensor, str] = {}
        if module is not None:
            named = {parameter: name for name, parameter in module.named_parameters()}
        self.names = [named.get(p, f"parameter {i}") for i, p in enumerate(self.parameters())]
        """names of the parameters, for observers"""
        self.base = base(self.param_groups)
        self.param_groups = self.base.param_groups
        self.defaults = {**self.base.defaults, **self.defaults}  # torch's schedules read the momentum from there
        self.rho_schedule = rho_schedule
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = total_steps
        self.max_grad_norm = max_grad_norm
        self.nonfinite = nonfinite
        self.steps = 0
        self.memory: dict[str, Vector] = {}
        """vectors that the method keeps from step to step, by name"""
        self.last: StepRecord | None = None
        self.observers: list[Callable[[StepEvent], None]] = []
        self.exchange: Exchange | None = None
        """averages the update over several processes, if each computes its own perturbation"""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to this optimizer and its base; without a rho of its own it gets the default."""
        param_group.setdefault("rho", self.defaults["rho"])
        rho = param_group["rho"]
        check(isinstance(rho, int | float) and 0 <= rho < math.inf, "rho", rho, "a finite number >= 0")
        param_group.setdefault("initial_rho", rho)
        if self.base is None:
            super().add_param_group(param_group)
        else:
            self.base.add_param_group(param_group)

    # ------------------------------------------------------------------ what a method defines

    def gradients(self, closure: Closure) -> Gradients:
        """Make this step's passes and return eps and omega. Afterwards the weights are as before."""
        raise NotImplementedError

    def remember(self, gradients: Gradients) -> None:
        """Update what the method keeps for the next step. Called once omega is known to be finite."""

    def needed(self, own: dict[str, Any]) -> set[str]:
        """Return the names of the vectors that a saved state with these attributes must contain."""
        return set()

    def prepare(self) -> None:
        """Set rho for this step, by the schedule at the start of each epoch."""
        if self.rho_schedule is not None and self.steps % (self.steps_per_epoch or 1) == 0:
            for group in self.param_groups:
                group["rho"] = self.rho_schedule(group["initial_rho"], self.epoch, self.epochs)

    def is_plain(self) -> bool:
        """Return whether this step equals a base step, so that one pass is enough."""
        return all(group["rho"] == 0 for group in self.param_groups)

    # ------------------------------------------------------------------ the step

    @property
    def epoch(self) -> int:
        """Epoch of the next step, from 0."""
        return self.steps // self.steps_per_epoch if self.steps_per_epoch else 0

    @property
    def epochs(self) -> int | None:
        """Epochs of the whole training, if known."""
        if self.total_steps is None or self.steps_per_epoch is None:
            return None
        return -(-self.total_steps // self.steps_per_epoch)

    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """Make one step; return the detached loss of its first pass.

        Raises:
            TypeError: there is no closure, or it returns no loss.
            NumericalError: a loss or gradient is not finite (if nonfinite is "raise"); no weight was changed.
        """
        if closure is None:
            raise TypeError(
                f"{type(self).__name__}.step needs a closure, because a step may make more than one pass; call "
                "step(closure), where closure does zero_grad, forward, loss, backward and returns the loss."
            )
        with torch.set_grad_enabled(False):
            return self._step(closure)

    def _step(self, closure: Closure) -> Tensor:
        self._begin()
        self.prepare()
        skipped = False
        try:
            plain = self.is_plain()
            gradients, updating = self._exchanged(closure, plain)
        except NonFinite as error:
            self._clear()
            if self.nonfinite == "raise":
                raise NumericalError(
                    f"At step {self.steps} {error} is not finite; lower the learning rate or rho, clip the "
                    'gradient (max_grad_norm), or skip such steps (nonfinite="skip").'
                ) from None
            skipped = True
        else:
            self._notify(closure, updating)
            self._precomputed = None
            if not plain:
                self.remember(gradients)
            self._descend(updating)
        loss, made, rho = self._made[0].loss, len(self._made), self.param_groups[0]["rho"]
        self.last = StepRecord(self._loss_clean, self._loss_perturbed, made, rho, skipped)
        self._made = []
        self.steps += 1
        return loss

    def _exchanged(self, closure: Closure, plain: bool) -> tuple[Gradients, Gradients]:
        """Return this process's gradients, and those for the base optimizer; they differ only if there is an
        `exchange`."""
        try:
            own = self._plain(closure) if plain else self.gradients(closure)
            if not math.isfinite(own.omega_norm):
                raise NonFinite("the updating gradient")
        except NonFinite:
            if self.exchange is not None:
                self.exchange(None, [])
            raise
        if self.exchange is None:
            return own, own
        # Exchanged before the memory is updated, because that may write into omega.
        found = self.exchange(own.omega, [self._made[0].loss, self._loss_clean, self._loss_perturbed])
        if found is None:
            raise NonFinite("the gradient of another process")
        omega, (first, self._loss_clean, self._loss_perturbed) = found
        assert first is not None
        self._made[0] = self._made[0]._replace(loss=first)
        return own, own._replace(omega=omega, omega_norm=vector.norm(omega))

    def _plain(self, closure: Closure) -> Gradients:
        """Return the gradient at theta as both eps and omega."""
        return unperturbed(self.evaluate(closure))

    def _notify(self, closure: Closure, gradients: Gradients) -> None:
        """Show the gradients to the observers."""
        if not self.observers:
            return
        rho = self.param_groups[0]["rho"]
        event = StepEvent(self, closure, self.steps, self.epoch, rho, *gradients[:4])
        for observer in self.observers:
            observer(event)

    def _descend(self, gradients: Gradients) -> None:
        """Let the base optimizer step with the (clipped) updating gradient."""
        omega = gradients.omega
        if self.max_grad_norm is not None and self.clips(gradients.omega_norm):
            clipped = torch._foreach_mul(list(omega.values()), self.max_grad_norm / gradients.omega_norm)
            omega = dict(zip(omega, clipped, strict=True))
        # `.grad` holds the last pass's gradient already, unless an observer made passes of its own.
        last, base = self._made[-1], self.base
        assert base is not None
        companion = base.companion if isinstance(base, OneCall) else None
        if companion is not None:
            omega = last.gradient
        if omega is not last.gradient or self.observers:
            for parameter in self.parameters():
                parameter.grad = omega.get(parameter)
        elif isinstance(base, OneCall):
            base.measured = list(omega.values()), last.places
        base.step()
        if companion is not None and companion.factors and isinstance(base, OneCall) and base.had_companion:
            self._precomputed = Precomputed.of(companion.other, list(companion.factors), self.parameters())

    def move(self, gradients: Gradients, a: float, b: float) -> float:
        """Set eps = a eps + b omega in place, and return its norm.

        Adam in C does this in its own pass over the weights, and also computes the next step's displaced weights.
        """
        eps, _, omega, omega_norm, dot = gradients
        norm = norm_of(a, gradients.norm, b, omega_norm, dot)
        base = self.base_for_companion(omega_norm)
        if norm is None or base is None:
            return vector.combine_(eps, a, omega, b)
        base.companion = Companion(eps, a=a, b=b, factors=self.factors(norm), out=self._room)
        return norm

    def base_for_companion(self, norm: float) -> OneCall | None:
        """Return the base optimizer if its step can update a second vector too; else None.

        It must use the updating gradient, of this norm, unchanged: neither exchanged nor clipped.
        """
        unchanged = self.exchange is None and not self.clips(norm)
        return self.base if unchanged and isinstance(self.base, OneCall) else None

    def clips(self, norm: float) -> bool:
        """Return whether an updating gradient of this norm is clipped."""
        return self.max_grad_norm is not None and norm > self.max_grad_norm

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of base, counters and memory, from which training continues exactly.

        It consists of nested dicts and lists of tensors and JSON-able values.
        """
        assert self.base is not None
        index = {parameter: str(i) for i, parameter in enumerate(self.parameters())}
        memory = {name: {index[p]: t for p, t in vec.items()} for name, vec in self.memory.items()}
        own = {name: getattr(self, name) for name in ("steps", "passes", *self.carried)}
        base = self.base.state_dict()
        return snapshot({"optimizer": type(self).__name__, "own": own, "memory": memory, "base": base})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state made by `state_dict`.

        Raises:
            ConfigError: the state is of another optimizer, of another version of this one, or of other parameters.
                Nothing was changed.
        """
        assert self.base is not None
        maker, name = state_dict.get("optimizer"), type(self).__name__
        if maker is None:
            raise ConfigError(
                f"The saved state is not one of molsam's optimizers; load the state of a torch optimizer into the base "
                f"of this {name}, as in optimizer.base.load_state_dict(state)."
            )
        if maker != name:
            raise ConfigError(f"The saved state is of {maker}, but the optimizer is {name}; use {maker}.")
        self._check_names(state_dict["own"], state_dict["memory"])
        state = snapshot(state_dict)
        load_base(self.base, state["base"])
        self.param_groups = self.base.param_groups
        parameters = self.parameters()
        self.memory = {
            name: {(p := parameters[int(i)]): t.to(p.device) for i, t in tensors.items()}
            for name, tensors in state["memory"].items()
        }
        for name, value in state["own"].items():
            setattr(self, name, value)

    def _check_names(self, own: dict[str, Any], memory: dict[str, Any]) -> None:
        """Raise ConfigError for a state with missing or unknown values, instead of silently using defaults."""
        expected = {"steps", "passes", *self.carried}
        lacking = sorted(expected - own.keys()) or sorted(self.needed(own) - memory.keys())
        unknown = sorted((own.keys() - expected) | (memory.keys() - set(self.remembered)))
        if lacking or unknown:
            found = [f"it lacks {name}" for name in lacking] + [f"{name} is unknown" for name in unknown]
            raise ConfigError(
                f"The saved state does not fit this {type(self).__name__} ({', '.join(found)}); load it with the "
                "version of molsam that saved it."
            )


def check(fits: bool, name: str, value: object, expected: str) -> None:
    """Raise ConfigError for a setting that is out of range (`fits` is False)."""
    if not fits:
        raise ConfigError(f"optimizer.{name} is {value!r}; it must be {expected}.")
