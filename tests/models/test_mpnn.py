from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from molsam.models.api import DataSpec
from molsam.models.layers.grouped import grouped_product
from molsam.models.layers.set2set import attend
from molsam.models.mpnn import MPNN, typed_bonds
from tests.reference import mpnn as twin
from tests.reference.molecules import random_molecules

SIZES = [6, 1, 9, 2]
SPEC = DataSpec(node_dim=7, edge_dim=5, n_tasks=2, max_atoms=9)


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_equals_the_literal_form(self_loops: bool, layers: int) -> None:
    batch = random_molecules(1, SIZES, self_loops=self_loops).batch(range(4)).to(dtype=torch.float64)
    model = MPNN(SPEC, hidden_size=5, edge_hidden_size=6, steps=3, set2set_steps=4, set2set_layers=layers).double()
    torch.nn.init.normal_(model.message_bias)
    ours, theirs = model(batch).logits[0], twin.logits(model, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    parameters = list(model.parameters())
    first = torch.autograd.grad(ours.square().sum(), parameters)
    torch.testing.assert_close(first, torch.autograd.grad(theirs.square().sum(), parameters), rtol=1e-9, atol=1e-12)


def test_the_edge_network_runs_once_per_distinct_bond() -> None:
    batch = random_molecules(2, SIZES, n_types=3, self_loops=True).batch(range(4))
    seen: list[int] = []
    model = MPNN(SPEC, hidden_size=4)
    model.edge_network.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    model(batch)
    assert seen == [len(torch.unique(batch.edge_type))]
    assert sum(typed_bonds(batch).counts) == len(batch.src)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("d", "f", "sizes"),
    [(3, 2, [1, 3, 2]), (16, 32, [1, 3, 2]), (32, 16, [5]), (16, 16, [1] * 9), (16, 16, [90, 7, 131])],
)
def test_grouped_product(d: int, f: int, sizes: list[int]) -> None:
    """In C, if d and f are whole vectors, and in torch: its definition, and two derivatives."""
    torch.manual_seed(0)
    rows = torch.randn(sum(sizes), d, dtype=torch.float64, requires_grad=True)
    matrices = torch.randn(len(sizes), f, d, dtype=torch.float64).mT.requires_grad_()

    def plain(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.cat([part @ one for part, one in zip(x.split(sizes), w, strict=True)])

    def both(product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        out = product(rows, matrices)
        first = torch.autograd.grad(out.sin().sum(), [rows, matrices], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [rows, matrices])
        return [out, *first, *second]

    found, expected = both(lambda x, w: grouped_product(x, w, sizes)), both(plain)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_a_batch_without_bonds() -> None:
    packed = random_molecules(3, [1, 1, 5])
    model = MPNN(SPEC, hidden_size=4)
    model(packed.batch([0, 1])).logits.sum().backward()
    assert torch.isfinite(model.project.weight.grad).all()


def test_dropout_only_in_training() -> None:
    batch = random_molecules(5, SIZES).batch(range(4))
    model = MPNN(SPEC, dropout=0.5).train()
    assert not torch.equal(model(batch).logits, model(batch).logits)
    assert torch.equal(model.eval()(batch).logits, model(batch).logits)


def test_names_go_both_ways() -> None:
    model = MPNN(SPEC, hidden_size=4)
    theirs = model.to_reference(model.state_dict())
    assert {"gnn.gru.weight_hh_l0", "readout.lstm.bias_ih_l2", "gnn.gnn_layer.edge_func.2.weight"} <= set(theirs)
    back = model.from_reference(theirs)
    assert all(torch.equal(back[k], v) for k, v in model.state_dict().items())


def test_parameter_count_is_dgllifes() -> None:
    d, e = 64, 128
    gnn = 74 * d + d + 13 * e + e + e * d * d + d * d + d + 2 * 3 * d * d + 2 * 3 * d
    lstm = (4 * d * 3 * d + 8 * d) + 2 * (4 * d * 2 * d + 8 * d)
    head = 2 * d * d + d + d + 1
    assert sum(p.numel() for p in MPNN(DataSpec(74, 13, 1, 100)).parameters()) == gnn + lstm + head


def test_attention_of_large_scores_is_finite() -> None:
    batch = random_molecules(6, [3]).batch([0])
    atoms = torch.tensor([[1000.0], [999.0], [0.0]])
    shares = torch.softmax(torch.tensor([1000.0, 999.0]), dim=0)
    expected = (shares @ atoms[:2]).view(1, 1)
    torch.testing.assert_close(attend(atoms, torch.ones(1, 1), batch), expected)
