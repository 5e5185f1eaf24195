"""Topological distances between the atoms of a molecule."""

from __future__ import annotations

import numpy as np
from rdkit.Chem import Mol, rdmolops

from molsam.chem.arrays import DISCONNECTED
from molsam.errors import InvalidMolecule

LARGE = 68
"""Atoms from which scipy's search beats RDKit's Floyd-Warshall."""
LARGEST = 5000


def topological_distances(mol: Mol, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """int16 [n, n], bonds on the shortest path between two atoms, DISCONNECTED between fragments.

    src, dst: int32 [e], both directions of every bond. Computed by RDKit, or by scipy for
    large molecules. Raises InvalidMolecule for more than LARGEST atoms, whose pairs would fill the memory.
    """
    n = mol.GetNumAtoms()
    if n > LARGEST:
        raise InvalidMolecule(f"the molecule has {n} atoms; distances between all pairs are computed up to {LARGEST}")
    if n > LARGE:
        return shortest_paths(n, src, dst)
    # `force`: RDKit would otherwise keep the matrix with the molecule, which takes longer than to compute it.
    found = rdmolops.GetDistanceMatrix(mol, force=True)
    if found.max() >= n:
        found = np.where(found < n, found, DISCONNECTED)
    return found.astype(np.int16)


def shortest_paths(n: int, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """int16 [n, n], edges on the shortest path between two of n nodes, DISCONNECTED where there is none.

    src, dst: int [e], both directions of every edge; self loops do not count.
    """
    from scipy.sparse import csr_matrix  # imported here: only large molecules need them, and every start would wait
    from scipy.sparse.csgraph import shortest_path

    adjacency = csr_matrix((np.ones(len(src)), (src, dst)), shape=(n, n))
    found = shortest_path(adjacency, method="D", directed=False, unweighted=True)
    return np.where(np.isfinite(found), found, DISCONNECTED).astype(np.int16)
