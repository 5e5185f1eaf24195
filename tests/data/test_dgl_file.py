"""Files of dgl.save_graphs: molsam reads what was saved, and refuses in a sentence what cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from molsam.chem.arrays import Featurizer
from molsam.chem.chemprop import ChempropFeaturizer
from molsam.chem.compt import ComptFeaturizer
from molsam.chem.dgllife import DgllifeFeaturizer
from molsam.config.compose import compose
from molsam.data import dataset as datasets
from molsam.data.dataset import MoleculeDataset
from molsam.errors import ConfigError, DataError
from molsam.wiring import run as wiring

dgl = pytest.importorskip("dgl", reason="DGL has no wheel for this Python")
SMILES = [
    "C",
    "CCO",
    "c1ccccc1O",
    "CC(=O)N",
    "C1CC1",
    "N#CC",
    "OC=C",
    "CS(C)=O",
    "ClCCBr",
    "c1ccncc1",
    "CC(C)C",
    "FC(F)F",
]
FIELDS = ("nodes", "edges", "src", "dst", "sizes", "bonds", "offsets", "molecule", "targets", "mask")


def known(tmp_path: Path, featurizer: Featurizer) -> MoleculeDataset:
    """Molecules as molsam reads them from SMILES."""
    lines = [f"{smiles},{place % 5 - 1.25},{'' if place == 3 else place / 3}" for place, smiles in enumerate(SMILES)]
    (tmp_path / "in.csv").write_text("\n".join(["smiles,y0,y1", *lines]))
    settings = {"path": str(tmp_path / "in.csv"), "targets": ["y0", "y1"], "task": "regression"}
    return datasets.load(settings, featurizer, str(tmp_path / "cache"))


def saved(path: Path, of: MoleculeDataset, change: Callable[[int, Any], Any] = lambda number, graph: graph) -> None:
    """The molecules as a file, each graph changed in some way."""
    graphs = [change(number, graph) for number, graph in enumerate(dgl.unbatch(of.batch(np.arange(len(of))).graph))]
    dgl.save_graphs(str(path), graphs, {"y": torch.tensor(of.targets)})


def load(path: Path, featurizer: Featurizer, **settings: Any) -> MoleculeDataset:
    given = {"reader": "dgl", "path": str(path), "smiles": "graph", "nodes": "x", "edges": "e", **settings}
    return datasets.load(given, featurizer)


@pytest.mark.parametrize("featurizer", [ChempropFeaturizer(), ComptFeaturizer(), DgllifeFeaturizer(self_loop=True)])
def test_what_is_read_is_what_was_saved(featurizer: Featurizer, tmp_path: Path) -> None:
    ours = known(tmp_path, featurizer)
    saved(tmp_path / "graphs.bin", ours)
    read = load(tmp_path / "graphs.bin", featurizer)
    assert read.task_names == ["y0", "y1"]
    assert read.task == "regression"
    assert read.smiles[1] == "graph 1"
    assert read.spec == ours.spec
    first, second = (one.batch(np.arange(len(one))) for one in (ours, read))
    for name in FIELDS:
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert first.self_loops == second.self_loops
    if featurizer.pairs:
        assert first.distances is not None
        assert second.distances is not None
        assert torch.equal(first.distances, second.distances)


def test_bonds_in_any_order_and_without_features_come_in_pairs(tmp_path: Path) -> None:
    ours = known(tmp_path, featurizer := ChempropFeaturizer())

    def shuffled(number: int, graph: Any) -> Any:
        order = torch.from_numpy(np.random.default_rng(number).permutation(graph.num_edges()))
        ends = [part[order] for part in graph.edges(order="eid")]
        made = dgl.graph(tuple(ends), num_nodes=graph.num_nodes())
        made.ndata["h"], made.edata["e"] = graph.ndata["x"], graph.edata["e"][order]
        return made

    saved(tmp_path / "graphs.bin", ours, shuffled)
    read = load(tmp_path / "graphs.bin", featurizer, nodes="h").batch(np.arange(len(SMILES)))
    wanted = ours.batch(np.arange(len(SMILES)))
    for batch in (read, wanted):
        assert torch.equal(batch.src[batch.rev], batch.dst)
        assert torch.equal(batch.edges[batch.rev], batch.edges)
    rows = [sorted(zip(b.src.tolist(), b.dst.tolist(), b.edges.tolist(), strict=True)) for b in (read, wanted)]
    assert rows[0] == rows[1]
    bare = load(tmp_path / "graphs.bin", featurizer, nodes="h", edges=None)
    assert bare.spec.edge_dim == 1
    assert bare.batch([0, 1]).edges.eq(1).all()


def graph_of(src: list[int], dst: list[int], x: Any, e: Any = None) -> Any:
    graph = dgl.graph((src, dst), num_nodes=len(x))
    graph.ndata["x"] = torch.as_tensor(x)
    graph.edata["e"] = torch.ones(len(src), 2) if e is None else torch.as_tensor(e)
    return graph


GOOD = graph_of([0, 1], [1, 0], torch.ones(2, 3))
ONE = {"y": torch.arange(2.0) + 0.5}


@pytest.mark.parametrize(
    ("graphs", "labels", "message"),
    [
        ([GOOD, GOOD], {}, r"holds no labels, or is cut off; save them with the graphs"),
        ([GOOD, GOOD], {"y": torch.ones(3)}, r"labels 'y' have the shape \[3\], and there are 2 graphs"),
        ([GOOD, GOOD], {"y": torch.ones(2), "z": torch.ones(2, 2, 2)}, r"labels 'z' have the shape \[2, 2, 2\]"),
        ([GOOD, graph_of([0, 1], [1, 0], torch.ones(2, 4))], ONE,
         "graph 1: atoms have 4 features and bonds 2, those of graph 0 3"),
        ([GOOD, graph_of([0], [1], torch.ones(2, 3))], ONE, "graph 1: an edge between 0 and 1 has no reverse"),
        ([GOOD, graph_of([0, 1], [1, 0], torch.ones(2, 3), [[0.0, 1], [1, 1]])], ONE, "no reverse with equal features"),
        ([GOOD, graph_of([], [], torch.ones(0, 3))], ONE, "graph 1 has no atoms"),
        ([GOOD, graph_of([0, 1], [1, 0], torch.ones(2))], ONE, r"ndata\['x'\] has the shape \[2\]; save a row"),
        ([GOOD, graph_of([0, 1], [1, 0], [[1.0], [float("nan")]])], ONE, "not finite"),
        ([GOOD, dgl.graph(([0, 1], [1, 0]))], ONE,
         r"graph 1 has no ndata\['x'\] \(fields: none\); name .* dataset.nodes=FIELD"),
        ([dgl.heterograph({("a", "b", "c"): ([0], [1])})] * 2, ONE, "several types of nodes"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_is_refused(graphs: list[Any], labels: Any, message: str, tmp_path: Path) -> None:
    dgl.save_graphs(str(tmp_path / "graphs.bin"), graphs, labels)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "graphs.bin", ChempropFeaturizer())


def test_files_of_the_other_kind_and_features_of_another_model_are_refused(tmp_path: Path) -> None:
    ours = known(tmp_path, ChempropFeaturizer())
    saved(tmp_path / "graphs.bin", ours)
    with pytest.raises(
        ConfigError, match=r"reads 116 features .* and 13 of bonds; .* has 133 and 14, with another last"
    ):
        load(tmp_path / "graphs.bin", ComptFeaturizer())
    with pytest.raises(DataError, match=r"is no file of dgl\.save_graphs; use dataset=csv"):
        load(tmp_path / "in.csv", ChempropFeaturizer())
    (tmp_path / "noise.bin").write_bytes(b"no table either")
    with pytest.raises(DataError, match=r"noise\.bin is no file of dgl\.save_graphs; use dataset=csv"):
        load(tmp_path / "noise.bin", ChempropFeaturizer())
    with pytest.raises(DataError, match=r"is a file of dgl\.save_graphs; use dataset=dgl"):
        datasets.load({"path": str(tmp_path / "graphs.bin")}, ChempropFeaturizer())
    (tmp_path / "graphs.bin").write_bytes((tmp_path / "graphs.bin").read_bytes()[:400])
    with pytest.raises(DataError, match="or is cut off"):
        load(tmp_path / "graphs.bin", ChempropFeaturizer())


def test_a_model_trains_on_graphs_as_on_their_molecules(tmp_path: Path) -> None:
    saved(tmp_path / "graphs.bin", known(tmp_path, ChempropFeaturizer()))
    common = ["model=dmpnn", "optimizer=graphsam", "model.hidden_size=8", "training.epochs=1",
              "dataset.targets=[y0,y1]", "split.fold=0", "dataset.task=regression", "training.threads=1"]  # fmt: skip
    values = []
    for name, settings in {
        "csv": ["dataset=csv", f"dataset.path={tmp_path / 'in.csv'}"],
        "dgl": ["dataset=dgl", f"dataset.path={tmp_path / 'graphs.bin'}"],
    }.items():
        overrides = [*common, *settings]
        values.append(wiring.start(compose(overrides), tmp_path / name, overrides))
    assert values[0] == values[1]
