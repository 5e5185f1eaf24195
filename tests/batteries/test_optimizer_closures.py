"""Every optimizer with closures that zero gradients, accumulate, fail or become non-finite, and with rho schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from molsam.errors import ConfigError, NumericalError
from tests.batteries.optimizers import NAMES, SHARP, N, Training, equal
from tests.paths import ROOT


@pytest.mark.parametrize("name", NAMES)
def test_a_closure_may_zero_in_place_or_not_at_all(name: str) -> None:
    plain, in_place, careless = Training(name), Training(name), Training(name)
    trace = plain.run(9)
    zero = torch.optim.Optimizer.zero_grad
    in_place.optimizer.zero_grad = (  # type: ignore[method-assign]
        lambda set_to_none=True: zero(in_place.optimizer, set_to_none=False)
    )
    assert equal(in_place.run(9), trace)
    careless.zero = False
    assert equal(careless.run(9), trace)


@pytest.mark.parametrize("name", NAMES)
def test_a_closure_may_accumulate(name: str) -> None:
    """Two micro-batches give the step of one batch (without BatchNorm, which sees batches)."""

    def halves(training: Training) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            training.optimizer.zero_grad()
            parts = [training.losses(part).mean() / 2 for part in (torch.arange(3), torch.arange(3, 6))]
            for part in parts:
                part.backward()
            return torch.stack([part.detach() for part in parts]).sum()

        return closure

    traces: list[Tensor] = []
    for accumulate in (False, True):
        training = Training(name)
        training.model.norm.eval()
        for step in range(6):
            training.step = step
            training.optimizer.step(halves(training) if accumulate else training)
        traces.append(torch.cat([p.detach().flatten() for p in training.model.parameters()]))
    torch.testing.assert_close(traces[0], traces[1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_is_refused_or_skipped(name: str) -> None:
    for choice in ("raise", "skip"):
        training = Training(name, nonfinite=choice)
        training.run(3)
        before = [p.detach().clone() for p in training.model.parameters()]
        good = training.data[3]
        training.data[3] = (good[0], good[1] * torch.nan)
        if choice == "raise":
            with pytest.raises(NumericalError, match="not finite"):
                training.run(1)
        else:
            training.run(1)
            assert training.optimizer.last is not None
            assert training.optimizer.last.skipped
        assert all(torch.equal(a, b) for a, b in zip(before, training.model.parameters(), strict=True))
        training.data[3] = good
        assert all(trace.isfinite().all() for trace in training.run(6))
        assert training.optimizer.last is not None
        assert not training.optimizer.last.skipped


class OutOfMemory(RuntimeError):  # noqa: N818 - its torch namesake
    """What a closure may fail with."""


def step_succeeds(training: Training, closure: Callable[[], Tensor]) -> bool:
    """Whether the step was made before the closure failed."""
    try:
        training.optimizer.step(closure)
    except OutOfMemory:
        return False
    return True


@pytest.mark.parametrize("name", NAMES)
def test_a_failing_closure_leaves_the_weights(name: str) -> None:
    training = Training(name)
    training.run(5)
    before = [p.detach().clone() for p in training.model.parameters()]

    def failing(good: int) -> Iterator[None]:
        for _ in range(good):
            yield None
        raise OutOfMemory

    for good in (0, 1):
        calls = failing(good)

        def closure(calls: Iterator[None] = calls) -> Tensor:
            next(calls)
            return training()

        while step_succeeds(training, closure):
            before = [p.detach().clone() for p in training.model.parameters()]
        assert all(torch.equal(a, b) for a, b in zip(before, training.model.parameters(), strict=True))
        assert training.model.norm.track_running_stats


@pytest.mark.parametrize("schedule", sorted(p.stem for p in (ROOT / "conf" / "rho_schedule").glob("*.yaml")))
@pytest.mark.parametrize("name", SHARP)
def test_every_rho_schedule_fits_every_optimizer(name: str, schedule: str) -> None:
    if name.endswith("_release") and schedule == "cosine":
        with pytest.raises(ConfigError, match="released code multiplies rho"):
            Training(name, schedule=schedule)
        return
    training = Training(name, schedule=schedule, rho=0.08)
    rhos = []
    for _ in range(3 * N):
        training.run(1)
        assert training.optimizer.last is not None
        rhos.append(training.optimizer.last.rho)
    assert rhos[0] == 0.08
    assert all(len(set(rhos[i : i + N])) == 1 for i in range(0, 3 * N, N))
    assert (rhos[-1] == 0.08) == (schedule == "constant")
