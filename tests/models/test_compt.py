"""CoMPT's fast form against the literal one, what it depends on, and how its cost grows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from molsam.data.packed import PackedMolecules
from molsam.errors import ConfigError, DataError
from molsam.models.api import DataSpec
from molsam.models.compt import CoMPT
from tests.reference.compt import DENSE, SLOPE, compt, with_pairs
from tests.reference.molecules import random_molecules

SIZES = [3, 1, 12, 5, 20, 2]
KINDS = [("softmax", "scale"), ("exp", "layer"), ("softmax", "layer"), ("exp", "scale")]


def _packed(seed: int = 0, sizes: list[int] = SIZES) -> PackedMolecules:
    return with_pairs(random_molecules(seed, sizes))


def _model(packed: PackedMolecules, seed: int = 0, **settings: Any) -> CoMPT:
    torch.manual_seed(seed)
    spec = DataSpec(packed.nodes.shape[1], packed.edge_table.shape[1], 2, packed.max_atoms)
    model = CoMPT(spec, **{"d_model": 16, "n_layers": 2, "n_heads": 2} | settings).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2:
                parameter += 0.1 * torch.randn_like(parameter)
        for layer in model.layers:
            layer.decay.abs_()  # below 0 the release's kernel overflows for fragments
    return model


def _batch(packed: PackedMolecules, rows: Any = None) -> Any:
    return packed.batch(range(len(packed)) if rows is None else rows).to(dtype=torch.float64)


@settings(max_examples=12)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.lists(st.integers(1, 14), min_size=1, max_size=5),
    kind=st.sampled_from(KINDS),
    heads=st.sampled_from([1, 2, 4]),
    width=st.sampled_from([8, 16, 48]),
    layers=st.tuples(st.integers(1, 2), st.integers(0, 2), st.integers(1, 3)),
    dense=st.sampled_from(sorted(DENSE)),
    longer=st.integers(0, 3),
)
def test_equals_the_literal_form(
    seed: int,
    sizes: list[int],
    kind: tuple[str, str],
    heads: int,
    width: int,
    layers: tuple[int, int, int],
    dense: str,
    longer: int,
) -> None:
    packed = _packed(seed, sizes)
    L = packed.max_atoms + longer
    names = ("n_layers", "n_dense", "generator_layers")
    model = _model(
        packed,
        seed,
        d_model=width,
        n_heads=heads,
        distance_kernel=kind[0],
        norm=kind[1],
        dense_activation=dense,
        leaky_relu_slope=SLOPE,
        padding="reference",
        padded_length=L,
        **dict(zip(names, layers, strict=True)),
    )
    batch = _batch(packed)
    ours = model(batch).logits[0]
    weights = model.to_reference(dict(model.named_parameters()))
    theirs, messages = compt(weights, batch, L, h=heads, kernel=kind[0], norm=kind[1], dense=dense)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    for layer, ours_of_layer in enumerate(model.attention(batch)):
        for m, own in enumerate(ours_of_layer):
            n = own.shape[-1]
            torch.testing.assert_close(own, messages[layer, m, :, :n, :n].detach(), rtol=1e-9, atol=1e-11)
    parameters = list(model.parameters())
    for (name, _), a, b in zip(
        model.named_parameters(),
        torch.autograd.grad(ours.square().sum(), parameters),
        torch.autograd.grad(theirs.square().sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9 * float(1 + theirs.detach().abs().max()), msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_exact_mode_reads_each_molecule_alone(kind: tuple[str, str]) -> None:
    packed = _packed()
    model = _model(packed, distance_kernel=kind[0], norm=kind[1])
    together = model(_batch(packed)).logits[0]
    weights = model.to_reference(dict(model.named_parameters()))
    for i, n in enumerate(SIZES):
        alone = model(_batch(packed, [i])).logits[0]
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-11, atol=1e-12)
        literal, _ = compt(weights, _batch(packed, [i]), n, h=2, kernel=kind[0], norm=kind[1])
        torch.testing.assert_close(alone, literal, rtol=1e-10, atol=1e-11)


def test_reference_padding_is_the_datasets_largest_molecule() -> None:
    packed = _packed()
    default = _model(packed, padding="reference")
    given_length = _model(packed, padding="reference", padded_length=max(SIZES))
    other = _model(packed, padding="reference", padded_length=max(SIZES) + 5)
    batch = _batch(packed, [0, 2])
    assert torch.equal(default(batch).logits, given_length(batch).logits)
    assert not torch.allclose(default(batch).logits, other(batch).logits)


def test_can_be_differentiated_twice() -> None:
    """A Hessian-vector product equals the difference of two gradients."""
    packed = _packed(sizes=[4, 7, 1])
    for kernel, norm in KINDS[:2]:
        model = _model(packed, distance_kernel=kernel, norm=norm)
        parameters = list(model.parameters())
        batch = _batch(packed)
        directions = [torch.randn_like(p) for p in parameters]

        def gradient(create_graph: bool = False, model=model, batch=batch, parameters=parameters):
            loss = model(batch).logits.square().sum()
            return torch.autograd.grad(loss, parameters, create_graph=create_graph)

        along = sum((g * v).sum() for g, v in zip(gradient(True), directions, strict=True))
        product = torch.autograd.grad(along, parameters)
        step = 1e-6
        shifted = []
        for sign in (1, -2):
            torch._foreach_add_([p.data for p in parameters], directions, alpha=sign * step)
            shifted.append(gradient())
        for h, up, down in zip(product, *shifted, strict=True):
            scale = float(1 + h.detach().abs().max())
            torch.testing.assert_close(h / scale, (up - down) / (2 * step) / scale, rtol=1e-5, atol=1e-6)


def test_a_negative_decay_leaves_fragments_finite() -> None:
    """The release overflows there: exp(-lambda 1e8)."""
    packed = _packed(3, [9, 6])
    assert packed.distances is not None
    assert bool((packed.distances < 0).any())
    model = _model(packed, distance_kernel="exp")
    with torch.no_grad():
        for layer in model.layers:
            layer.decay.fill_(-0.01)
    parameters = list(model.parameters())
    loss = model(_batch(packed)).logits.square().sum()
    fast = torch.autograd.grad(loss, parameters, retain_graph=True)
    plain = torch.autograd.grad(loss, parameters, create_graph=True)
    assert bool(loss.isfinite())
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-9, atol=1e-10)


def test_every_parameter_is_reached_and_none_is_dead() -> None:
    packed = _packed()
    model = _model(packed)
    model(_batch(packed)).logits.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_parameter_count_is_the_releases_without_the_dead_linear() -> None:
    d, n_layers, N, T = 16, 2, max(SIZES), 2
    linear = d * d + d
    layer = 5 * linear + 2  # query, key, value, update, feed-forward; lambda and the norm's gain
    gru = 2 * (2 * 3 * d * d + 2 * 3 * d)
    rest = (7 * d + d) + (5 * d + d) + (N + 1) * d + 1
    head = (2 * d * d + d) + d + linear + 1 + (d * T + T)
    model = _model(_packed())
    assert sum(p.numel() for p in model.parameters()) == n_layers * layer + gru + rest + head
    named = model.to_reference(dict(model.named_parameters()))
    assert "encoder.layers.1.self_attn.linears.3.weight" in named
    dead = {"encoder.layers.0.self_attn.linears.4.weight": torch.zeros(d, d)}
    loaded = model.from_reference({k: v.detach() for k, v in named.items()} | dead)
    assert loaded.keys() == model.state_dict().keys()


def test_initialisation() -> None:
    packed = _packed()
    spec = DataSpec(packed.nodes.shape[1], packed.edge_table.shape[1], 1, packed.max_atoms)

    def biases(init: str) -> set[tuple[float, ...]]:
        torch.manual_seed(0)
        model = CoMPT(spec, d_model=8, n_layers=2, n_heads=2, init=init)
        assert float(model.readout.gru.weight_hh_l0.detach().abs().max()) <= (6 / (24 + 8)) ** 0.5
        assert float(model.positions.weight.detach()[0].abs().max()) > 0
        linears = [m for layer in model.layers for m in (layer.query, layer.key, layer.value, layer.update)]
        return {tuple(m.bias.tolist()) for m in linears}

    assert len(biases("reference")) == 1
    assert len(biases("sane")) == 8


def test_too_large_molecules_and_wrong_settings_are_refused() -> None:
    packed = _packed()
    spec = DataSpec(packed.nodes.shape[1], packed.edge_table.shape[1], 1, 10)
    with pytest.raises(DataError, match="20 atoms"):
        CoMPT(spec, d_model=8, n_heads=2)(packed.batch([4]))
    with pytest.raises(DataError, match="padded_length=15"):
        _model(packed, padding="reference", padded_length=15)(_batch(packed))
    for wrong in (
        {"distance_kernel": "gauss"},
        {"norm": "batch"},
        {"dense_activation": "sine"},
        {"padding": "some"},
        {"init": "zero"},
        {"n_heads": 3},
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            CoMPT(spec, **{"d_model": 8, "n_heads": 2} | wrong)


def test_dropout_acts_in_training_only_and_none_draws_nothing() -> None:
    packed = _packed()
    batch = _batch(packed)
    still = _model(packed).train()
    state = torch.get_rng_state()
    torch.testing.assert_close(still(batch).logits, still.eval()(batch).logits)
    assert torch.equal(state, torch.get_rng_state())
    model = _model(packed, dropout=0.5)
    assert not torch.allclose(model.train()(batch).logits, model.eval()(batch).logits)


class _Sizes(TorchDispatchMode):
    """Counts the elements of what every operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().nbytes():
                size = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.largest[str(func)] = max(self.largest[str(func)], size)
        return out


def test_no_tensor_has_a_width_for_every_pair_or_padding_to_the_largest() -> None:
    sizes = [100, *[5] * 40]
    packed = _packed(0, sizes)
    d, heads = 64, 2
    model = _model(packed, d_model=d, n_heads=heads, n_layers=1).float()
    pairs = sum(n * n for n in sizes)
    with _Sizes() as made:
        model(packed.batch(range(len(sizes)))).logits.sum().backward()
    # Largest allowed: the GRU's gates (2 directions x 4), the pairs of all heads, and 20% for buckets.
    assert made.largest.most_common(1)[0][1] <= 1.2 * max(8 * sum(sizes) * d, pairs * heads)
    assert len(sizes) * max(sizes) * d > 8 * sum(sizes) * d  # so padding would be seen
