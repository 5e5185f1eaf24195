"""What all optimizers of molsam share: one `step(closure)` around any base optimizer.

    optimizer = GraphSAM(model, functools.partial(torch.optim.Adam, lr=1e-3), steps_per_epoch=len(loader))
    ...
    loss = optimizer.step(closure)      # closure: zero_grad, forward, loss, backward, return loss

A step makes one or more passes (a pass is one call of the closure), decides the updating gradient omega,
puts it into `.grad` and lets the base optimizer step from the weights it started at. A subclass only says
how omega comes about (`gradients`); all else is here and in passes.py, once:

- Weights are displaced inside `step` only, in a copy, and come back bit for bit, even if a pass fails.
- With rho = 0 a step is one pass and a base step: the base optimizer, bit for bit.
- Norms are global, over all parameters of all groups, in their own precision and without an epsilon; a zero
  vector displaces nothing. Each group may have its own rho.
- Running statistics (all buffers of the module) are touched by the first pass of a step only: the unperturbed one, if
  there is one.
- Two passes draw different noise (dropout masks), as in SAM's code and the paper's release, unless
  `same_noise`: then the second sees the first one's random numbers. Their difference is then due to the
  weights alone (eps ascends the very loss that omega descends), but the step sees one mask instead of two.
- The gradients are cleared before each pass; to accumulate, let the closure run several backward passes.
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
from molsam.optim.along import Along, norm_of
from molsam.optim.hooks import Unrecorded
from molsam.optim.passes import Ahead, Closure, NonFinite, Pass, Passes
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

# torch imports its compiler, which takes a second or two, when a parameter group is first added, to exempt the adding
# from compilation; this says that it is exempt already.
if adding := getattr(torch.optim.Optimizer.add_param_group, "__wrapped__", None):
    adding.__dict__.setdefault("__dynamo_disable", adding)


class Optimizer(Passes, Unrecorded):
    """Base of all optimizers here.

    Args:
        params: the module to train (then its running statistics are known), or parameters or groups of them.
        base: builds the base optimizer from the parameter groups, which the two then share.
        rho: radius of the displacement, >= 0; a group may have its own under "rho".
        rho_schedule: (initial rho, epoch, number of epochs) -> rho, applied as an epoch starts; None keeps it.
        steps_per_epoch: steps in an epoch; needed by everything that depends on the epoch.
        total_steps: steps of the whole training; needed by schedules that depend on its length.
        same_noise: let all passes of a step draw the same random numbers (of torch's generators).
        max_grad_norm: scale the updating gradient down to this global norm; None leaves it.
        nonfinite: if a loss or gradient is not finite, "raise" a NumericalError or "skip" the step.
        module: the module, if `params` is not one.

    Raises:
        ConfigError: a setting is out of range or missing.
    """

    needs_epochs = False
    """whether the method cannot work without steps_per_epoch"""
    carried: tuple[str, ...] = ()
    """attributes (JSON-able) that a resume must restore, besides the vectors in `memory`"""
    remembered: tuple[str, ...] = ()
    """names that vectors in `memory` may have"""

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
                f"{type(self).__name__} depends on the epoch (itself, or by its rho schedule): give "
                "steps_per_epoch, the number of steps in an epoch, as in steps_per_epoch=len(loader)."
            )
        self.base: torch.optim.Optimizer | None = None
        torch.optim.Optimizer.__init__(self, params, {"rho": rho})
        Passes.__init__(self, module, same_noise)
        named: dict[Tensor, str] = {}
        if module is not None:
            named = {parameter: name for name, parameter in module.named_parameters()}
        self.names = [named.get(p, f"parameter {i}") for i, p in enumerate(self.parameters())]
        """of the parameters, for observers"""
        self.base = base(self.param_groups)
        self.param_groups = self.base.param_groups
        self.defaults = {**self.base.defaults, **self.defaults}  # torch's schedules look there for the momentum
        self.rho_schedule = rho_schedule
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = total_steps
        self.max_grad_norm = max_grad_norm
        self.nonfinite = nonfinite
        self.steps = 0
        self.memory: dict[str, Vector] = {}
        """what the method carries from step to step, by name"""
        self.last: StepRecord | None = None
        self.observers: list[Callable[[StepEvent], None]] = []
        self.exchange: Exchange | None = None
        """where several processes train together and each perturbs by itself: the mean of their updates"""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to this optimizer and its base; its rho is its own or the default."""
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
        """Make this step's passes; return eps and omega. The weights are back where they were."""
        raise NotImplementedError

    def remember(self, gradients: Gradients) -> None:
        """Update what the method carries to the next step, after omega is known to be finite."""

    def needed(self, own: dict[str, Any]) -> set[str]:
        """Vectors without which a saved state with these values cannot be gone on from."""
        return set()

    def prepare(self) -> None:
        """Set rho for this step: by its schedule, as an epoch starts."""
        if self.rho_schedule is not None and self.steps % (self.steps_per_epoch or 1) == 0:
            for group in self.param_groups:
                group["rho"] = self.rho_schedule(group["initial_rho"], self.epoch, self.epochs)

    def is_plain(self) -> bool:
        """Whether this step cannot differ from a base step, so that one pass is enough."""
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
            TypeError: no closure, or one that returns no loss.
            NumericalError: a loss or gradient is not finite (nonfinite is "raise"); no weight was changed.
        """
        if closure is None:
            raise TypeError(
                f"{type(self).__name__}.step needs a closure, because a step may make more than one pass: call "
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
                    'gradient (max_grad_norm), or let such steps be skipped (nonfinite="skip").'
                ) from None
            skipped = True
        else:
            self._notify(closure, updating)
            self._ahead = None
            if not plain:
                self.remember(gradients)
            self._descend(updating)
        loss, made, rho = self._made[0].loss, len(self._made), self.param_groups[0]["rho"]
        self.last = StepRecord(self._loss_clean, self._loss_perturbed, made, rho, skipped)
        self._made = []
        self.steps += 1
        return loss

    def _exchanged(self, closure: Closure, plain: bool) -> tuple[Gradients, Gradients]:
        """This process's gradients, and those that the base optimizer gets: the same, unless there is an `exchange`."""
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
        # Before the memory is updated, which may write into omega.
        found = self.exchange(own.omega, [self._made[0].loss, self._loss_clean, self._loss_perturbed])
        if found is None:
            raise NonFinite("the gradient of another process")
        omega, (first, self._loss_clean, self._loss_perturbed) = found
        assert first is not None
        self._made[0] = self._made[0]._replace(loss=first)
        return own, own._replace(omega=omega, omega_norm=vector.norm(omega))

    def _plain(self, closure: Closure) -> Gradients:
        """The gradient at theta as both eps and omega."""
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
        # The last pass left its gradient there, unless an observer made passes of its own.
        last, base = self._made[-1], self.base
        assert base is not None
        along = base.along if isinstance(base, OneCall) else None
        if along is not None:
            omega = last.gradient
        if omega is not last.gradient or self.observers:
            for parameter in self.parameters():
                parameter.grad = omega.get(parameter)
        elif isinstance(base, OneCall):
            base.measured = list(omega.values()), last.places
        base.step()
        if along is not None and along.factors and isinstance(base, OneCall) and base.went_along:
            self._ahead = Ahead.of(along.other, list(along.factors), self.parameters())

    def move(self, gradients: Gradients, a: float, b: float) -> float:
        """eps = a eps + b omega, in place; returns its norm. Adam in C does so on its way over the weights, and leaves the
        weights that are displaced by it."""
        eps, _, omega, omega_norm, dot = gradients
        norm = norm_of(a, gradients.norm, b, omega_norm, dot)
        base = self.takes_along(omega_norm)
        if norm is None or base is None:
            return vector.combine_(eps, a, omega, b)
        base.along = Along(eps, a=a, b=b, factors=self.factors(norm), out=self._room)
        return norm

    def takes_along(self, norm: float) -> OneCall | None:
        """The base optimizer, if it can take another vector along with an updating gradient of this norm as it is."""
        as_it_is = self.exchange is None and not self.clips(norm)
        return self.base if as_it_is and isinstance(self.base, OneCall) else None

    def clips(self, norm: float) -> bool:
        """Whether an updating gradient of this norm is scaled down."""
        return self.max_grad_norm is not None and norm > self.max_grad_norm

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """A snapshot (tensors are copied) of base, counters and memory: nested dicts and lists of tensors and
        JSON-able values, from which training continues exactly."""
        assert self.base is not None
        index = {parameter: str(i) for i, parameter in enumerate(self.parameters())}
        memory = {name: {index[p]: t for p, t in vec.items()} for name, vec in self.memory.items()}
        own = {name: getattr(self, name) for name in ("steps", "passes", *self.carried)}
        base = self.base.state_dict()
        return snapshot({"optimizer": type(self).__name__, "own": own, "memory": memory, "base": base})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state made by `state_dict`.

        Raises:
            ConfigError: it was made by another optimizer, by another version of this one, or for other parameters;
                nothing was changed.
        """
        assert self.base is not None
        maker, name = state_dict.get("optimizer"), type(self).__name__
        if maker is None:
            raise ConfigError(
                f"The saved state is not of an optimizer of molsam; load the state of a torch optimizer into the base of "
                f"this {name}, as in optimizer.base.load_state_dict(state)."
            )
        if maker != name:
            raise ConfigError(f"The saved state is of {maker}, the optimizer is {name}; use {maker}.")
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
        """Refuse a state that lacks a value or has one that is not known: a default in its place would go unseen."""
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
    """Refuse a setting that is out of range.

    Raises:
        ConfigError: it does not fit.
    """
    if not fits:
        raise ConfigError(f"optimizer.{name} is {value!r}; it must be {expected}.")
