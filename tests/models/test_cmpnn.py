"""CMPNN against its equations atom by atom, and what it depends on."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from molsam.data.batch import MoleculeBatch
from molsam.data.packed import PackedMolecules
from molsam.errors import ConfigError
from molsam.models.api import DataSpec
from molsam.models.cmpnn import CMPNN
from tests.reference.gru import gru
from tests.reference.molecules import random_molecules

SIZES = [5, 1, 9, 2]


def _model(packed: PackedMolecules, seed: int = 0, **settings: Any) -> CMPNN:
    torch.manual_seed(seed)
    spec = DataSpec(packed.nodes.shape[1], packed.edge_table.shape[1], 2, packed.max_atoms)
    model = CMPNN(spec, **{"hidden_size": 4, "ffn_hidden_size": 6} | settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter += 0.3 * torch.randn_like(parameter)
    return model


def _batch(packed: PackedMolecules, rows: Any = None) -> MoleculeBatch:
    return packed.batch(range(len(packed)) if rows is None else rows).to(dtype=torch.float64)


def _literal(model: CMPNN, batch: MoleculeBatch) -> Tensor:
    """The docstring's equations, one atom and one bond at a time; `padded` as the release reads a batch."""
    act, entering = model.activation, [batch.dst == v for v in range(len(batch.nodes))]
    most = max([int(e.sum()) for e in entering])

    def booster(b: Tensor) -> Tensor:
        rows = []
        for e in entering:
            own = b[e]
            if not len(own) or (model.padded and len(own) < most):
                own = torch.cat([own, torch.zeros_like(b[:1]) if len(b) else b.new_zeros(1, b.shape[1])])
            rows.append(own.sum(0) * own.max(0).values)
        return torch.stack(rows)

    a = a0 = act(model.atom_input(batch.nodes))
    b = b0 = act(model.bond_input(torch.cat([batch.nodes[batch.src], batch.edges], dim=1)))
    for W in model.messages:
        a = a + booster(b)
        b = act(b0 + W(a[batch.src] - b[batch.rev]))
    x = model.communicate(torch.cat([booster(b), a, a0], dim=1))
    parts, weights = x.split(batch.sizes.tolist()), list(model.gru.parameters())
    vectors = []
    for part in parts:
        message = F.relu(part + model.gru_bias)
        if model.padded:
            message = F.pad(message, (0, 0, 0, batch.max_size - len(part)))
        states = gru(message, [len(message)], part.max(0).values[None], weights)[: len(part)]
        vectors.append(act(model.output(states)).mean(0))
    y = model.head[0](torch.stack(vectors))
    for linear in list(model.head)[1:]:
        y = linear(model.head_activation(y))
    return y


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 8), min_size=1, max_size=4),
    activation=st.sampled_from(["relu", "tanh", "elu", "prelu"]),
    bias=st.booleans(),
    padding=st.sampled_from(["exact", "reference"]),
    depth=st.integers(1, 4),
    ffn_layers=st.integers(1, 3),
    node_types=st.sampled_from([None, 1, 3]),
)
def test_equals_the_equations(
    seed: int,
    sizes: list[int],
    activation: str,
    bias: bool,
    padding: str,
    depth: int,
    ffn_layers: int,
    node_types: int | None,
) -> None:
    packed = random_molecules(seed, sizes, node_types=node_types)
    settings = {"activation": activation, "bias": bias, "padding": padding, "depth": depth}
    model = _model(packed, seed, ffn_layers=ffn_layers, **settings)
    batch, parameters = _batch(packed), list(model.parameters())
    ours, theirs = model(batch).logits[0], _literal(model, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    gradients = [
        torch.autograd.grad(out.square().sum(), parameters, allow_unused=True, materialize_grads=True)
        for out in (ours, theirs)
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_exact_mode_reads_each_molecule_alone(activation: str) -> None:
    packed = random_molecules(4, SIZES)
    exact, padded = (_model(packed, activation=activation, padding=p) for p in ("exact", "reference"))
    together = exact(_batch(packed)).logits[0]
    alone = torch.cat([exact(_batch(packed, [i])).logits[0] for i in range(len(SIZES))])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-13)
    assert not torch.allclose(padded(_batch(packed)).logits[0], together)


def test_can_be_differentiated_twice() -> None:
    packed = random_molecules(5, [4, 3])
    model = _model(packed, activation="tanh", hidden_size=3)
    batch, parameters = _batch(packed), list(model.parameters())

    def gradient(create_graph: bool = False) -> tuple[Tensor, ...]:
        return torch.autograd.grad(model(batch).logits.square().sum(), parameters, create_graph=create_graph)

    directions = [torch.randn_like(p) for p in parameters]
    along = torch.stack([(g * v).sum() for g, v in zip(gradient(True), directions, strict=True)]).sum()
    product = torch.autograd.grad(along, parameters)
    shifted = []
    for step in (1e-6, -2e-6):
        torch._foreach_add_([p.data for p in parameters], directions, alpha=step)
        shifted.append(gradient())
    for h, up, down in zip(product, *shifted, strict=True):
        torch.testing.assert_close(h, (up - down) / 2e-6, rtol=1e-4, atol=1e-4)


def test_parameter_count_is_the_releases_without_the_dead_linear() -> None:
    h, f, nodes, edges = 4, 6, 7, 5
    model = _model(random_molecules(0, SIZES), depth=3)
    gru_parameters = 2 * (2 * 3 * h * h + 2 * 3 * h)
    inputs = nodes * h + (nodes + edges) * h
    expected = inputs + 2 * h * h + 3 * h * h + (2 * h * h + h) + gru_parameters + h + (h * f + f) + (2 * f + 2)
    assert sum(p.numel() for p in model.parameters()) == expected
    named = {k: v.detach() for k, v in model.to_reference(dict(model.named_parameters())).items()}
    assert {"encoder.encoder.gru.bias", "encoder.encoder.gru.gru.bias_hh_l0_reverse", "ffn.4.bias"} <= named.keys()
    dead = {"encoder.encoder.W_h_atom.weight": torch.zeros(h, nodes + h)}
    assert model.from_reference(named | dead).keys() == model.state_dict().keys()


@pytest.mark.parametrize("ffn_layers", [1, 2, 4])
def test_the_head_has_one_slope_if_it_has_a_hidden_layer(ffn_layers: int) -> None:
    """The release repeats it after every layer in its state dict, and has none without one."""
    packed = random_molecules(0, SIZES)
    model = _model(packed, ffn_layers=ffn_layers, activation="prelu")
    model(_batch(packed)).logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    named = {k: v.detach() for k, v in model.to_reference(dict(model.named_parameters())).items()}
    assert ("ffn.2.weight" in named) == (ffn_layers > 1)
    repeated = {f"ffn.{3 * i + 2}.weight": torch.zeros(1) for i in range(1, ffn_layers - 1)}
    model.load_state_dict(model.from_reference(named | repeated))


def test_every_parameter_is_reached_and_starts_as_published() -> None:
    packed = random_molecules(6, SIZES)
    model = _model(packed)
    model(_batch(packed)).logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    fresh = CMPNN(DataSpec(7, 5, 2, 9), hidden_size=300)
    assert not any(bool(p.any()) for p in fresh.parameters() if p.ndim == 1)
    weight = fresh.communicate.weight.detach()
    assert float(weight.std()) == pytest.approx((2 / (900 + 300)) ** 0.5, rel=0.02)


def test_dropout_acts_in_training_only() -> None:
    packed = random_molecules(7, SIZES)
    model = _model(packed, dropout=0.5)
    batch = _batch(packed)
    assert not torch.allclose(model.train()(batch).logits, model.eval()(batch).logits)


def test_unknown_padding_is_refused() -> None:
    with pytest.raises(ConfigError, match="padding='some'"):
        CMPNN(DataSpec(7, 5, 2, 9), padding="some")
