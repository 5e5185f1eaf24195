"""A batch is a batched DGL graph, usable by anybody's DGL code."""

from __future__ import annotations

import pytest
import torch

from tests.reference.molecules import random_molecules


@pytest.mark.parametrize("self_loops", [False, True])
def test_the_graph_is_dgls_batch_of_the_single_graphs(self_loops: bool) -> None:
    import dgl

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
    # Features live in the batch; a user's own message passing reads both.
    with batch.graph.local_scope():
        batch.graph.ndata["x"] = batch.nodes
        batch.graph.update_all(dgl.function.copy_u("x", "m"), dgl.function.sum("m", "y"))
        summed = torch.zeros_like(batch.nodes).index_add(0, batch.dst, batch.nodes[batch.src])
        torch.testing.assert_close(batch.graph.ndata["y"], summed)
        torch.testing.assert_close(
            dgl.readout_nodes(batch.graph, "x")[1], batch.nodes[batch.offsets[1] : batch.offsets[2]].sum(0)
        )
