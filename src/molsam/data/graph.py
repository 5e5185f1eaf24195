"""Conversion of any batched DGL graph of molecules to a batch that the models read."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from molsam.chem.distances import shortest_paths
from molsam.data.batch import MoleculeBatch
from molsam.data.states import BatchColours, Colours, Graph, ranges
from molsam.errors import DataError

if TYPE_CHECKING:
    import dgl

NODES, EDGES = "x", "e"
"""The fields of a graph that hold the features of atoms and of directed bonds."""


def from_dgl(graph: dgl.DGLGraph, *, distances: bool = False) -> MoleculeBatch:
    """Return the batch of a DGL graph (`dgl.batch` of molecules); the inverse of `MoleculeBatch.graph`.

    Edges that are not self loops must come in pairs, a -> b and then b -> a, with equal features. `dgl.batch` of
    graphs of dgllife's `smiles_to_bigraph` has this order.

    Args:
        graph: has ndata["x"], float [N, node_dim], and edata["e"], float [E, edge_dim].
        distances: whether to compute the distances between all atoms of a molecule, which CoMPT needs.

    Raises:
        DataError: a field is missing, or the edges are in another order.
    """
    for field, data, where in [(NODES, graph.ndata, "ndata"), (EDGES, graph.edata, "edata")]:
        if field not in data:
            raise DataError(f"the DGL graph has no {where}[{field!r}]; store the features there as floats.")
    src, dst = (ends.long() for ends in graph.edges(order="eid"))
    table, edge_type = torch.unique(graph.edata[EDGES], dim=0, return_inverse=True)
    loop = src == dst
    _check_pairs(src[~loop], dst[~loop], edge_type[~loop])
    table_of_atoms, node_type = _alike(graph.ndata[NODES])
    sizes, bonds = graph.batch_num_nodes().long(), graph.batch_num_edges().long()
    offsets = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    neighbour_offsets, neighbours, _ = graph.adj_tensors("csc")
    return MoleculeBatch(
        node_table=table_of_atoms,
        node_type=node_type,
        edge_table=table,
        columns=lambda: (src, dst, edge_type),
        sizes=sizes,
        bonds=bonds,
        offsets=offsets,
        distances=_distances(src, dst, bonds, offsets) if distances else None,
        self_loops=bool(loop.any()),
        index=torch.arange(len(sizes), device=src.device),
        neighbours=neighbours.long(),
        neighbour_offsets=neighbour_offsets.long(),
        molecule=torch.arange(len(sizes), device=src.device).repeat_interleave(sizes),
        max_size=int(sizes.max()),
        colours=None if loop.any() else colours_of(node_type, neighbour_offsets, src, dst, edge_type),
    )


def _alike(nodes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct feature vectors of atoms, or all if they need a gradient, and each atom's index in them."""
    if nodes.requires_grad:
        return nodes, torch.arange(len(nodes), device=nodes.device)
    table, kind = torch.unique(nodes, dim=0, return_inverse=True)
    return table, kind


def colours_of(node_type: Tensor, offsets: Tensor, src: Tensor, dst: Tensor, edge_type: Tensor) -> BatchColours:
    """Return the colours of a graph's atoms and bonds."""
    columns = tuple(column.cpu() for column in (src, dst, edge_type, dst.argsort(stable=True)))
    starts, of_atoms = offsets.long().cpu().numpy(), node_type.cpu().numpy()
    entering = columns[3].numpy()

    def lists(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        counts = starts[rows + 1] - starts[rows]
        return entering.take(ranges(starts[rows], counts)[0]), counts

    graph = Graph(of_atoms, columns[2].numpy(), columns[0].numpy().take, lambda: lists)
    atoms, bonds = np.arange(len(of_atoms)), np.arange(len(src))
    return BatchColours(Colours(graph), atoms, bonds, of_atoms, lambda: columns, starts)


def _check_pairs(src: Tensor, dst: Tensor, edge_type: Tensor) -> None:
    there = torch.stack([src, dst, edge_type])
    back = torch.stack([dst, src, edge_type])
    if len(src) % 2 or not torch.equal(there[:, ::2], back[:, 1::2]):
        raise DataError(
            "the edges of the DGL graph do not come in pairs a -> b, b -> a with equal features; "
            "add both directions of each bond one after the other."
        )


def _distances(src: Tensor, dst: Tensor, bonds: Tensor, offsets: Tensor) -> Tensor:
    ends = torch.cat([bonds.new_zeros(1), bonds.cumsum(0)]).tolist()
    ranges = zip(pairwise(offsets.tolist()), pairwise(ends), strict=True)
    found = [
        shortest_paths(b - a, (src[s:e] - a).cpu().numpy(), (dst[s:e] - a).cpu().numpy()) for (a, b), (s, e) in ranges
    ]
    return torch.cat([torch.from_numpy(matrix).view(-1) for matrix in found]).to(src.device)
