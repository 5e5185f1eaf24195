"""Random molecule-like graphs, made without a featurizer."""

from __future__ import annotations

import numpy as np

from molsam.chem.arrays import MolArrays
from molsam.data.packed import PackedMolecules, pack


def random_molecules(
    seed: int,
    sizes: list[int],
    *,
    node_dim: int = 7,
    edge_dim: int = 5,
    n_types: int = 3,
    node_types: int | None = None,
    self_loops: bool = False,
) -> PackedMolecules:
    """Molecules of `sizes` atoms: random forests with a few rings, real node features, n_types kinds of bonds; no two
    atoms alike, or of so many node_types.

    A third of the atoms are not bonded to an earlier one, so single atoms and fragments occur.
    """
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(n_types + 1, edge_dim)).astype(np.float32)
    nodes = rng.normal(size=(node_types or sum(sizes), node_dim)).astype(np.float32)
    atoms = rng.integers(node_types, size=sum(sizes)) if node_types else np.arange(sum(sizes))
    parts = np.split(nodes[atoms], np.cumsum(sizes)[:-1])
    return pack([_molecule(rng, part, kinds, self_loops) for part in parts], self_loops=self_loops)


def _molecule(rng: np.random.Generator, nodes: np.ndarray, kinds: np.ndarray, self_loops: bool) -> MolArrays:
    n = len(nodes)
    bonds = [(int(rng.integers(i)), i) for i in range(1, n) if rng.random() > 1 / 3]
    if n > 4:
        bonds += [(0, n - 1)] if (0, n - 1) not in bonds else []
    directed = [end for a, b in bonds for end in ((a, b), (b, a))]
    types = np.repeat(rng.integers(len(kinds) - 1, size=len(bonds)), 2)
    if self_loops:
        directed += [(i, i) for i in range(n)]
        types = np.concatenate([types, np.full(n, len(kinds) - 1)])
    src, dst = np.array(directed, dtype=np.int32).reshape(-1, 2).T
    return MolArrays(nodes, kinds[types.astype(np.int64)], src, dst)
