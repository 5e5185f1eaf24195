"""ESAM: which tensors it perturbs, and which samples it selects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from molsam import optim
from molsam.errors import ConfigError
from tests.optim.problem import SGD, Problem, scalar, small


def test_esam_refuses_a_closure_without_single_losses() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer = optim.ESAM([weight], SGD, beta=1.0, gamma=0.5)
    with pytest.raises(ConfigError, match="no method losses"):
        optimizer.step(lambda: weight.sum())


def test_esam_selects_without_touching_batch_norm() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.randn(10, 3)
    optimizer = optim.ESAM(model, SGD, beta=1.0, gamma=0.5)
    sizes: list[int] = []

    class Selecting:
        def losses(self, select: Tensor | None = None) -> Tensor:
            chosen = x if select is None else x[select]
            sizes.append(len(chosen))
            return (model(chosen) - 1).square().mean(1)

        def __call__(self) -> Tensor:
            raise AssertionError("the losses are used instead")

    for _ in range(3):
        optimizer.step(Selecting())
    assert sizes == [10, 10, 5] * 3
    norm = model[1]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.num_batches_tracked == 3


def test_esam_may_choose_only_what_the_loss_does_not_reach() -> None:
    """A backward pass to unused parameters alone would fail; such a step is a plain one."""
    used, unused = nn.Parameter(torch.ones(2)), [nn.Parameter(torch.ones(1)) for _ in range(6)]
    optimizer = optim.ESAM([used, *unused], SGD, beta=0.4)
    passes = []
    for _ in range(30):
        optimizer.step(lambda: scalar(used))
        assert optimizer.last is not None
        passes.append(optimizer.last.passes)
    assert 5 < sum(p == 1 for p in passes) < 25
    assert all(torch.equal(p, torch.ones(1)) for p in unused)


def test_esam_may_choose_only_what_the_loss_reaches_now_and_then() -> None:
    always, rare = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    optimizer = optim.ESAM([always, rare], SGD, beta=0.5)
    for step in range(40):

        def closure(scale: Any = rare if step > 9 and step % 2 else 1.0) -> Tensor:
            loss = (always * scale).square().sum()
            loss.backward()
            return loss.detach()

        optimizer.step(closure)
    assert optimizer.steps == 40


def test_esam_says_so_if_the_loss_leaves_what_it_chose() -> None:
    always, once = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(1))
    optimizer = optim.ESAM([always, once], SGD, beta=0.5, seed=1)

    def closure() -> Tensor:
        loss = (always * (once if optimizer.steps < 10 else 1.0)).square().sum()
        loss.backward()
        return loss.detach()

    for _ in range(10):
        optimizer.step(closure)
    with pytest.raises(ConfigError, match=r"on which the loss of this batch does not depend; use optimizer\.beta=1"):
        list(map(optimizer.step, [closure] * 50))
    assert always.requires_grad


def test_esam_spares_the_gradients_of_tensors_it_does_not_choose() -> None:
    problem = Problem()
    optimizer = small(problem, optim.ESAM, beta=0.5, seed=1)
    counts: list[int] = []

    def closure() -> Tensor:
        loss = problem()
        counts.append(sum(p.grad is not None for p in problem.params.values()))
        return loss

    for _ in range(8):
        optimizer.step(closure)
        problem.step += 1
    assert counts[:2] == [4, 4]
    assert min(counts) < 4


def test_esam_counts_samples_as_the_closure_does() -> None:
    """A molecule of many labels counts as much in the selected part as it does in the whole batch."""
    weight = nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64))
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    labels = torch.tensor([1.0, 12.0, 3.0, 5.0], dtype=torch.float64)

    class Labelled:
        def losses(self, select: Tensor | None = None) -> Tensor:
            return ((x if select is None else x[select]) @ weight).square()

        def weights(self, select: Tensor | None = None) -> Tensor:
            return labels if select is None else labels[select]

        def __call__(self) -> Tensor:
            raise AssertionError("the losses are used instead")

    def gradient(at: Tensor, rows: list[int]) -> Tensor:
        return 2 * (labels[rows] * (x[rows] @ at)) @ x[rows] / labels[rows].sum()

    start = weight.detach().clone()
    g = gradient(start, [0, 1, 2, 3])
    displaced = start + 0.1 * g / g.norm()
    rise = (x @ displaced).square() - (x @ start).square()
    chosen = rise.topk(2).indices.tolist()
    optimizer = optim.ESAM([weight], SGD, rho=0.1, beta=1.0, gamma=0.5)
    loss = optimizer.step(Labelled())
    torch.testing.assert_close(loss, (labels * (x @ start).square()).sum() / labels.sum())
    torch.testing.assert_close(weight.detach(), start - 0.1 * gradient(displaced, chosen))
