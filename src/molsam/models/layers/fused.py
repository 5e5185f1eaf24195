"""Hand-written backward passes that can still be differentiated twice.

A fused operation's `backward` runs outside of autograd, fast. When somebody asks for a gradient that is itself to be
differentiated (`create_graph=True`: Hessian-vector products), autograd is switched on inside `backward`; it then
calls `replay`, which computes the same gradient from the operation written in plain torch. No switch to set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def replay(
    plain: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Gradients of `plain(*inputs)` for its output's gradient, as differentiable functions of both.

    None for an input that needs no gradient, or is not there.
    """
    if grad is None:
        return (None,) * len(inputs)
    with torch.enable_grad():
        # One input may have been computed from another: through the aliases each counts for itself alone.
        aliases = [None if x is None else x.view_as(x) for x in inputs]
        wanted = [x for x in aliases if x is not None and x.requires_grad]
        found = iter(
            torch.autograd.grad(plain(*aliases), wanted, grad, create_graph=True, allow_unused=True) if wanted else ()
        )
    return tuple(next(found) if x is not None and x.requires_grad else None for x in aliases)
