"""A file of graphs with labels that `dgl.save_graphs` wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molsam.chem.arrays import Featurizer, MolArrays
from molsam.chem.distances import shortest_paths
from molsam.data.batch import dgl_library
from molsam.data.featurize import stored
from molsam.data.packed import pack
from molsam.data.texts import Texts
from molsam.errors import ConfigError, DataError

GRAPH = "graph"
"""The column that says which graph a row is, in place of its SMILES."""
WITHOUT = (
    "dataset=dgl needs DGL, which cannot be imported here; use Python 3.11 with `pip install dgl==1.1.3 packaging`."
)


def table(path: Path) -> dict[str, Any]:
    """Return the labels as the columns and cells of a table, one row a graph; a tensor [M, T] named y is y0, y1, ...

    Raises DataError if there are none, or not one for each graph; ConfigError without DGL.
    """
    labels: dict[str, Tensor] = _read(path, lambda dgl: dgl.data.utils.load_labels)
    if not labels:
        raise DataError(
            f"{path} holds no labels, or is cut off; save them with the graphs: dgl.save_graphs({path.name!r}, graphs, "
            '{"y": labels}).'
        )
    count = len(next(iter(labels.values())))
    columns, cells = [GRAPH], [[f"graph {number}" for number in range(count)]]
    for name, values in labels.items():
        _refuse_uneven(path, name, values, count)
        parts = values.double().reshape(count, -1).T.tolist()
        columns += [name] if values.ndim == 1 else [f"{name}{place}" for place in range(len(parts))]
        cells += [["" if value != value else repr(value).removesuffix(".0") for value in part] for part in parts]
    return {"columns": columns, "cells": cells, "numbers": list(range(count)), "lines": None}


def _refuse_uneven(path: Path, name: str, values: Tensor, count: int) -> None:
    if values.ndim not in (1, 2) or len(values) != count:
        raise DataError(
            f"{path}: labels {name!r} have the shape {list(values.shape)}, and there are {count} graphs; save one "
            "number or one row of numbers for each graph."
        )


def graphs(
    paths: Sequence[Path], rows: np.ndarray, settings: Mapping[str, Any], featurizer: Featurizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the graphs of some files, those of `rows`, packed: tensors and record as `featurize` gives them.

    The features are those of ndata and edata that `nodes` and `edges` of the settings name; without `edges` each bond
    has one feature, 1. Distances are found if the model's featurizer gives some. Raises DataError naming the file,
    the graph and what is wrong with it; ConfigError if the model reads features of its own featurizer alone.
    """
    every = []
    for path in paths:
        loaded, labels = _read(path, lambda dgl: dgl.load_graphs)
        name, values = next(iter(labels.items()))
        _refuse_uneven(path, name, values, len(loaded))
        every += [(path, number, graph) for number, graph in enumerate(loaded)]
    chosen = [every[row] for row in rows]
    loops, found, fields = False, list[MolArrays](), (settings.get("nodes") or "x", settings.get("edges"))
    for path, number, graph in chosen:
        where = f"{path}, graph {number}"
        arrays, looped = _arrays(where, graph, *fields, pairs=featurizer.pairs)
        widths, first = ([a.nodes.shape[1], a.edges.shape[1]] for a in (arrays, (found or [arrays])[0]))
        if widths != first:
            raise DataError(
                f"{where}: atoms have {widths[0]} features and bonds {widths[1]}, those of graph {chosen[0][1]} "
                f"{first[0]} and {first[1]}; give all graphs of a data set the same features."
            )
        loops |= looped
        found.append(arrays)
    _refuse_misfit(paths[0], found, featurizer)
    names = Texts.of(f"graph {number}" for _, number, _ in chosen)
    tensors = pack(found, self_loops=loops).tensors() | {"valid": torch.arange(len(found)), **stored(names)}
    return tensors, {"invalid": [], "self_loops": loops}


def _refuse_misfit(path: Path, found: Sequence[MolArrays], featurizer: Featurizer) -> None:
    """CoMPT reads the last feature of an atom as its place."""
    if not featurizer.pairs or not found:
        return
    widths, wanted = [found[0].nodes.shape[1], found[0].edges.shape[1]], [featurizer.node_dim, featurizer.edge_dim]
    placed = all(np.array_equal(a.nodes[:, -1], np.arange(1, len(a.nodes) + 1)) for a in found)
    if widths != wanted or not placed:
        raise ConfigError(
            f"This model reads {wanted[0]} features of atoms, the last of them 1, 2, 3, ..., and {wanted[1]} of "
            f"bonds; {path} has {widths[0]} and "
            f"{widths[1]}{'' if placed else ', with another last one'}; use another model."
        )


def _read(path: Path, how: Callable[[Any], Any]) -> Any:
    dgl = dgl_library(WITHOUT)
    try:
        return how(dgl)(str(path))
    except Exception as error:  # DGL has one class of its own for whatever is wrong, and raises others
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path} cannot be read as a file of dgl.save_graphs ({reason}); write it again.") from error


def _arrays(where: str, graph: Any, nodes: str, edges: str | None, *, pairs: bool) -> tuple[MolArrays, bool]:
    """Return a graph as a featurizer would have made it, and whether it has self loops."""
    if not graph.is_homogeneous or not graph.num_nodes():
        what = "has no atoms" if graph.is_homogeneous else "has several types of nodes or edges"
        raise DataError(f"{where} {what}; save graphs of one type with one node or more.")
    src, dst = (ends.numpy().astype(np.int32) for ends in graph.edges(order="eid"))
    of_atoms = _features(where, graph.ndata, "nodes", nodes)
    of_bonds = np.ones((len(src), 1), np.float32) if edges is None else _features(where, graph.edata, "edges", edges)
    order = _paired(where, src, dst, of_bonds)
    src, dst = src[order], dst[order]
    distances = shortest_paths(len(of_atoms), src, dst) if pairs else None
    return MolArrays(of_atoms, of_bonds[order], src, dst, distances), bool((src == dst).any())


def _features(where: str, data: Any, setting: str, field: str) -> np.ndarray:
    """float32 [n, width]"""
    of = f"{'ndata' if setting == 'nodes' else 'edata'}[{field!r}]"
    if field not in data:
        there = ", ".join(map(repr, data)) or "none"
        other = ", or dataset.edges=null if bonds have none" if setting == "edges" else ""
        raise DataError(
            f"{where} has no {of} (fields: {there}); name that of the features, dataset.{setting}=FIELD{other}."
        )
    values: np.ndarray = data[field].detach().numpy()
    if values.ndim != 2 or not values.shape[1]:
        raise DataError(f"{where}: {of} has the shape {list(values.shape)}; save a row of features for each of them.")
    found = values.astype(np.float32)
    if not np.isfinite(found).all():
        raise DataError(f"{where}: {of} has a value that is not finite; correct it.")
    return found


def _paired(where: str, src: np.ndarray, dst: np.ndarray, features: np.ndarray) -> np.ndarray:
    """int64 [e], the edges in an order in which each is followed by its reverse, self loops at the end.

    Pairs stand in the order of their first edges. Raises DataError for an edge without a reverse of equal features.
    """
    kind = np.unique(features, axis=0, return_inverse=True)[1].reshape(-1) if len(src) else src
    there, back = np.flatnonzero(src < dst), np.flatnonzero(src > dst)
    there = there[np.lexsort((kind[there], dst[there], src[there]))]
    back = back[np.lexsort((kind[back], src[back], dst[back]))]
    columns = [np.stack([a[part], b[part], kind[part]]) for a, b, part in ((src, dst, there), (dst, src, back))]
    if not np.array_equal(columns[0], columns[1]):
        rows = [set(map(tuple, column.T.tolist())) for column in columns]
        a, b, _ = min(rows[0] ^ rows[1], default=tuple(columns[0][:, 0]))
        raise DataError(
            f"{where}: an edge between {a} and {b} has no reverse with equal features; add both directions of each "
            "bond, as dgl.add_reverse_edges does."
        )
    pairs = np.stack([np.minimum(there, back), np.maximum(there, back)], axis=1)
    return np.concatenate([pairs[np.argsort(pairs[:, 0])].reshape(-1), np.flatnonzero(src == dst)])
