"""Each optimizer equals its literal twin, in float64 to 1e-12, and makes exactly its passes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from molsam import optim
from molsam.optim.schedules import Staircase
from tests.optim.problem import SGD, Problem, small
from tests.reference import optim as twin

S = 23
ETA = 0.1


@pytest.fixture(params=[0, 1])
def problem(request: pytest.FixtureRequest) -> Problem:
    return Problem(request.param)


@pytest.mark.parametrize(("K", "lam"), [(1, 1), (2, 1), (3, 2), (None, 1)])
def test_graphsam_k(problem: Problem, K: int | None, lam: int) -> None:
    optimizer = small(problem, optim.GraphSAM, beta=0.8, reanchor_epochs=K, rho_schedule=Staircase(0.7, lam))
    passes = problem.compare(
        optimizer,
        twin.graphsam_k(problem.start, twin.network, problem.batches, S, ETA, 0.05, 0.8, 0.7, lam, K),
    )
    period = 5 * K if K else S
    assert sum(passes) == S + -(-S // period)
    assert [p == 2 for p in passes] == [s % period == 0 for s in range(S)]


@pytest.mark.parametrize("k", [1, 4])
def test_looksam(problem: Problem, k: int) -> None:
    optimizer = small(problem, optim.LookSAM, rho=0.1, k=k, alpha=0.7)
    passes = problem.compare(optimizer, twin.looksam(problem.start, twin.network, problem.batches, S, ETA, 0.1, k, 0.7))
    assert sum(passes) == S + -(-S // k)


@pytest.mark.parametrize("total", [S, 10 * S])
def test_aesam(problem: Problem, total: int) -> None:
    taken: list[bool] = []
    optimizer = small(problem, optim.AESAM, rho=0.1, total_steps=total, delta=0.8, lambda_1=-0.5, lambda_2=0.5)
    passes = problem.compare(
        optimizer,
        twin.aesam(problem.start, twin.network, problem.batches, S, ETA, 0.1, 0.8, -0.5, 0.5, total, taken),
    )
    assert [p == 2 for p in passes] == taken
    assert taken[0]
    assert 1 < sum(taken) < S


@pytest.mark.parametrize("gamma", [1.0, 2.0, 0.4])
def test_rst(problem: Problem, gamma: float) -> None:
    generator = torch.Generator().manual_seed(3)
    trials = [float(torch.rand((), generator=generator, dtype=torch.float64)) < 0.5 for _ in range(S)]
    optimizer = small(problem, optim.RST, rho=0.1, p=0.5, gamma=gamma, seed=3)
    passes = problem.compare(
        optimizer, twin.grst(problem.start, twin.network, problem.batches, S, ETA, 0.1, trials, gamma)
    )
    assert [p == 2 for p in passes] == trials
    assert 5 < sum(trials) < S - 5


@pytest.mark.parametrize("eta", [0.0, 0.01, 0.3])
def test_asam(problem: Problem, eta: float) -> None:
    optimizer = small(problem, optim.ASAM, rho=0.5, eta=eta)
    passes = problem.compare(optimizer, twin.asam(problem.start, twin.network, problem.batches, S, ETA, 0.5, eta))
    assert passes == [2] * S


def test_gsam(problem: Problem) -> None:
    optimizer = small(problem, optim.GSAM, rho=0.1, alpha=0.4)
    passes = problem.compare(optimizer, twin.gsam(problem.start, twin.network, problem.batches, S, ETA, 0.1, 0.4))
    assert passes == [2] * S


@pytest.mark.parametrize("sigma", [1.0, 0.5])
def test_friendly_sam(problem: Problem, sigma: float) -> None:
    optimizer = small(problem, optim.FriendlySAM, rho=0.1, sigma=sigma, lam=0.8)
    passes = problem.compare(
        optimizer, twin.fsam(problem.start, twin.network, problem.batches, S, ETA, 0.1, sigma, 0.8)
    )
    assert passes == [2] * S


@pytest.mark.parametrize(("beta", "gamma"), [(1.0, 1.0), (0.5, 1.0), (0.5, 0.5), (0.1, 0.3)])
def test_esam(problem: Problem, beta: float, gamma: float) -> None:
    generator = torch.Generator().manual_seed(1)
    masks = []
    for _ in range(S):
        draws = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        masks.append(dict(zip(problem.params, (draw < beta for draw in draws), strict=True)))
    optimizer = small(problem, optim.ESAM, beta=beta, gamma=gamma, seed=1)
    passes = problem.compare(
        optimizer,
        twin.esam(problem.start, twin.network, problem.batches, S, ETA, 0.05, beta, gamma, masks),
    )
    assert passes == [2 if any(mask.values()) else 1 for mask in masks]
    assert all(p.requires_grad for p in problem.params.values())


SWITCHES = (
    "cumulative_rho",
    "adaptive",
    "clip_per_tensor",
    "zeroed_norm",
    "normalize_per_tensor",
    "first_group_only",
    "loss_weighted",
)


@pytest.mark.parametrize("off", [(), *[(name,) for name in SWITCHES], SWITCHES[2:5], SWITCHES[:4]])
def test_graphsam_release(problem: Problem, off: tuple[str, ...]) -> None:
    on = {name: name not in off for name in SWITCHES}
    groups = [["W1", "b1"], ["W2", "b2"]]
    if not on["clip_per_tensor"] and on["zeroed_norm"]:
        pytest.skip("a displacement of rho / 1e-12 has no meaning")
    optimizer = optim.GraphSAMRelease(
        [{"params": [problem.params[n] for n in group]} for group in groups],
        SGD,
        beta=0.8,
        radius=0.04,
        steps_per_epoch=5,
        rho_schedule=Staircase(0.7, 2),
        **on,
    )
    problem.compare(
        optimizer,
        twin.graphsam_release(
            problem.start, twin.network, problem.batches, S, ETA, 0.05, 0.04, 0.8, 0.7, 2, on, groups
        ),
    )


@pytest.mark.parametrize(("adaptive", "loss_weighted"), [(True, True), (False, True), (True, False)])
def test_sam_release(problem: Problem, adaptive: bool, loss_weighted: bool) -> None:
    optimizer = small(
        problem,
        optim.SAMRelease,
        radius=0.04,
        rho_schedule=Staircase(0.7, 1),
        adaptive=adaptive,
        loss_weighted=loss_weighted,
    )
    passes = problem.compare(
        optimizer,
        twin.sam_release(
            problem.start, twin.network, problem.batches, S, ETA, 0.05, 0.04, 0.7, adaptive, loss_weighted
        ),
    )
    assert passes == [2] * S


@pytest.mark.parametrize("make", [optim.GraphSAMRelease, optim.SAMRelease])
def test_a_closure_may_weight_its_gradient_itself(problem: Problem, make: Any) -> None:
    """The updating pass then is `weighted`, the others are plain, and the result is the same."""
    other = copy.deepcopy(problem)
    calls: list[str] = []

    class Weighting:
        def __call__(self) -> torch.Tensor:
            calls.append("plain")
            return other()

        def weighted(self) -> torch.Tensor:
            calls.append("weighted")
            loss = other.losses().mean()
            loss.backward(loss.detach())
            return loss.detach()

    optimizer = small(other, make)
    passes = problem.run(small(problem, make), S)
    for step in range(S):
        other.step = step
        optimizer.step(Weighting())
    assert calls == [call for p in passes for call in ("plain", "weighted")[-p:]]
    for name, value in problem.values().items():
        assert abs(value - other.values()[name]).max() < 1e-13


@pytest.mark.parametrize("beta", [0.0, 0.1, 1.0])
def test_the_average_of_the_release_with_any_beta(problem: Problem, beta: float) -> None:
    """eps is held as a multiple of a tensor, which takes the factor over where beta^t gets small."""
    on: dict[str, Any] = dict.fromkeys(SWITCHES, True)
    settings: dict[str, Any] = {"beta": beta, "radius": 0.04, "rho_schedule": Staircase(0.7, 2)}
    optimizer = small(problem, optim.GraphSAMRelease, **settings)
    groups = [list(problem.start)]
    theirs = twin.graphsam_release(
        problem.start, twin.network, problem.batches, S, ETA, 0.05, 0.04, beta, 0.7, 2, on, groups
    )
    problem.compare(optimizer, theirs)


def test_release_with_all_switches_off_is_graphsam(problem: Problem) -> None:
    other = Problem()
    other.batches = problem.batches
    for name, parameter in other.params.items():
        parameter.data.copy_(problem.params[name].data)
    off: dict[str, Any] = dict.fromkeys(SWITCHES, False)
    problem.run(small(problem, optim.GraphSAMRelease, **off), S)
    other.run(small(other, optim.GraphSAM), S)
    for name, value in problem.values().items():
        assert abs(value - other.values()[name]).max() < 1e-13
