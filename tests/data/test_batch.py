"""A batch is a batched DGL graph that any DGL code can use."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import networkx as nx
import numpy as np
import pytest
import torch

from molsam.data.distinct import distinct
from molsam.data.graph import from_dgl
from molsam.data.packed import join
from molsam.errors import DataError
from tests.reference.molecules import random_molecules


@pytest.mark.parametrize("self_loops", [False, True])
def test_the_graph_is_dgls_batch_of_the_single_graphs(self_loops: bool) -> None:
    dgl = pytest.importorskip("dgl", reason="DGL has no wheel for this Python")

    packed = random_molecules(1, [5, 1, 9, 2], self_loops=self_loops)
    rows = [2, 0, 3, 1]
    batch = packed.batch(rows)
    expected = dgl.batch([packed.batch([row]).graph for row in rows])
    assert batch.graph.batch_size == len(rows)
    assert torch.equal(batch.graph.batch_num_nodes(), expected.batch_num_nodes())
    assert torch.equal(batch.graph.batch_num_edges(), expected.batch_num_edges())
    for ours, theirs in zip(batch.graph.edges(order="eid"), expected.edges(order="eid"), strict=True):
        assert torch.equal(ours, theirs)
    for part, row in zip(dgl.unbatch(batch.graph), rows, strict=True):
        assert part.num_nodes() == packed.node_offset.diff()[row]
    assert torch.equal(batch.graph.ndata["x"], expected.ndata["x"])
    assert torch.equal(batch.graph.edata["e"], expected.edata["e"])
    with batch.graph.local_scope():
        batch.graph.update_all(dgl.function.copy_u("x", "m"), dgl.function.sum("m", "y"))
        summed = torch.zeros_like(batch.nodes).index_add(0, batch.dst, batch.nodes[batch.src])
        torch.testing.assert_close(batch.graph.ndata["y"], summed)
        torch.testing.assert_close(
            dgl.readout_nodes(batch.graph, "x")[1], batch.nodes[batch.offsets[1] : batch.offsets[2]].sum(0)
        )


@pytest.mark.parametrize("self_loops", [False, True])
def test_a_batch_is_its_molecules_one_after_the_other(self_loops: bool) -> None:
    """So it is after others were left out, and where few atoms differ and are told apart by number."""
    packed = random_molecules(1, [5, 1, 9, 2], self_loops=self_loops)
    sizes = packed.node_offset.diff()
    packed.distances = torch.arange(int(sizes.square().sum()), dtype=torch.int16)
    few = replace(packed, node_table=packed.nodes[:1], node_type=torch.zeros(17, dtype=torch.int32))
    for one, chosen, rows in [
        (packed, packed.select(torch.tensor([3, 2, 0])), [2, 0, 3]),
        (packed, packed, [2, 0, 3]),
        (few, few, [2, 0, 3]),
    ]:
        batch = chosen.batch(rows if chosen is one else [1, 2, 0])
        singles = [one.batch([row]) for row in rows]
        for name in ("nodes", "edges", "sizes", "bonds", "distances"):
            assert torch.equal(getattr(batch, name), torch.cat([getattr(single, name) for single in singles])), name
        for name in ("src", "dst", "neighbours"):
            shifted = [getattr(s, name) + start for s, start in zip(singles, batch.offsets[:-1], strict=True)]
            assert torch.equal(getattr(batch, name), torch.cat(shifted)), name
        assert batch.offsets.tolist() == [0, 9, 14, 16]
        assert batch.molecule.tolist() == [0] * 9 + [1] * 5 + [2] * 2
        assert batch.max_size == 9
        own = [packed.distances[a:b] for a, b in pairwise(packed.pair_offset.tolist())]
        assert torch.equal(batch.distances, torch.cat([own[row] for row in rows]))
    assert len(few.batch([0, 2]).node_table) == 1


@pytest.mark.parametrize("count", range(1, 40))
def test_equal_atoms_are_one_wherever_they_stand(count: int) -> None:
    packed = random_molecules(0, [count], node_dim=133, node_types=1)
    assert len(packed.node_table) == 1


@pytest.mark.parametrize("node_types", [None, 2])
def test_parts_joined_are_the_whole(node_types: int | None) -> None:
    parts = [random_molecules(seed, [5, 1, 9], node_types=node_types, n_types=seed + 1) for seed in range(3)]
    for part in parts:
        part.distances = torch.randint(9, (int(part.node_offset.diff().square().sum()),), dtype=torch.int16)
    whole = join(parts)
    assert len(whole) == 9
    assert len(whole.node_table) == len(whole.nodes.unique(dim=0)) == (45 if node_types is None else 6)
    assert len(whole.edge_table) == len(whole.edge_table.unique(dim=0))
    for place, (own, row) in enumerate((own, row) for own in parts for row in range(3)):
        one, expected = whole.batch([place]), own.batch([row])
        for name in ("nodes", "edges", "src", "dst", "sizes", "bonds", "distances"):
            assert torch.equal(getattr(one, name), getattr(expected, name)), name


@pytest.mark.parametrize("few_kinds", [False, True])
def test_batches_cut_in_one_go_are_those_cut_one_by_one(few_kinds: bool) -> None:
    packed = random_molecules(1, [5, 1, 9, 2, 3])
    packed.distances = torch.arange(int(packed.node_offset.diff().square().sum()), dtype=torch.int16)
    if few_kinds:
        packed = replace(packed, node_table=packed.nodes[:2], node_type=torch.arange(20, dtype=torch.int32) % 2)
    rows = [4, 2, 0, 3, 1, 2, 2]
    for size in (1, 2, 3, 7, 9):
        made = packed.batches(rows, size)
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        assert [batch.index.tolist() for batch in made] == parts
        for batch, part in zip(made, parts, strict=True):
            alone = packed.batch(part)
            assert batch.colours is not None
            assert alone.colours is not None
            for own, lone in zip(batch.colours, alone.colours, strict=True):
                assert np.array_equal(own, lone) if isinstance(lone, np.ndarray) else callable(lone) or own is lone
            for name in (*(vars(alone).keys() - {"columns", "colours"}), "src", "dst", "edge_type"):
                found, value = getattr(batch, name), getattr(alone, name)
                assert torch.equal(found, value) if isinstance(value, torch.Tensor) else found == value, (size, name)


@pytest.mark.parametrize(
    "rows",
    [
        np.random.default_rng(0).integers(0, 2, (500, 4)),
        np.array(
            [[1e30, 2.0], [1e30, 1.0], [0.0, 1.0], [1e30, 2.0]]
        ),  # the second column is lost in any sum with the first
        np.empty((0, 3)),
    ],
    ids=["few", "alike in every projection", "none"],
)
def test_distinct_rows_are_numpys_unique(rows: np.ndarray) -> None:
    rows = rows.astype(np.float32)
    table, kind = distinct(rows)
    expected, inverse = np.unique(rows, axis=0, return_inverse=True)
    assert np.array_equal(table, expected), "another table"
    assert np.array_equal(kind, inverse.reshape(-1)), "another row of it"


@pytest.mark.parametrize("self_loops", [False, True])
def test_a_dgl_graph_made_elsewhere_is_a_batch(self_loops: bool) -> None:
    dgl = pytest.importorskip("dgl", reason="DGL has no wheel for this Python")

    sizes = [5, 1, 9, 2]
    packed = random_molecules(3, sizes, self_loops=self_loops)
    graph = dgl.batch([packed.batch([row]).graph for row in range(len(sizes))])
    ours, batch = from_dgl(graph, distances=True), packed.batch(range(len(sizes)))
    for name in ("nodes", "edges", "src", "dst", "sizes", "bonds", "offsets", "molecule"):
        assert torch.equal(getattr(ours, name), getattr(batch, name)), name
    assert ours.self_loops == self_loops
    assert ours.distances is not None
    assert len(ours.distances) == sum(n * n for n in sizes)
    path = nx.Graph(list(zip(batch.src.tolist(), batch.dst.tolist(), strict=True)))
    lengths = dict(nx.all_pairs_shortest_path_length(path))
    first = iter(ours.distances.tolist())
    for start, end in pairwise(batch.offsets.tolist()):
        for a, b in product(range(start, end), repeat=2):
            assert next(first) == (0 if a == b else lengths.get(a, {}).get(b, -1))


def test_a_graph_without_features_or_one_way_bonds_is_refused() -> None:
    dgl = pytest.importorskip("dgl", reason="DGL has no wheel for this Python")

    graph = dgl.graph(([0, 1, 0, 1], [1, 0, 2, 2]), num_nodes=3)
    with pytest.raises(DataError, match=r"no ndata\['x'\]"):
        from_dgl(graph)
    graph.ndata["x"], graph.edata["e"] = torch.ones(3, 2), torch.ones(4, 2)
    with pytest.raises(DataError, match="pairs a -> b, b -> a"):
        from_dgl(graph)
    graph = dgl.graph(([0, 1], [1, 0]))
    graph.ndata["x"], graph.edata["e"] = torch.ones(2, 2), torch.tensor([[0.0], [1.0]])
    with pytest.raises(DataError, match="equal features"):
        from_dgl(graph)


@pytest.mark.parametrize("largest", [5, 130, 300])
def test_numbers_within_molecules_are_stored_small_and_read_whole(largest: int) -> None:
    """Also beside a molecule with more atoms or bonds than int8 holds, and joined with smaller ones."""
    small = random_molecules(0, [3, 1, 5])
    whole = join([small, random_molecules(1, [largest, 2])])
    names = ("src", "dst", "entering", "neighbours")
    assert {getattr(small, name).dtype for name in names} == {torch.int8}
    for name in names:
        values = getattr(whole, name)
        assert values.dtype == (torch.int8 if int(values.max()) < 128 else torch.int16)
    assert whole.src.max() == largest - 1, "else the numbers are not tested"
    for rows in ([3, 0, 4], [1, 3], [2]):
        batch = whole.batch(rows)
        order = batch.dst.argsort(stable=True)
        assert torch.equal(batch.neighbours, batch.src[order])
        assert torch.equal(batch.neighbour_offsets.diff(), torch.bincount(batch.dst, minlength=batch.n_atoms))
        assert batch.colours is not None
        assert torch.equal(batch.colours.columns()[3], order)
        chosen = whole.select(torch.tensor(rows)).batch(range(len(rows)))
        for name in ("src", "dst", "neighbours", "neighbour_offsets"):
            assert torch.equal(getattr(chosen, name), getattr(batch, name)), name
