"""The gradient diagnostics give correct numbers and do not disturb training."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from molsam import optim
from molsam.diagnostics.gradients import GradientDiagnostics
from molsam.errors import ConfigError
from molsam.optim.schedules import Staircase
from tests.optim.problem import ADAM, SGD, Problem, small
from tests.reference import optim as twin

S = 12
ETA = 0.1


def rows_of(optimizer: optim.Optimizer, problem: Problem, steps: int, **settings: Any) -> list[dict[str, Any]]:
    diagnostics = GradientDiagnostics(**settings)
    optimizer.observers.append(diagnostics)
    problem.run(optimizer, steps)
    return diagnostics.drain()


def cos(u: twin.Theta, v: twin.Theta) -> float:
    return twin.dot(u, v) / twin.norm(u) / twin.norm(v)


def literal(problem: Problem) -> list[dict[str, float]]:
    """GraphSAM (beta 0.8, gamma 0.7) and what SAM would do at its points, by the definitions."""
    theta, L = problem.start, twin.network
    eps: twin.Theta = {}
    rows = []
    last: tuple[twin.Theta, twin.Theta] | None = None
    for s in range(S):
        epoch, t = divmod(s, 5)
        B, rho = problem.batches[t], 0.05 * 0.7**epoch
        true = L(theta, B)[1]
        sam = L(twin.add(theta, true, rho / twin.norm(true)), B)[1]
        eps = true if t == 0 else eps
        omega = L(twin.add(theta, eps, rho / twin.norm(eps)), B)[1]
        row = {"rho": rho, "eps_norm": twin.norm(eps), "omega_norm": twin.norm(omega)}
        if last is not None:
            row["eps_change"] = twin.norm(twin.add(eps, last[0], -1))
            row["omega_change"] = twin.norm(twin.add(omega, last[1], -1))
            row["cos_next"] = cos(eps, last[1])
        row |= {"true_norm": twin.norm(true), "cos_true": cos(eps, true)}
        row |= {"cos_sam_omega": cos(eps, sam), "cos_omega": cos(omega, sam)}
        rows.append(row)
        last = eps, omega
        eps = twin.add(twin.scale(eps, 0.8), omega, 0.2 / twin.norm(omega))
        theta = twin.descend(theta, ETA, omega)
    return rows


def test_every_number_is_the_defined_one() -> None:
    problem = Problem()
    optimizer = small(problem, optim.GraphSAM, beta=0.8, rho_schedule=Staircase(0.7))
    rows = rows_of(optimizer, problem, S, probe_every=1)
    for step, (ours, theirs) in enumerate(zip(rows, literal(problem), strict=True)):
        assert ours["step"] == step
        assert ours["epoch"] == step // 5
        for name, value in theirs.items():
            assert ours[name] == pytest.approx(value, rel=1e-10), name
    assert rows[0]["cos_next"] is None
    assert rows[0]["eps_change"] is None
    json.dumps(rows, allow_nan=False)


def test_the_summary_is_of_all_rows() -> None:
    problem = Problem()
    optimizer = small(problem, optim.SAM, rho=1.0)
    diagnostics = GradientDiagnostics(probe_every=4)
    optimizer.observers.append(diagnostics)
    problem.run(optimizer, S)
    rows = diagnostics.drain()
    assert diagnostics.drain() == []
    summary = diagnostics.summary()
    cosines = [row["cos_next"] for row in rows[1:]]
    assert summary["cos_next_mean"] == pytest.approx(np.mean(cosines))
    assert summary["consistent_share"] == np.mean([c >= 0 for c in cosines])
    assert 0 < float(summary["consistent_share"] or 0) < 1
    assert summary["cos_true_mean"] == pytest.approx(1.0)
    assert summary["probes"] == 3
    assert [row["step"] for row in rows if "cos_true" in row] == [0, 4, 8]
    assert GradientDiagnostics().summary()["consistent_share"] is None


def test_layers_are_the_parts_of_the_whole() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    x = torch.randn(8, 3, dtype=torch.float64)
    optimizer = optim.GraphSAM(model, SGD, steps_per_epoch=4)
    diagnostics = GradientDiagnostics(probe_every=2, per_layer=True)
    events: list[dict[str, Tensor]] = []

    def keep(event: optim.StepEvent) -> None:
        events.append({f"{kind} {i}": torch.cat([getattr(event, kind)[p].flatten() for p in model[i].parameters()])
                       .clone() for kind in ("eps", "omega") for i in (0, 2)})  # fmt: skip

    optimizer.observers += [keep, diagnostics]

    def closure() -> Tensor:
        loss = model(x).square().mean()
        loss.backward()
        return loss.detach()

    for _ in range(3):
        optimizer.step(closure)
    rows = diagnostics.drain()
    for t, row in enumerate(rows):
        assert list(row["layers"]) == ["0", "2"]
        whole = math.sqrt(sum(layer["eps_norm"] ** 2 for layer in row["layers"].values()))
        assert row["eps_norm"] == pytest.approx(whole)
        for i in (0, 2):
            layer = row["layers"][str(i)]
            assert layer["omega_norm"] == pytest.approx(float(events[t][f"omega {i}"].norm()))
            if t:
                a, b = events[t][f"eps {i}"], events[t - 1][f"omega {i}"]
                assert layer["cos_next"] == pytest.approx(float(a @ b / a.norm() / b.norm()))
                change = (events[t][f"omega {i}"] - b).norm()
                assert layer["omega_change"] == pytest.approx(float(change))
    assert "cos_true" in rows[2]["layers"]["0"]


class Noisy(nn.Module):
    """Dropout and BatchNorm, which a probe could disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 6), nn.BatchNorm1d(6)
        self.drop, self.last = nn.Dropout(0.4), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.drop(torch.relu(self.norm(self.first(x)))))


@pytest.mark.parametrize("same_noise", [False, True])
@pytest.mark.parametrize("method", [optim.Plain, optim.SAM, optim.GraphSAM, optim.LookSAM, optim.ESAM])
def test_training_is_the_same_bit_for_bit(method: Any, same_noise: bool) -> None:
    traces = []
    for settings in (None, {"probe_every": 0}, {"probe_every": 2, "per_layer": True}):
        torch.manual_seed(0)
        model = Noisy()
        x, y = torch.randn(20, 3), torch.randn(20, 1)
        optimizer = method(model, ADAM, steps_per_epoch=4, same_noise=same_noise)
        if settings is not None:
            optimizer.observers.append(GradientDiagnostics(**settings))

        def closure(model: Noisy = model, x: Tensor = x, y: Tensor = y) -> Tensor:
            loss = (model(x) - y).square().mean()
            loss.backward()
            return loss.detach()

        losses = [float(optimizer.step(closure)) for _ in range(9)]
        grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        weights = [t.double().flatten() for t in model.state_dict().values()]
        rng = torch.get_rng_state().double()
        counts = torch.tensor([optimizer.passes]).double()
        traces.append(torch.cat([torch.tensor(losses).double(), *map(torch.flatten, grads), *weights, rng, counts]))
        assert all(p.grad is not None for p in model.parameters())
    assert torch.equal(traces[0], traces[1])
    assert torch.equal(traces[0], traces[2])


def test_a_resume_goes_on_with_the_same_rows() -> None:
    whole, first = Problem(), Problem()
    rows = rows_of(small(whole, optim.GraphSAM), whole, 9, probe_every=2)
    optimizer = small(first, optim.GraphSAM)
    diagnostics = GradientDiagnostics(probe_every=2)
    optimizer.observers.append(diagnostics)
    first.run(optimizer, 4)
    diagnostics.drain()
    state = diagnostics.state_dict()
    fresh = GradientDiagnostics(probe_every=2)
    fresh.load_state_dict(state)
    optimizer.observers[:] = [fresh]
    first.run(optimizer, 5)
    assert fresh.drain() == rows[4:]
    assert fresh.summary()["probes"] == 5


def test_a_zero_gradient_has_no_cosine() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = optim.SAM([weight], SGD)
    diagnostics = GradientDiagnostics(probe_every=1)
    optimizer.observers.append(diagnostics)

    def closure() -> Tensor:
        loss = (weight * 0).sum()
        loss.backward()
        return loss.detach()

    optimizer.step(closure)
    optimizer.step(closure)
    row = diagnostics.drain()[1]
    assert row["eps_norm"] == 0.0
    assert row["cos_next"] is None
    assert row["cos_true"] is None


def test_a_probe_that_fails_leaves_the_training() -> None:
    problem = Problem()
    optimizer = small(problem, optim.GraphSAM)
    diagnostics = GradientDiagnostics(probe_every=1)
    optimizer.observers.append(diagnostics)
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        loss = problem()
        return loss * math.nan if calls > 2 else loss

    optimizer.step(closure)
    row = diagnostics.drain()[0]
    assert "cos_true" not in row
    assert optimizer.last is not None
    assert not optimizer.last.skipped


def test_a_negative_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match="probe_every"):
        GradientDiagnostics(probe_every=-1)
