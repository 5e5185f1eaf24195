"""Sharpness and landscapes against dense Hessians of small networks and closed forms."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from molsam.diagnostics.landscape import filter_normalised, landscape_1d, landscape_2d
from molsam.diagnostics.sharpness import ball_sharpness, top_eigenvalues, trace
from molsam.diagnostics.surface import Surface


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 1))


def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(n, 3, generator=generator).double(), torch.randn(n, 1, generator=generator).double())
        for n in (7, 4)
    ]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, float]:
    x, y = batch
    return (model(x) - y).square().mean(), len(x)


def dense_hessian(surface: Surface) -> np.ndarray:
    """By automatic differentiation, twice, of the mean over all samples."""
    names = [name for name, p in surface.model.named_parameters() if p.requires_grad]
    shapes = [p.shape for p in surface.parameters]
    x, y = (torch.cat(parts) for parts in zip(*batches(), strict=True))

    def value(flat: Tensor) -> Tensor:
        parts = flat.split([s.numel() for s in shapes])
        weights = {n: p.view(s) for n, p, s in zip(names, parts, shapes, strict=True)}
        return (torch.func.functional_call(surface.model, weights, (x,)) - y).square().mean()

    return torch.autograd.functional.hessian(value, torch.tensor(surface.theta)).numpy()  # type: ignore[union-attr]


@pytest.fixture(params=[0, 3])
def surface(request: pytest.FixtureRequest) -> Surface:
    return Surface(network(request.param), batches(), loss)


class Bowl(nn.Module):
    """L = theta' A theta / 2 around its minimum at 0, the weights at `at`."""

    def __init__(self, curvatures: list[float], at: list[float]) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([at]))
        self.a = torch.tensor(curvatures).double()

    def forward(self) -> Tensor:
        return (self.a * self.theta**2).sum() / 2


def bowl(curvatures: list[float], at: list[float]) -> Surface:
    return Surface(Bowl(curvatures, at), [None], lambda model, _: (model(), 1.0))


def test_loss_and_gradient_are_means_over_all_samples(surface: Surface) -> None:
    x, y = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    whole = (surface.model(x) - y).square().mean()
    grads = torch.autograd.grad(whole, surface.parameters)
    assert surface.value(surface.theta) == pytest.approx(whole.item(), rel=1e-12)
    flat = np.concatenate([g.numpy().ravel() for g in grads])
    np.testing.assert_allclose(surface.gradient(surface.theta), flat, atol=1e-12)


def test_hessian_products(surface: Surface) -> None:
    hessian = dense_hessian(surface)
    rng = np.random.default_rng(0)
    for size in (1.0, 1e-3, 1e3):
        v = size * rng.normal(size=surface.size)
        product = surface.hessian_product(surface.theta, v)
        np.testing.assert_allclose(product, hessian @ v, atol=1e-7 * size * np.abs(hessian).max())
    assert not surface.hessian_product(surface.theta, np.zeros(surface.size)).any()


def test_top_eigenvalues(surface: Surface) -> None:
    exact = np.linalg.eigvalsh(dense_hessian(surface))[::-1]
    np.testing.assert_allclose(top_eigenvalues(surface, 3), exact[:3], rtol=1e-4)


def test_trace(surface: Surface) -> None:
    exact = np.trace(dense_hessian(surface))
    estimate, error = trace(surface, samples=400)
    assert abs(estimate - exact) < 4 * error
    assert error < 0.2 * abs(exact)
    # Of a diagonal Hessian every sample is exact.
    assert trace(bowl([1.0, 5.0], [1.0, 2.0]), samples=2) == pytest.approx((6.0, 0.0), abs=1e-6)


def test_ball_sharpness_of_a_bowl() -> None:
    """At the minimum the rise is rho^2 lambda_max / 2, where SAM's first-order estimate is 0."""
    rise = ball_sharpness(bowl([1.0, 4.0, 10.0], [0.0, 0.0, 0.0]), rho=0.3, steps=60)
    assert rise.first_order == 0.0
    assert rise.maximum == pytest.approx(0.09 * 10 / 2, rel=1e-6)
    # Beside it, along the steepest axis, SAM's direction is the best one.
    rise = ball_sharpness(bowl([1.0, 4.0], [0.0, 1.0]), rho=0.5)
    assert rise.first_order == pytest.approx(4 * (1.5**2 - 1) / 2, rel=1e-12)
    assert rise.maximum == pytest.approx(rise.first_order, rel=1e-12)


def test_ball_sharpness_is_no_less_than_random_search(surface: Surface) -> None:
    start = surface.value(surface.theta)
    rng = np.random.default_rng(0)
    rises = []
    for _ in range(200):
        e = rng.normal(size=surface.size)
        rises.append(surface.value(surface.theta + 0.1 * e / np.linalg.norm(e)) - start)
    rise = ball_sharpness(surface, 0.1)
    assert rise.maximum >= max(rises)
    assert rise.maximum >= rise.first_order > 0


def test_directions_have_the_norms_of_the_filters(surface: Surface) -> None:
    direction = filter_normalised(surface, np.random.default_rng(0))
    start = 0
    for parameter in surface.parameters:
        part = direction[start : start + parameter.numel()].reshape(parameter.shape)
        start += parameter.numel()
        if parameter.ndim < 2:
            assert not part.any()
        else:
            weights = parameter.detach().numpy()
            np.testing.assert_allclose(np.linalg.norm(part, axis=1), np.linalg.norm(weights, axis=1))
    assert abs(np.corrcoef(direction, filter_normalised(surface, np.random.default_rng(1)))[0, 1]) < 0.9


def test_landscapes(surface: Surface) -> None:
    phis = [-0.5, 0.0, 1.0]
    lines = landscape_1d(surface, phis, directions=2)
    assert lines.shape == (2, 3)
    np.testing.assert_allclose(lines[:, 1], surface.value(surface.theta))
    rng = np.random.default_rng(0)
    d, e = filter_normalised(surface, rng), filter_normalised(surface, rng)
    assert lines[1, 2] == surface.value(surface.theta + e)
    assert lines[0, 0] == surface.value(surface.theta - 0.5 * d)
    plane = landscape_2d(surface, [0.0, 0.5], [0.0, -1.0, 2.0])
    assert plane.shape == (2, 3)
    assert plane[1, 2] == surface.value(surface.theta + 0.5 * d + 2 * e)


def test_the_model_is_not_touched() -> None:
    model = network()
    model(torch.randn(9, 3)).sum().backward()
    before = copy.deepcopy(model.state_dict())
    grads: list[Any] = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    noise = torch.get_rng_state()
    surface = Surface(model, batches(), loss)
    top_eigenvalues(surface)
    ball_sharpness(surface, 0.1)
    landscape_1d(surface, [0.5])
    assert model.training
    assert torch.equal(noise, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True) if p.grad is not None)
