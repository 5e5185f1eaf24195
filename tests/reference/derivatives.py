"""First and second derivatives of hand-written passes, against differences and against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck


def check_derivatives(function: Callable[..., Tensor], inputs: Sequence[Tensor], **twice: Any) -> None:
    """Assert that both derivatives of `function` (float64) are right; `twice`: options of gradgradcheck.

    A fused pass has two first derivatives, a fast one and one to be differentiated again: gradgradcheck sees the second
    of them alone, and would let it differ.
    """
    assert gradcheck(function, inputs)
    assert gradgradcheck(function, inputs, **twice)
    wanted = [x for x in inputs if x.requires_grad]
    out = function(*inputs)
    toward = torch.randn_like(out)
    fast = grad(out, wanted, toward, retain_graph=True, allow_unused=True)
    again = grad(out, wanted, toward, create_graph=True, allow_unused=True)
    torch.testing.assert_close(fast, again, rtol=1e-12, atol=1e-12)
