"""What a featurizer returns: one molecule as numpy arrays."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from rdkit.Chem import Mol

DISCONNECTED = -1
"""Topological distance between atoms of different fragments, in `MolArrays.distances`."""


class MolArrays(NamedTuple):
    """One molecule; n atoms, e directed bonds.

    Directed bonds come in pairs: 2k runs a -> b and 2k+1 runs b -> a, so the reverse of bond i is i ^ 1.
    Self loops come after all bonds. Only the dgllife featurizers can add them.
    """

    nodes: np.ndarray
    """float32 [n, node_dim], atom features"""
    edges: np.ndarray
    """float32 [e, edge_dim], features of the directed bonds"""
    src: np.ndarray
    """int32 [e], the atom a directed bond leaves"""
    dst: np.ndarray
    """int32 [e], the atom a directed bond enters"""
    distances: np.ndarray | None = None
    """int16 [n, n], topological distance in bonds, DISCONNECTED between fragments; None unless `pairs`"""


class Featurizer(Protocol):
    """Turns an RDKit molecule into arrays.

    Raise VERSION, which is part of the cache key, whenever the output changes.
    """

    VERSION: int
    node_dim: int
    edge_dim: int
    pairs: bool
    """whether `distances` is filled"""
    self_loops: bool
    """whether every atom gets a self loop; reverse edges are then undefined"""

    def __call__(self, mol: Mol) -> MolArrays: ...

    def settings(self) -> dict[str, Any]:
        """Return the constructor's arguments, for the cache key."""
        ...
