"""Norms, activations, reductions over molecules and over the bonds of atoms."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from molsam.errors import ConfigError
from molsam.models.layers.activation import activation
from molsam.models.layers.mish import Mish
from molsam.models.layers.norm import LayerNorm, ScaleNorm, norm_layer
from molsam.models.layers.padding import pad
from molsam.models.layers.segment import segment_max, segment_mean, segment_sum
from tests.reference.derivatives import check_derivatives


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def _scale_norm(x: Tensor, gain: Tensor) -> Tensor:
    return torch.stack([row * gain / max(float(row.detach().norm()), 1e-5) for row in x])


def _layer_norm(x: Tensor, gains: Tensor, shifts: Tensor) -> Tensor:
    rows = []
    for row in x:
        s = ((row - row.mean()).square().sum() / (len(row) - 1)).sqrt()
        rows.append(gains * (row - row.mean()) / (s + 1e-6) + shifts)
    return torch.stack(rows)


@pytest.mark.parametrize("module", [ScaleNorm(5), LayerNorm(5), Mish()])
def test_gradients_once_and_twice(module: nn.Module) -> None:
    torch.manual_seed(0)
    module = module.double()
    names = [name for name, _ in module.named_parameters()]
    for p in module.parameters():
        p.data += torch.randn_like(p)

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, weights, strict=True)), (x,))

    inputs = (_random(4, 5), *module.parameters())
    check_derivatives(run, inputs)


def test_norms_equal_their_formulas() -> None:
    torch.manual_seed(0)
    x = _random(6, 5)
    gain, gains, shifts = _random(1)[0].detach(), _random(5).detach(), _random(5).detach()
    scale, layer = ScaleNorm(5).double(), LayerNorm(5).double()
    assert float(scale.gain.detach()) == pytest.approx(math.sqrt(5))
    scale.gain.data.copy_(gain)
    layer.gains.data.copy_(gains)
    layer.shifts.data.copy_(shifts)
    torch.testing.assert_close(scale(x), _scale_norm(x, gain))
    torch.testing.assert_close(layer(x), _layer_norm(x, gains, shifts), rtol=1e-12, atol=1e-13)


def test_a_norm_after_mish_and_what_it_is_added_to() -> None:
    torch.manual_seed(0)
    norm, x, base = ScaleNorm(5).double(), _random(4, 5), _random(4, 5)
    expected = base + _scale_norm(F.mish(x), norm.gain.detach())
    torch.testing.assert_close(norm.after_mish(x, base), expected)

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = norm

        def forward(self, x: Tensor, base: Tensor) -> Tensor:
            return self.norm.after_mish(x, base)

    def run(x: Tensor, base: Tensor, gain: Tensor) -> Tensor:
        return functional_call(Residual(), {"norm.gain": gain}, (x, base))

    check_derivatives(run, (x, base, torch.tensor(1.5, dtype=torch.float64, requires_grad=True)))


def test_norms_of_rows_without_length_or_spread() -> None:
    for module, rows in ((ScaleNorm(4), [[0.0] * 4, [1e-7, 0, 0, 0]]), (LayerNorm(4), [[0.0] * 4, [2.0] * 4])):
        x = torch.tensor(rows, requires_grad=True)
        module(x).sum().backward()
        assert x.grad is not None
        assert bool(x.grad.isfinite().all())
    tiny = torch.tensor([[1e-7, 0, 0, 0]], requires_grad=True)
    (ScaleNorm(4)(tiny) * torch.tensor([1.0, 2, 3, 4])).sum().backward()
    torch.testing.assert_close(tiny.grad, 2e5 * torch.tensor([[1.0, 2, 3, 4]]))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="norm='batch'"):
        norm_layer("batch", 4)
    with pytest.raises(ConfigError, match="activation='sine'"):
        activation("sine")


def test_mish_is_torchs_also_far_out() -> None:
    x = torch.tensor([-1e4, -100, -30, -5, -0.5, 0, 0.5, 5, 30, 100, 1e4], dtype=torch.float64)
    x = torch.cat([x, torch.linspace(-40, 40, 9000, dtype=torch.float64)])  # more than C takes at a time
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    torch.testing.assert_close(Mish()(ours), F.mish(theirs), rtol=1e-14, atol=0)
    Mish()(ours).sum().backward()
    F.mish(theirs).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("ReLU", torch.relu),
        ("leakyrelu", lambda x: F.leaky_relu(x, 0.1)),
        ("PReLU", lambda x: F.leaky_relu(x, 0.25)),
        ("tanh", torch.tanh),
        ("SELU", torch.selu),
        ("ELU", F.elu),
        ("mish", F.mish),
        ("gelu", F.gelu),
    ],
)
def test_activations_by_name(name: str, function) -> None:
    x = torch.linspace(-3, 3, 13)
    torch.testing.assert_close(activation(name)(x), function(x))


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 5), min_size=1, max_size=5))
def test_reductions_over_molecules(seed: int, sizes: list[int]) -> None:
    torch.manual_seed(seed)
    index = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    x = _random(sum(sizes), 3).detach()
    parts = x.split(sizes)
    zero = torch.zeros(3, dtype=torch.float64)
    for function, one in (
        (segment_sum, lambda p: p.sum(0)),
        (segment_max, lambda p: p.max(0).values),
    ):
        expected = torch.stack([one(p) if len(p) else zero for p in parts])
        torch.testing.assert_close(function(x, index, len(sizes)), expected)
    full = torch.tensor([size + 1 for size in sizes])
    x, index = _random(int(full.sum()), 3).detach(), torch.arange(len(full)).repeat_interleave(full)
    expected = torch.stack([part.mean(0) for part in x.split(full.tolist())])
    torch.testing.assert_close(segment_mean(x, index, full), expected)


@pytest.mark.parametrize("function", [segment_sum, segment_max])
def test_reductions_have_two_derivatives(function) -> None:
    torch.manual_seed(0)
    index, x = torch.tensor([0, 0, 0, 2, 2]), _random(5, 2)
    check_derivatives(lambda x: function(x, index, 3), (x,))


def test_equal_maxima_share_the_gradient() -> None:
    x = torch.tensor([[1.0, 5.0], [2.0, 5.0], [2.0, 4.0], [7.0, 5.0]], requires_grad=True)
    segment_max(x, torch.tensor([0, 0, 0, 1]), 2).backward(torch.tensor([[6.0, 8.0], [1.0, 2.0]]))
    assert x.grad is not None
    assert x.grad.tolist() == [[0.0, 4.0], [3.0, 4.0], [3.0, 0.0], [1.0, 2.0]]


def test_padding_puts_zero_rows_after_each_molecule() -> None:
    x = torch.arange(1.0, 5)[:, None]
    padded, rows = pad(x, torch.tensor([1, 3]), 3)
    assert padded[:, 0].tolist() == [1, 0, 0, 2, 3, 4]
    assert rows.tolist() == [0, 3, 4, 5]
