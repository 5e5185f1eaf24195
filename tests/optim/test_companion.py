"""GraphSAM and LookSAM as companions of molsam's Adam equal the same optimizers with torch's Adam."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from molsam import optim
from molsam.native import kernels
from molsam.optim import vector
from molsam.optim.base import Gradients
from molsam.optim.companion import norm_of
from molsam.optim.passes import Passes

OURS = {"adam": optim.Adam, "adamw": optim.AdamW}
TORCHS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
METHODS: dict[str, Callable[..., optim.Optimizer]] = {
    "graphsam": partial(optim.GraphSAM, rho=0.3, beta=0.7),
    "one anchor": partial(optim.GraphSAM, rho=0.3, beta=0.9, reanchor_epochs=None),
    "looksam": partial(optim.LookSAM, rho=0.3, k=3, alpha=0.8),
}
EPOCH = 5


def model(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """A network whose largest tensor has several parts (c/optim/vectors.c), and one that gets no gradient."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(7, 1500), nn.Tanh(), nn.Linear(1500, 2)).to(dtype)
    layers.register_parameter("unused", nn.Parameter(torch.ones(3, dtype=dtype)))
    return layers


def build(net: nn.Sequential, method: str, base: Any, groups: int = 1, **settings: Any) -> optim.Optimizer:
    """The method over this base; the second of two groups has another radius and learning rate."""
    parameters: Any = list(net.parameters())
    if groups == 2:
        parameters = [{"params": parameters[:3]}, {"params": parameters[3:], "rho": 0.1, "lr": 1e-3}]
    base = partial(base, lr=1e-2, weight_decay=0.1, fused=True)
    return METHODS[method](parameters, base, steps_per_epoch=EPOCH, module=net, **settings)


def closure(net: nn.Sequential, step: int, seen: list[Tensor] | None = None) -> Callable[[], Tensor]:
    """The loss of the step's points; `seen` gets the weights of each pass."""
    dtype = net[0].weight.dtype
    points = torch.randn(9, 7, dtype=dtype, generator=torch.Generator().manual_seed(step))

    def loss() -> Tensor:
        if seen is not None:
            seen.append(torch.cat([p.detach().flatten() for p in net.parameters()]).clone())
        value = (net(points) - points[:, :2]).square().mean()
        value.backward()
        return value.detach()

    return loss


def train(net: nn.Sequential, optimizer: optim.Optimizer, steps: range) -> Tensor:
    """The weights after these steps."""
    for step in steps:
        optimizer.step(closure(net, step))
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize(("groups", "clip"), [(1, None), (2, None), (1, 0.2), (1, 1e3)])
@pytest.mark.parametrize("base", OURS)
@pytest.mark.parametrize("method", METHODS)
def test_equals_the_same_over_torchs_adam(method: str, base: str, groups: int, clip: float | None) -> None:
    found = []
    for bases in (OURS, TORCHS):
        net = model()
        optimizer = build(net, method, bases[base], groups, max_grad_norm=clip)
        weights = train(net, optimizer, range(3 * EPOCH))
        memory = [vec.flatten() for vec in next(iter(optimizer.memory.values())).values()]
        found.append((weights, torch.cat(memory), torch.tensor(optimizer.norm)))  # type: ignore[attr-defined]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_displaced_on_the_way_are_those_displaced_by_themselves(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, ask = [], Passes._is_precomputed
    found = []
    for alone in (False, True):

        def asked(self: Passes, *given: Any, alone: bool = alone) -> bool:
            there = ask(self, *given)
            used.append(there)
            return there and not alone

        monkeypatch.setattr(Passes, "_is_precomputed", asked)
        net = model(dtype)
        found.append(train(net, build(net, "graphsam", optim.Adam, 2), range(3 * EPOCH)))
    assert torch.equal(*found)
    # At the two steps after an anchor the norm is measured, not told by the inner product.
    assert used.count(True) == (2 * 3 * (EPOCH - 2) if kernels.fits(found[0]) else 0)


@pytest.mark.parametrize("method", METHODS)
def test_threads_change_nothing(method: str) -> None:
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        net = model(torch.float32)
        net.requires_grad_(requires_grad=False)
        optimizer = build(net, method, optim.Adam)
        for step in range(2 * EPOCH):

            def gradients(step: int = step, net: nn.Sequential = net) -> Tensor:
                generator = torch.Generator().manual_seed(step)
                for parameter in net.parameters():
                    parameter.grad = torch.randn(parameter.shape, generator=generator) + parameter.detach()
                return torch.zeros(())

            optimizer.step(gradients)
        found.append(torch.cat([p.flatten() for p in net.parameters()]))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def changed(net: nn.Sequential, optimizer: optim.Optimizer) -> Iterator[str]:
    """Change what the next displaced weights depend on, in one way after the other."""
    weight = net[0].weight
    with torch.no_grad():
        weight += 0.5
    yield "in place"
    weight.data = weight.data.clone().mul_(0.9)
    yield "elsewhere in memory"
    net.load_state_dict({name: 1.1 * value for name, value in net.state_dict().items()})
    yield "loaded weights"
    optimizer.param_groups[0]["rho"] = 0.05
    yield "radius"
    state = optimizer.state_dict()
    state["memory"]["eps"] = {name: -value for name, value in state["memory"]["eps"].items()}
    optimizer.load_state_dict(state)
    yield "loaded direction"
    with optimizer.perturbed({weight: torch.ones_like(weight)}, 1.0):
        pass
    yield "another displacement"


def test_what_was_displaced_before_a_change_is_not_used_after_it() -> None:
    net = model()
    optimizer = build(net, "one anchor", optim.Adam)
    changes = changed(net, optimizer)
    for step in itertools.count():
        if step > 4 and (next(changes, None)) is None:
            break
        seen: list[Tensor] = []
        weights = torch.cat([p.detach().flatten() for p in net.parameters()]).clone()
        eps = optimizer.memory.get("eps", {})
        zeros = [eps[p].flatten() if p in eps else torch.zeros(p.numel()) for p in net.parameters()]
        direction = torch.cat([one.double() for one in zeros])
        optimizer.step(closure(net, step, seen))
        if step:
            rho = optimizer.param_groups[0]["rho"]
            torch.testing.assert_close(seen[0], weights + rho * direction / direction.norm(), rtol=0, atol=1e-12)
    assert step > 8


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stop", [3, EPOCH, 7])
def test_a_resume_is_exact(method: str, stop: int) -> None:
    net = model(torch.float32)
    whole = train(net, build(net, method, optim.Adam), range(3 * EPOCH))
    first, second = model(torch.float32), model(torch.float32)
    before = build(first, method, optim.Adam)
    train(first, before, range(stop))
    second.load_state_dict(first.state_dict())
    after = build(second, method, optim.Adam)
    after.load_state_dict(before.state_dict())
    assert torch.equal(train(second, after, range(stop, 3 * EPOCH)), whole)


@pytest.mark.parametrize("method", METHODS)
def test_an_observer_changes_nothing_and_sees_both_gradients(method: str) -> None:
    found = []
    for watched in (False, True):
        net = model(torch.float32)
        optimizer = build(net, method, optim.Adam)
        if watched:

            def watch(event: optim.StepEvent) -> None:
                assert event.omega_norm == pytest.approx(vector.norm(event.omega), rel=1e-5)
                assert event.norm == pytest.approx(vector.norm(event.eps), rel=1e-5)

            optimizer.observers.append(watch)
        found.append(train(net, optimizer, range(3 * EPOCH)))
    assert torch.equal(*found)


def test_a_direction_that_shrinks_is_0_before_it_is_denormal() -> None:
    """Numbers below the normal ones take a hundred times as long to compute with."""
    net = nn.Sequential(nn.Linear(40, 1, bias=False))
    (weight,) = net.parameters()
    if not kernels.fits(weight):
        pytest.skip("only C flushes them")
    optimizer = build(net, "one anchor", optim.Adam)
    weight.grad = torch.zeros(1, 40)
    eps = {weight: torch.full((1, 40), 1e-37)}
    for _ in range(5):
        optimizer.move(Gradients(eps, 1e-36, {weight: weight.grad}, 0.0, 0.0), 0.1, 0.0)
        optimizer.base.step()  # type: ignore[union-attr]
    assert eps[weight].tolist() == [[0.0] * 40]


def test_a_norm_is_told_from_products_only_where_they_do_not_cancel() -> None:
    x, y = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0])
    assert norm_of(2.0, 5.0, -1.0, 1.0, 3.0) == pytest.approx(float((2 * x - y).norm()))
    assert norm_of(0.2, 5.0, -1.0, 1.0, 5.0) is None
    assert norm_of(1.0, 5.0, 1.0, 1.0, None) is None
    assert norm_of(1.0, float("inf"), 1.0, 1.0, 0.0) is None
