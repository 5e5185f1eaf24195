from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from molsam.errors import ConfigError
from molsam.models.api import DataSpec
from molsam.models.gcn import GCN
from molsam.models.layers.batchnorm import BatchNorm
from molsam.models.layers.neighbours import NeighbourSum
from molsam.models.layers.readout import plain, weighted_sum_and_max
from tests.reference import gcn as twin
from tests.reference.derivatives import check_derivatives
from tests.reference.molecules import random_molecules

SIZES = [6, 1, 9, 2]
SPEC = DataSpec(node_dim=7, edge_dim=5, n_tasks=2, max_atoms=9)


@pytest.mark.parametrize("norm", ["none", "right", "both"])
@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("residual", [True, [False, True]])
def test_equals_the_dense_form(norm: str, self_loops: bool, residual: bool | list[bool]) -> None:
    batch = random_molecules(1, SIZES, self_loops=self_loops).batch(range(4)).to(dtype=torch.float64)
    model = GCN(SPEC, hidden_sizes=[5, 4], gnn_norm=norm, residual=residual, head_size=6).double()
    for _ in range(3):
        model.train()(batch)
    ours, theirs = model.eval()(batch).logits[0], twin.logits(model, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    parameters = list(model.parameters())
    first = torch.autograd.grad(ours.square().sum(), parameters)
    torch.testing.assert_close(first, torch.autograd.grad(theirs.square().sum(), parameters), rtol=1e-9, atol=1e-12)


def test_neighbours_are_those_of_the_dgl_graph() -> None:
    batch = random_molecules(6, SIZES, self_loops=True).batch(range(4))
    offsets, sources, _ = batch.graph.adj_tensors("csc")
    assert torch.equal(batch.neighbour_offsets, offsets)
    for a, b in pairwise(offsets.tolist()):
        assert sorted(batch.neighbours[a:b].tolist()) == sorted(sources[a:b].tolist())


def test_an_atom_without_bonds_keeps_the_bias() -> None:
    batch = random_molecules(2, [1]).batch([0])
    layer = GCN(SPEC, gnn_norm="both", residual=False, batch_norm=False).layers[0]
    torch.nn.init.constant_(layer.conv.bias, 0.25)
    assert torch.equal(layer(batch.nodes, batch), torch.full((1, 64), 0.25))


def test_neighbour_sum_is_differentiable_twice() -> None:
    batch = random_molecules(3, SIZES, self_loops=True).batch(range(4))
    hidden = torch.randn(len(batch.nodes), 3, dtype=torch.float64, requires_grad=True)

    def total(h: torch.Tensor) -> torch.Tensor:
        return NeighbourSum.apply(h, batch.neighbours, batch.neighbour_offsets).square()

    check_derivatives(total, (hidden,))


def test_the_fused_readout_equals_its_steps_and_differentiates_twice() -> None:
    """Two atoms tie for the maximum, as symmetric ones do, and share its gradient."""
    batch = random_molecules(3, SIZES, self_loops=True).batch(range(4))
    torch.manual_seed(0)
    h = torch.randn(batch.n_atoms, 3, dtype=torch.float64)
    h[1] = h[0]
    inputs = [x.double().requires_grad_() for x in (h, torch.randn(1, 3), torch.randn(1))]
    ours = weighted_sum_and_max(*inputs, batch.molecule, batch.offsets, batch.max_size)
    theirs = plain(*inputs, batch.molecule, len(batch))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    grad = torch.randn_like(ours)
    for found, wanted in zip(
        torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(theirs, inputs, grad), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    inputs[0] = torch.randn_like(h).requires_grad_()
    check_derivatives(
        lambda *x: weighted_sum_and_max(*x, batch.molecule, batch.offsets, batch.max_size).square(), inputs
    )


def test_the_first_layer_over_distinct_atoms_equals_the_one_over_all() -> None:
    batch = random_molecules(4, SIZES, self_loops=True).batch(range(4)).to(dtype=torch.float64)
    kind = torch.arange(batch.n_atoms) % 3
    for norm in ("none", "both"):
        layer = GCN(SPEC, gnn_norm=norm).double().layers[0]
        torch.nn.init.normal_(layer.conv.bias)
        few = batch.nodes[:3].clone().requires_grad_()
        ours, theirs = layer(few, batch, kind), layer(few[kind], batch)
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        inputs = [few, *layer.parameters()]
        grad = torch.randn_like(ours)
        for found, wanted in zip(
            torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(theirs, inputs, grad), strict=True
        ):
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_batch_norm_of_one_row_uses_and_keeps_the_running_statistics() -> None:
    layer = BatchNorm(3).train()
    torch.nn.init.normal_(layer.weight)
    layer(torch.randn(8, 3) * 3 + 1)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    row = torch.randn(1, 3, requires_grad=True)
    out = layer(row)
    assert torch.equal(out, layer.eval()(row))
    layer.train().track_running_stats = False  # as in the second pass of a SAM step
    assert torch.equal(out, layer(row))
    assert all(torch.equal(v, before[k]) for k, v in layer.state_dict().items())
    out.sum().backward()
    assert (row.grad != 0).all()


@pytest.mark.parametrize("n", [8, 200])
def test_batch_norm_equals_torchs(n: int) -> None:
    ours, theirs = BatchNorm(3, momentum=0.3), torch.nn.BatchNorm1d(3, momentum=0.3)
    for layer in (ours, theirs):
        torch.nn.init.constant_(layer.weight, 1.5)
    for seed, (training, tracking) in enumerate([(True, True), (True, False), (True, True), (False, True)]):
        rows = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)) * 3 + 1
        for layer in (ours, theirs):
            layer.train(training).track_running_stats = tracking
        torch.testing.assert_close(ours(rows), theirs(rows), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-6, atol=1e-6)


def test_float32_statistics_lose_nothing_that_matters() -> None:
    rows = 100 + torch.randn(400, 64, generator=torch.Generator().manual_seed(5))
    layer = BatchNorm(64)
    exact = torch.nn.BatchNorm1d(64).double()
    ours, expected = layer(rows), exact(rows.double())
    assert (ours - expected).abs().max() < 1e-6 * expected.abs().max()  # torch's own: 9e-6
    torch.testing.assert_close(layer.running_mean, exact.running_mean.float(), rtol=2e-7, atol=0)


def test_float32_sums_of_a_large_molecule_are_exact() -> None:
    h = torch.rand(4000, 3, generator=torch.Generator().manual_seed(6))
    w, b, molecule = torch.ones(1, 3), torch.zeros(1), torch.zeros(4000, dtype=torch.int64)
    ours = weighted_sum_and_max(h, w, b, molecule, torch.tensor([0, 4000]), 4000)
    exact = plain(h.double(), w.double(), b.double(), molecule, 1)
    torch.testing.assert_close(ours.double(), exact, rtol=2e-7, atol=0)


def test_one_molecule_of_one_atom_trains() -> None:
    batch = random_molecules(4, [1], self_loops=True).batch([0])
    model = GCN(SPEC).train()
    model(batch).logits.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_dropout_only_in_training() -> None:
    batch = random_molecules(5, SIZES).batch(range(4))
    for settings in ({"dropout": 0.5}, {"head_dropout": 0.5}):
        model = GCN(SPEC, **settings).train()
        assert not torch.equal(model(batch).logits, model(batch).logits)
        assert torch.equal(model.eval()(batch).logits, model(batch).logits)


def test_names_go_both_ways() -> None:
    model = GCN(SPEC, hidden_sizes=[5, 4])
    theirs = model.to_reference(model.state_dict())
    assert theirs["gnn.gnn_layers.0.graph_conv.weight"].shape == (7, 5)
    assert {"gnn.gnn_layers.1.res_connection.bias", "gnn.gnn_layers.1.bn_layer.running_var"} <= set(theirs)
    assert {"readout.weight_and_sum.atom_weighting.0.weight", "predict.predict.4.bias"} <= set(theirs)
    back = model.from_reference(theirs)
    assert all(torch.equal(back[k], v) for k, v in model.state_dict().items())


def test_parameter_count_is_dgllifes() -> None:
    """Two layers (conv, residual, BatchNorm), the weighting, and the head with its BatchNorm."""
    layers = 2 * (74 * 64 + 64) + 128 + 2 * (64 * 64 + 64) + 128
    head = 128 * 128 + 128 + 256 + 128 + 1
    assert sum(p.numel() for p in GCN(DataSpec(74, 13, 1, 100)).parameters()) == layers + 65 + head


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="gnn_norm is 'left'"):
        GCN(SPEC, gnn_norm="left")
    with pytest.raises(ConfigError, match="residual has 1 entries for 2 layers"):
        GCN(SPEC, residual=[True])
