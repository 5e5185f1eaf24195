from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from molsam.errors import ConfigError
from molsam.models.api import DataSpec
from molsam.models.dmpnn import DMPNN
from molsam.models.message_graph import MessageGraph
from tests.reference import dmpnn as twin
from tests.reference.molecules import random_molecules

SIZES = [6, 1, 9, 2]
SPEC = DataSpec(node_dim=7, edge_dim=5, n_tasks=2, max_atoms=9)


@pytest.mark.parametrize(
    "settings",
    [
        {"depth": 1},
        {"aggregation": "sum", "bias": True},
        {"aggregation": "norm", "activation": "prelu"},
        {"depth": 5, "undirected": True, "activation": "tanh"},
    ],
)
@pytest.mark.parametrize("node_types", [None, 1, 3])
def test_equals_the_literal_form(settings: dict, node_types: int | None) -> None:
    batch = random_molecules(1, SIZES, node_types=node_types).batch(range(4)).to(dtype=torch.float64)
    model = DMPNN(SPEC, hidden_size=6, ffn_hidden_size=5, **settings).double().eval()
    ours, theirs = model.aggregate(model.encode(batch), batch), twin.molecule_vectors(model, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    parameters = [p for name, p in model.named_parameters() if not name.startswith("ffn")]
    used = [p for p in parameters if settings.get("depth") != 1 or p is not model.W_h.weight]
    first = torch.autograd.grad(ours.square().sum(), used)
    second = torch.autograd.grad(theirs.square().sum(), used)
    torch.testing.assert_close(first, second, rtol=1e-10, atol=1e-12)


def test_head_has_as_many_hidden_layers_as_asked() -> None:
    model = DMPNN(SPEC, hidden_size=6, ffn_hidden_size=5, ffn_layers=2)
    assert [tuple(layer.weight.shape) for layer in model.ffn] == [(5, 6), (5, 5), (2, 5)]
    batch = random_molecules(2, SIZES).batch(range(4))
    vector = model.aggregate(model.encode(batch), batch)
    a, b, c = model.ffn
    torch.testing.assert_close(model(batch).logits[0], c(b(a(vector).relu()).relu()))


def test_descriptors_follow_the_normalised_vector() -> None:
    packed = random_molecules(3, SIZES)
    model = DMPNN(SPEC._replace(descriptor_dim=3), hidden_size=6, batch_norm=True).train()
    batch = replace(packed.batch(range(4)), descriptors=torch.full((4, 3), 7.0))
    vector = model.aggregate(model.encode(batch), batch)
    assert torch.equal(vector[:, 6:], torch.full((4, 3), 7.0))
    torch.testing.assert_close(vector[:, :6].mean(0), torch.zeros(6), atol=1e-5, rtol=0)


def test_dropout_reaches_bonds_atoms_and_head_and_only_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_molecules(5, SIZES).batch(range(4))
    model = DMPNN(SPEC, hidden_size=32, dropout=0.5)
    first = model.initialize(batch, MessageGraph.of(batch, 2))

    def zeros() -> list[float]:
        return [float((x == 0).double().mean()) for x in (model.update(first, first), model.encode(batch))]

    model.train()
    dropped = zeros()
    model.eval()
    assert all(a > b + 0.1 for a, b in zip(dropped, zeros(), strict=True))
    assert torch.equal(model(batch).logits, model(batch).logits)
    monkeypatch.setattr(model, "encode", lambda _: torch.ones(len(batch.nodes), 32))
    model.train()
    assert not torch.equal(model(batch).logits, model(batch).logits)


def test_names_go_both_ways() -> None:
    model = DMPNN(SPEC, hidden_size=6, batch_norm=True, activation="prelu", ffn_layers=2)
    theirs = model.to_reference(model.state_dict())
    assert {"message_passing.W_i.weight", "message_passing.tau.weight", "bn.bias"} <= set(theirs)
    assert {"predictor.ffn.0.0.weight", "predictor.ffn.2.2.bias"} <= set(theirs)
    back = model.from_reference({**theirs, "metrics.0.task_weights": torch.ones(1)})
    assert list(back) == list(model.state_dict())


def test_parameter_count_is_chemprops() -> None:
    """W_i 300 x 147, W_h 300 x 300, W_o 300 x 433 + 300, head 300 x 300 + 300 and 300 + 1."""
    model = DMPNN(DataSpec(133, 14, 1, 100))
    assert sum(p.numel() for p in model.parameters()) == 44_100 + 90_000 + 130_200 + 90_300 + 301


def test_unknown_aggregation() -> None:
    with pytest.raises(ConfigError, match="aggregation is 'max'"):
        DMPNN(SPEC, aggregation="max")
