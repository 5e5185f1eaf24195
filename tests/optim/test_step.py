"""The optimizer step: closed forms, refused settings, what an observer sees, and state as plain values."""

from __future__ import annotations

import copy
import json
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from molsam import optim
from molsam.errors import ConfigError
from molsam.optim import vector
from molsam.optim.schedules import Constant, Cosine, Staircase
from tests.optim.problem import ADAM, SGD, Problem, scalar, small


def test_sam_on_a_quadratic() -> None:
    """L = theta' A theta / 2: omega = A (theta + rho A theta / |A theta|), exactly."""
    A = torch.diag(torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64))
    theta = nn.Parameter(torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64))
    optimizer = optim.SAM([theta], partial(torch.optim.SGD, lr=0.05), rho=0.3)
    expected = theta.detach().clone()

    def closure() -> Tensor:
        loss = theta @ A @ theta / 2
        loss.backward()
        return loss.detach()

    for _ in range(20):
        g = A @ expected
        expected = expected - 0.05 * A @ (expected + 0.3 * g / g.norm())
        optimizer.step(closure)
        torch.testing.assert_close(theta.detach(), expected, rtol=0, atol=1e-14)


def test_graphsam_on_a_quadratic() -> None:
    """With beta = 0 the next eps is omega normalised; with beta = 1 it is the anchor for ever."""
    A = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    for beta in (0.0, 1.0):
        theta = nn.Parameter(torch.tensor([1.0, 1.0], dtype=torch.float64))
        optimizer = optim.GraphSAM([theta], partial(torch.optim.SGD, lr=0.1), rho=0.2, beta=beta, steps_per_epoch=99)
        events: list[Tensor] = []
        optimizer.observers.append(lambda event, t=theta, e=events: e.append(event.eps[t].clone()))

        def closure(theta: nn.Parameter = theta) -> Tensor:
            loss = theta @ A @ theta / 2
            loss.backward()
            return loss.detach()

        start = torch.tensor([1.0, 4.0], dtype=torch.float64)
        omega = A @ (torch.ones(2, dtype=torch.float64) + 0.2 * start / start.norm())
        for _ in range(2):
            optimizer.step(closure)
        torch.testing.assert_close(events[0], start, rtol=0, atol=0)
        torch.testing.assert_close(events[1], start if beta else omega / omega.norm(), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        (optim.SAM, {"rho": -0.1}, "rho"),
        (optim.SAM, {"rho": math.nan}, "rho"),
        (optim.SAM, {"rho": "big"}, "rho"),
        (optim.SAM, {"nonfinite": "ignore"}, "nonfinite"),
        (optim.SAM, {"max_grad_norm": 0.0}, "max_grad_norm"),
        (optim.SAM, {"steps_per_epoch": 0}, "steps_per_epoch"),
        (optim.SAM, {"rho_schedule": Staircase()}, "give steps_per_epoch"),
        (optim.GraphSAM, {"rho_schedule": Constant()}, "give steps_per_epoch"),
        (optim.GraphSAM, {"beta": 1.1, "steps_per_epoch": 3}, "beta"),
        (optim.GraphSAM, {"reanchor_epochs": 0, "steps_per_epoch": 3}, "reanchor_epochs"),
        (optim.GraphSAMRelease, {"radius": 0.0, "steps_per_epoch": 3}, "radius"),
        (optim.GraphSAMRelease, {"rho_schedule": Cosine(), "steps_per_epoch": 3}, "cumulative_rho"),
        (optim.SAMk, {"k": 0}, "k"),
        (optim.LookSAM, {"k": 0}, "k"),
        (optim.LookSAM, {"alpha": -1.0}, "alpha"),
        (optim.AESAM, {}, "give total_steps"),
        (optim.AESAM, {"total_steps": 5, "delta": 1.0}, "delta"),
        (optim.RST, {"p": 1.5}, "p "),
        (optim.RST, {"p_end": -0.5}, "p_end"),
        (optim.RST, {"p_schedule": "square"}, "p_schedule"),
        (optim.RST, {"p_schedule": "linear"}, "total_steps"),
        (optim.ASAM, {"eta": -1.0}, "eta"),
        (optim.ESAM, {"beta": 0.0}, "beta"),
        (optim.ESAM, {"gamma": 0.0}, "gamma"),
        (optim.GSAM, {"alpha": -1.0}, "alpha"),
        (optim.GSAM, {"rho_min": 0.01}, "lr_max"),
        (optim.GSAM, {"rho_min": -1.0, "lr_max": 1.0}, "rho_min"),
        (
            optim.GSAM,
            {"rho_min": 0.01, "lr_max": 1.0, "rho_schedule": Staircase(), "steps_per_epoch": 2},
            "rho_schedule=constant",
        ),
        (optim.FriendlySAM, {"lam": 2.0}, "lam"),
    ],
)
def test_a_wrong_setting_is_refused(method: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        method([nn.Parameter(torch.ones(2))], SGD, **settings)


def test_an_observer_sees_eps_with_its_norm() -> None:
    problem = Problem()
    optimizer = small(problem, optim.GraphSAM, beta=0.5)
    seen: list[tuple[dict[Tensor, Tensor], dict[Tensor, Tensor]]] = []

    def observe(event: optim.StepEvent) -> None:
        assert event.norm == pytest.approx(vector.norm(event.eps), rel=1e-12)
        assert event.omega_norm == pytest.approx(vector.norm(event.omega), rel=1e-12)
        vectors = (event.eps, event.omega)
        seen.append(tuple({p: t.clone() for p, t in vec.items()} for vec in vectors))  # type: ignore[arg-type]

    optimizer.observers.append(observe)
    problem.run(optimizer, 7)
    for step in (1, 2, 3, 4, 6):  # the others are exact
        eps, omega = seen[step - 1]
        for parameter, now in seen[step][0].items():
            expected = 0.5 * eps[parameter] + 0.5 * omega[parameter] / vector.norm(omega)
            torch.testing.assert_close(now, expected, rtol=1e-12, atol=0)


def test_an_average_may_vanish() -> None:
    """beta = 0 and a gradient of zero leave no direction: the next step is not displaced."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = optim.GraphSAM([weight], SGD, beta=0.0, steps_per_epoch=9)
    points: list[Tensor] = []
    for factor in (1.0, 0.0, 1.0):

        def closure(factor: float = factor) -> Tensor:
            points.append(weight.detach().clone())
            if factor:
                return scalar(weight)
            return scalar(weight) + (weight.grad.zero_() * 0).sum()  # type: ignore[union-attr]

        start = weight.detach().clone()
        optimizer.step(closure)
    assert torch.equal(points[-1], start)


def test_sparse_gradients_are_refused() -> None:
    embedding, linear = nn.Embedding(5, 2, sparse=True), nn.Linear(2, 1)
    optimizer = optim.SAM([*linear.parameters(), *embedding.parameters()], SGD)

    def closure() -> Tensor:
        loss = linear(embedding(torch.tensor([1, 2]))).sum()
        loss.backward()
        return loss.detach()

    with pytest.raises(ConfigError, match="sparse=False"):
        optimizer.step(closure)


def test_no_gradient_at_all_moves_nothing() -> None:
    weight = nn.Parameter(torch.ones(2))
    for method in (optim.SAM, optim.ASAM, optim.GSAM, optim.FriendlySAM, optim.SAMOne, optim.LookSAM):
        optimizer = method([weight], SGD)

        def closure() -> Tensor:
            loss = (weight * 0).sum()
            loss.backward()
            return loss.detach()

        for _ in range(3):
            optimizer.step(closure)
        assert torch.equal(weight, torch.ones(2))


def test_a_group_added_later_is_trained_with_its_rho() -> None:
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = optim.SAM([first], SGD, rho=0.5)
    optimizer.add_param_group({"params": [second], "rho": 0.25})
    points: list[Tensor] = []

    def closure() -> Tensor:
        points.append(second.detach().clone())
        loss = first.square().sum() + second.square().sum()
        loss.backward()
        return loss.detach()

    optimizer.step(closure)
    torch.testing.assert_close((points[1] - points[0]).norm().item(), 0.25 / math.sqrt(2), rtol=1e-6, atol=0)
    assert not torch.equal(second, torch.ones(2))
    assert optimizer.base is not None
    assert [g["rho"] for g in optimizer.base.param_groups] == [0.5, 0.25]


def test_gsam_lets_rho_follow_the_learning_rate() -> None:
    problem = Problem()
    optimizer = small(problem, optim.GSAM, rho=0.2, rho_min=0.1, lr_max=0.1, lr_min=0.02)
    for lr, rho in ((0.1, 0.2), (0.06, 0.15), (0.02, 0.1)):
        optimizer.param_groups[0]["lr"] = lr
        problem.run(optimizer, 1)
        assert optimizer.last is not None
        assert optimizer.last.rho == pytest.approx(rho, rel=1e-12)


@pytest.mark.parametrize(
    ("p_schedule", "expected"),
    [
        ("constant", [0.2] * 4),
        ("linear", [0.2, 0.35, 0.5, 0.65]),
        ("piecewise", [0.2, 0.2, 0.8, 0.8]),
        ("trigonometric",
         [0.2, 0.2 + 0.6 * (1 - math.cos(math.pi / 4)) / 2, 0.5, 0.8 - 0.6 * (1 - math.cos(math.pi / 4)) / 2]),
    ],
)  # fmt: skip
def test_rst_probabilities(p_schedule: Any, expected: list[float]) -> None:
    problem = Problem()
    optimizer = small(problem, optim.RST, p=0.2, p_end=0.8, p_schedule=p_schedule, total_steps=4)
    found = []
    for _ in range(4):
        assert isinstance(optimizer, optim.RST)
        found.append(optimizer.probability())
        problem.run(optimizer, 1)
    assert found == pytest.approx(expected, abs=1e-12)


def test_rst_takes_a_share_p_of_sam_steps() -> None:
    problem = Problem()
    optimizer = small(problem, optim.RST, p=0.3, seed=5)
    extra = sum(problem.run(optimizer, 400)) - 400
    assert abs(extra / 400 - 0.3) < 0.07


def test_rst_leaves_the_global_generator_alone() -> None:
    problem = Problem()
    before = torch.get_rng_state()
    for method in (optim.RST, optim.ESAM):
        problem.run(small(problem, method), 5)
    assert torch.equal(before, torch.get_rng_state())


def test_aesam_carries_mean_and_variance() -> None:
    problem = Problem()
    optimizer, other = (small(problem, optim.AESAM, total_steps=9) for _ in range(2))
    problem.run(optimizer, 4)
    other.load_state_dict(optimizer.state_dict())
    assert isinstance(optimizer, optim.AESAM)
    assert isinstance(other, optim.AESAM)
    assert optimizer.mu is not None
    assert optimizer.mu > 0
    assert optimizer.variance > 0
    assert (other.mu, other.variance) == (optimizer.mu, optimizer.variance)


def test_sam_k_and_sam_one_keep_eps() -> None:
    for method, settings, fresh in (
        (optim.SAMk, {"k": 3}, {0, 3, 6}),
        (optim.SAMOne, {}, {0}),
    ):
        problem = Problem()
        optimizer = small(problem, method, **settings)
        norms: list[float] = []
        optimizer.observers.append(lambda event, n=norms: n.append(vector.norm(event.eps)))
        passes = problem.run(optimizer, 8)
        assert {s for s, p in enumerate(passes) if p == 2} == fresh
        assert {s for s in range(8) if s == 0 or norms[s] != norms[s - 1]} == fresh


def test_a_state_is_a_snapshot_of_tensors_and_plain_values() -> None:
    problem = Problem()
    optimizer = small(problem, optim.GraphSAM, ADAM)
    problem.run(optimizer, 3)
    state = optimizer.state_dict()
    text = json.dumps(state, default=lambda value: {"tensor": value.tolist()})
    problem.run(optimizer, 3)
    assert json.dumps(state, default=lambda value: {"tensor": value.tolist()}) == text
    assert json.loads(text)["own"]["steps"] == 3
    assert set(json.loads(text)["memory"]["eps"]) == {"0", "1", "2", "3"}
    optimizer.load_state_dict(state)
    assert isinstance(optimizer.param_groups[0]["betas"], tuple)


def test_a_skipped_anchor_is_taken_at_the_next_step() -> None:
    problem = Problem()
    optimizer = small(problem, optim.GraphSAM, nonfinite="skip")
    good = problem.batches[0]
    problem.batches[0] = (good[0], good[1] * math.nan)
    assert problem.run(optimizer, 3) == [1, 2, 1]


@pytest.mark.parametrize(("method", "settings"), [(optim.SAMOne, {}), (optim.SAMk, {"k": 4})])
def test_a_kept_eps_displaces_by_rho(method: Any, settings: dict[str, Any]) -> None:
    weight = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    optimizer = method([weight], SGD, rho=0.2, **settings)
    points: list[Tensor] = []

    def closure() -> Tensor:
        points.append(weight.detach().clone())
        return scalar(weight)

    for _ in range(3):
        start = weight.detach().clone()
        optimizer.step(closure)
        torch.testing.assert_close(points[-1] - start, torch.tensor([0.12, 0.16], dtype=torch.float64))


@pytest.mark.parametrize("method", [optim.SAMk, optim.LookSAM])
@pytest.mark.parametrize("bad", [0, 4])
def test_a_skipped_refresh_is_made_at_the_next_step(method: Any, bad: int) -> None:
    """And not k steps later: until then the kept gradient would be older than k steps."""
    problem = Problem(batches=9)
    optimizer = small(problem, method, k=4, rho=0.05, nonfinite="skip")
    good = problem.batches[bad]
    problem.batches[bad] = (good[0], good[1] * math.nan)
    expected = [2, 1, 1, 1, 2, 1, 1, 1, 2]
    expected[bad : bad + 2] = [1, 2]
    assert problem.run(optimizer, 9) == expected


def test_torchs_schedules_of_momentum_take_the_optimizers() -> None:
    """OneCycleLR and CyclicLR look for the base's momentum or betas in `defaults`."""
    for base, name in ((partial(torch.optim.SGD, lr=0.1, momentum=0.9), "momentum"), (ADAM, "betas")):
        for method in (optim.Plain, optim.SAM, optim.GraphSAM):
            problem = Problem()
            optimizer = small(problem, method, base)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20)
            assert optimizer.base is not None
            start = optimizer.base.param_groups[0][name]
            problem.run(optimizer, 3)
            schedule.step()
            assert optimizer.base.param_groups[0][name] != start
            torch.optim.lr_scheduler.CyclicLR(optimizer, 0.01, 0.1, cycle_momentum=name == "momentum")


def test_a_state_of_torchs_optimizer_is_refused_with_what_to_do() -> None:
    weight = nn.Parameter(torch.ones(2))
    with pytest.raises(ConfigError, match=r"not one of molsam's optimizers; .*optimizer\.base\.load_state_dict"):
        optim.SAM([weight], ADAM).load_state_dict(ADAM([weight]).state_dict())


class Mean(nn.Module):
    """A module with a running statistic of its own, which it replaces instead of changing it."""

    running: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.running = 0.9 * self.running + 0.1 * x.detach().mean((0, 2))
        return x - x.mean((0, 2), keepdim=True)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), nn.InstanceNorm1d(4, track_running_stats=True), Mean()])
@pytest.mark.parametrize("method", [optim.SAM, optim.ASAM, optim.GraphSAM, optim.ESAM, optim.LookSAM])
def test_running_statistics_are_updated_once_a_step(method: Any, layer: nn.Module) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 4, 3) + 1
    # The statistics are of the data, so that they do not depend on the weights.
    models = [nn.Sequential(copy.deepcopy(layer), nn.Flatten(), nn.Linear(12, 1)) for _ in range(2)]
    for model, make in zip(models, (optim.Plain, method), strict=True):
        optimizer = make(model, SGD, steps_per_epoch=9, **({} if make is optim.Plain else {"rho": 0.05}))

        def closure(model: nn.Module = model) -> Tensor:
            loss = model(x).square().mean()
            loss.backward()
            return loss.detach()

        for _ in range(3):
            optimizer.step(closure)
    buffers = [dict(model[0].named_buffers()) for model in models]  # type: ignore[index]
    assert all(torch.equal(buffers[0][name], buffers[1][name]) for name in buffers[0])
    assert any(buffer.abs().sum() > 0 for buffer in buffers[0].values())


def test_a_last_epoch_that_is_cut_short_counts() -> None:
    optimizer = small(Problem(), optim.SAM, total_steps=12)
    assert optimizer.epochs == 3


def test_a_parameter_joins_the_average_of_the_release_when_it_first_has_a_gradient() -> None:
    first, second = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in ([1.0, 2.0], [3.0, 4.0]))
    optimizer = optim.GraphSAMRelease([first, second], SGD, beta=0.8, steps_per_epoch=9, loss_weighted=False)
    omegas: list[Tensor] = []
    optimizer.observers.append(lambda event: omegas.append(event.omega.get(second, torch.zeros(2)).clone()))
    for both in (False, True, True, False):

        def closure(both: bool = both) -> Tensor:
            loss = first.square().sum() + (second.square().sum() if both else 0)
            loss.backward()
            return loss.detach()

        optimizer.step(closure)
    expected = sum(0.2 * 0.8**age * omegas[s] / (omegas[s] + 1e-8).norm() for age, s in ((2, 1), (1, 2)))
    torch.testing.assert_close(optimizer.memory["eps"][second], expected)
