"""The base step equals torch's own, bit for bit, in weights and state."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from molsam.optim.base_step import BaseStep

BASES: dict[str, Any] = {
    "adam": partial(torch.optim.Adam, fused=True),
    "adam with L2": partial(torch.optim.Adam, fused=True, weight_decay=0.3, betas=(0.8, 0.99), eps=1e-3),
    "adamw": partial(torch.optim.AdamW, fused=True, weight_decay=0.1),
    "amsgrad": partial(torch.optim.Adam, fused=True, amsgrad=True),
    "maximize": partial(torch.optim.Adam, fused=True, maximize=True),
    "one tensor at a time": partial(torch.optim.Adam, foreach=False),
    "sgd": partial(torch.optim.SGD, momentum=0.9),
}
ONE_KERNEL = {"adam", "adam with L2", "adamw"}


def grow(model: nn.Sequential, step: int, dtype: torch.dtype) -> None:
    """Gradients of one step; now and then a parameter has none."""
    model.zero_grad()
    points = torch.randn(5, 7, dtype=dtype, generator=torch.Generator().manual_seed(step))
    model(points).square().mean().backward()
    if step in (0, 4, 5):
        model[0].weight.grad = None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", BASES)
def test_equals_torch(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.Linear(7, 300), nn.ReLU(), nn.Linear(300, 1)).to(dtype)
    ours = copy.deepcopy(theirs)
    groups = [[{"params": m[0].parameters()}, {"params": m[2].parameters(), "lr": 1e-3}] for m in (theirs, ours)]
    reference, base = (BASES[name](group, lr=1e-2) for group in groups)
    step = BaseStep(base)
    whole = {"calls": 0}

    def count(*_: Any, **__: Any) -> None:
        whole["calls"] += 1

    for i in range(12):
        grow(theirs, i, dtype)
        reference.step()
        grow(ours, i, dtype)
        if i == 6:  # torch's own step in between
            base.step()
        elif i == 8:  # a state from elsewhere
            base.load_state_dict(copy.deepcopy(base.state_dict()))
            step()
        elif i == 9:  # someone watches torch's step
            hook = base.register_step_post_hook(count)
            step()
            hook.remove()
        else:
            step()
    assert whole["calls"] == 1
    assert step.is_fused() == (name in ONE_KERNEL)
    for one, other in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert torch.equal(one, other)
    left, right = reference.state_dict()["state"], base.state_dict()["state"]
    assert left.keys() == right.keys()
    for place, values in left.items():
        assert values.keys() == right[place].keys()
        assert all(v is None or torch.equal(v, right[place][key]) for key, v in values.items())
