"""Hand-written backward passes that can still be differentiated twice.

A fused operation's `backward` is fast because autograd does not record it. Hessian-vector products need a gradient that
can itself be differentiated (`create_graph=True`). Autograd is then enabled inside `backward`, which calls `replay`:
it computes the same gradient from the operation in plain torch. Nothing has to be configured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def replay(
    plain: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Return the gradients of `plain(*inputs)` for the gradient of its output, differentiable with respect to both.

    They are None for an input that is None or needs no gradient.
    """
    if grad is None:
        return (None,) * len(inputs)
    with torch.enable_grad():
        # One input may have been computed from another; differentiating by aliases treats them as independent.
        aliases = [None if x is None else x.view_as(x) for x in inputs]
        wanted = [x for x in aliases if x is not None and x.requires_grad]
        found = iter(
            torch.autograd.grad(plain(*aliases), wanted, grad, create_graph=True, allow_unused=True) if wanted else ()
        )
    return tuple(next(found) if x is not None and x.requires_grad else None for x in aliases)
