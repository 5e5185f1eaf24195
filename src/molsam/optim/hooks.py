"""What torch wraps around every optimizer's step, without what costs a small model 5 % of its step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import optimizer


class Unrecorded(torch.optim.Optimizer):
    """An optimizer whose step calls the hooks and is announced to torch's profiler only if there are such.

    torch announces each step, whether a profiler runs or not, which takes 0.03 to 0.06 ms.
    """

    @staticmethod
    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        """What torch puts in place of the `step` of a class."""
        watched = torch.optim.Optimizer.profile_hook_step(func)

        @functools.wraps(func)
        def step(self: Unrecorded, *args: Any, **kwargs: Any) -> Any:
            hooks = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
            everywhere = optimizer._global_optimizer_pre_hooks or optimizer._global_optimizer_post_hooks
            seen = hooks or everywhere or torch.autograd._profiler_enabled()
            return (watched if seen else func)(self, *args, **kwargs)

        return step


def unhooked(step: Callable[[], Any]) -> Callable[[], Any]:
    """A bound `step` without what torch has put around that of its class, for who calls it within its own."""
    bound: Any = step
    function = bound.__func__
    return functools.partial(function.__wrapped__, bound.__self__) if getattr(function, "hooked", False) else step
