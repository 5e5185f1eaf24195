"""Every feature equals the published featurizers' stored output exactly."""

from __future__ import annotations

import json

import numpy as np
import pytest

from molsam.chem.arrays import DISCONNECTED, MolArrays
from molsam.chem.chemprop import ChempropFeaturizer
from molsam.chem.compt import ComptFeaturizer
from molsam.chem.dgllife import DgllifeFeaturizer
from molsam.chem.grover import GroverFeaturizer
from molsam.chem.molecule import parse
from tests.paths import GOLDEN, needs_golden

pytestmark = needs_golden


def stored(name: str) -> tuple[np.lib.npyio.NpzFile, list[str]]:
    z = np.load(GOLDEN / f"{name}.npz", allow_pickle=False)
    return z, [str(s) for s in z["smiles"]]


def assert_equal(ours: np.ndarray, reference: np.ndarray) -> None:
    np.testing.assert_array_equal(ours, np.asarray(reference).astype(ours.dtype), strict=True)


def assert_described(one: MolArrays, featurizer: object) -> None:
    """Shapes and types are those of the interface."""
    assert one.nodes.shape[1] == featurizer.node_dim
    assert one.edges.shape == (len(one.src), featurizer.edge_dim)
    assert one.nodes.dtype == one.edges.dtype == np.float32
    assert one.src.dtype == one.dst.dtype == np.int32


def test_compt() -> None:
    z, smiles = stored("compt")
    featurizer = ComptFeaturizer()
    for i, text in enumerate(smiles):
        one = featurizer(parse(text))
        assert_described(one, featurizer)
        n = len(one.nodes)
        dense = np.zeros((n, n, 13), np.float32)
        dense[one.src, one.dst] = one.edges
        assert one.distances is not None
        distances = np.where(one.distances == DISCONNECTED, 1e8, one.distances)
        assert_equal(one.nodes, z[f"feat/{i}/node"])
        assert_equal(dense, z[f"feat/{i}/bond"])
        assert_equal(distances, z[f"feat/{i}/dist"])


@pytest.mark.parametrize(
    ("name", "featurizer"), [("grover", GroverFeaturizer()), ("cmpnn", ChempropFeaturizer(bond_order="pairs"))]
)
def test_grover_and_cmpnn(name: str, featurizer: GroverFeaturizer | ChempropFeaturizer) -> None:
    z, smiles = stored(name)
    for i, text in enumerate(smiles):
        one = featurizer(parse(text))
        assert_described(one, featurizer)
        assert_equal(one.nodes, z[f"feat/{i}/f_atoms"])
        assert_equal(np.concatenate([one.nodes[one.src], one.edges], axis=1), z[f"feat/{i}/f_bonds"])
        assert_equal(one.src, z[f"feat/{i}/b2a"])
        assert_equal(np.arange(len(one.src)) ^ 1, z[f"feat/{i}/b2revb"])
        incoming = z[f"feat/{i}/a2b"]
        for atom in range(len(one.nodes)):
            assert np.flatnonzero(one.dst == atom).tolist() == [b for b in incoming[atom] if b >= 0]


def test_chemprop() -> None:
    z, smiles = stored("dmpnn")
    v1, v2 = ChempropFeaturizer(), ChempropFeaturizer(atoms="v2")
    for i, text in enumerate(smiles):
        one = v1(parse(text))
        assert_described(one, v1)
        assert_equal(one.nodes, z[f"feat/{i}/V"])
        assert_equal(one.edges, z[f"feat/{i}/E"])
        assert_equal(np.stack([one.src, one.dst]), z[f"feat/{i}/edge_index"])
        assert_equal(v2(parse(text)).nodes, z[f"feat_v2default/{i}/V"])


@pytest.mark.parametrize("name", ["gcn", "mpnn"])
def test_dgllife(name: str) -> None:
    z, smiles = stored(name)
    for variant in json.loads(str(z["variants"])):
        config = json.loads(str(z[f"{variant}/config"]))
        featurizer = DgllifeFeaturizer(config["featurizer"], config["self_loop"])
        for i, text in enumerate(smiles):
            one = featurizer(parse(text))
            assert_described(one, featurizer)
            for ours, theirs in zip((one.nodes, one.edges, one.src, one.dst), ("h", "e", "src", "dst"), strict=True):
                assert_equal(ours, z[f"{variant}/feat/{i}/{theirs}"])
