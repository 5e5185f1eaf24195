"""molsam's Adam equals torch's in weights and state, exactly where torch's kernel computes it."""

from __future__ import annotations

import copy
import platform
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import profile

from molsam import optim
from molsam.native import kernels
from molsam.native.kernels import Arrays

KINDS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "adam": (optim.Adam, torch.optim.Adam, {}),
    "adam with L2": (optim.Adam, torch.optim.Adam, {"weight_decay": 0.3, "betas": (0.8, 0.99), "eps": 1e-3}),
    "no momentum": (optim.Adam, torch.optim.Adam, {"betas": (0.0, 0.5)}),
    "adamw": (optim.AdamW, torch.optim.AdamW, {"weight_decay": 0.1}),
    "decoupled": (optim.Adam, torch.optim.Adam, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    "amsgrad": (optim.Adam, torch.optim.Adam, {"amsgrad": True}),
    "maximize": (optim.AdamW, torch.optim.AdamW, {"maximize": True}),
    "not fused": (optim.Adam, torch.optim.Adam, {"fused": False}),
}
COMPILED = ("adam", "adam with L2", "no momentum", "adamw", "decoupled")
RTOL = {torch.float32: 2e-6, torch.float64: 1e-14}


def grow(model: nn.Sequential, step: int, dtype: torch.dtype) -> None:
    """Gradients of one step; now and then a parameter has none, or one that is not contiguous."""
    model.zero_grad()
    points = torch.randn(5, 7, dtype=dtype, generator=torch.Generator().manual_seed(step))
    model(points).square().mean().backward()
    weight = model[0].weight
    if step in (0, 4, 5):
        weight.grad = None
    elif step in (2, 7):
        weight.grad = weight.grad.t().contiguous().t()


@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("name", KINDS)
def test_equals_torch(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    ours, theirs, settings = KINDS[name]
    models = [nn.Sequential(nn.Linear(7, 3000), nn.ReLU(), nn.Linear(3000, 1)).to(dtype)]
    models.append(copy.deepcopy(models[0]))
    groups = [[{"params": m[0].parameters()}, {"params": m[2].parameters(), "lr": 1e-3}] for m in models]
    reference = theirs(groups[0], lr=1e-2, **{"fused": True, **settings})
    optimizer = ours(groups[1], lr=1e-2, **{"fused": True, **settings})
    for i in range(12):
        for model in models:
            grow(model, i, dtype)
        if i == 6:  # a learning rate that changes, and a state from elsewhere
            for group in (*reference.param_groups, *optimizer.param_groups):
                group["lr"] *= 0.5
            optimizer.load_state_dict(copy.deepcopy(reference.state_dict()))
            with torch.no_grad():
                for one, other in zip(*(model.parameters() for model in models), strict=True):
                    other.copy_(one)
        elif i == 8:  # weights that moved in memory
            for parameter in models[1].parameters():
                parameter.data = parameter.data.clone()
        reference.step()
        optimizer.step()
    exact = name not in COMPILED or kernels.in_use() == "torch" or not kernels.available(models[0][0].weight)
    close = partial(torch.testing.assert_close, rtol=0 if exact else RTOL[dtype], atol=0 if exact else RTOL[dtype])
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        close(other, one)
    left, right = reference.state_dict()["state"], optimizer.state_dict()["state"]
    assert left.keys() == right.keys()
    for place, values in left.items():
        assert values.keys() == right[place].keys()
        for key, value in values.items():
            close(right[place][key], value)


def test_weights_that_change_their_precision_are_no_longer_computed_with_as_before() -> None:
    model = nn.Linear(3, 2)
    optimizer = optim.Adam(model.parameters(), fused=True)
    model(torch.ones(3)).sum().backward()
    optimizer.step()
    model.double()
    with pytest.raises(RuntimeError, match="expected scalar type"):
        optimizer.step()


@pytest.mark.parametrize("threads", [2, 5])
def test_the_threads_do_not_change_a_step(threads: int) -> None:
    found = []
    before = torch.get_num_threads()
    for count in (1, threads):
        torch.manual_seed(0)
        torch.set_num_threads(count)
        weight = nn.Parameter(torch.randn(5, 9001))
        optimizer = optim.AdamW([weight], fused=True)
        for _ in range(3):
            weight.grad = torch.randn(5, 9001)
            optimizer.step()
        found.append(weight.detach())
    torch.set_num_threads(before)
    assert torch.equal(*found)


def test_a_step_takes_the_gradient_that_is_there_not_one_measured_before() -> None:
    weight = nn.Parameter(torch.ones(3))
    optimizer = optim.Adam([weight], lr=1.0, fused=True)
    known = [torch.full((3,), -1.0)]
    optimizer.measured = known, Arrays.of(known)
    weight.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), torch.zeros(3), rtol=0, atol=1e-6)
    assert optimizer.measured == ([], None)


def test_a_mean_that_becomes_denormal_is_zero_instead() -> None:
    """Without, 0.9 times the smallest number rounds to itself: a mean that no gradient reaches would stay there."""
    if kernels.in_use() == "torch" or platform.machine() != "x86_64":
        pytest.skip("only C flushes denormal numbers, on x86")
    weight = nn.Parameter(torch.ones(20))
    optimizer = optim.Adam([weight], fused=True)
    weight.grad = torch.full((20,), 2e-38)
    optimizer.step()
    if kernels.available(weight):
        assert not optimizer.state[weight]["exp_avg"].any()
    assert float(torch.tensor(1e-39) * 1) > 0  # and nothing else in the process is computed otherwise


def test_a_step_is_known_to_graphs_made_before_it() -> None:
    weight = nn.Parameter(torch.ones(3))
    loss = weight.square().sum()
    weight.grad = torch.ones(3)
    optim.Adam([weight], fused=True).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("inner", [True, False])
def test_hooks_and_profilers_see_a_step_and_closures_are_called(inner: bool, fused: bool) -> None:
    weight = nn.Parameter(torch.ones(3))
    torch.optim.Adam([weight])  # which puts torch's hooks around the step that is called if not fused
    base = partial(optim.Adam, fused=fused)
    whole = base([weight]) if inner else optim.Plain([weight], base)
    seen = []
    hooks = [whole.register_step_pre_hook(lambda *_: seen.append("before"))]
    hooks.append(whole.register_step_post_hook(lambda *_: seen.append("after")))

    def closure() -> torch.Tensor:
        seen.append("closure")
        weight.grad = None
        with torch.enable_grad():
            loss = weight.sum()
            loss.backward()
        return loss.detach()

    assert float(whole.step(closure)) == 3
    assert seen == ["before", "closure", "after"]
    for hook in hooks:
        hook.remove()
    with profile() as record:
        whole.step(closure)
    whole.step(closure)
    steps = [event for event in record.key_averages() if event.key == f"Optimizer.step#{type(whole).__name__}.step"]
    assert [event.count for event in steps] == [1]
