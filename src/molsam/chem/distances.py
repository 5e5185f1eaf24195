"""Topological distances between the atoms of a molecule."""

from __future__ import annotations

import numpy as np
from rdkit.Chem import Mol, rdmolops

from molsam.chem.arrays import DISCONNECTED
from molsam.errors import InvalidMolecule

LARGE = 68
"""Number of atoms above which scipy's search is faster than RDKit's Floyd-Warshall."""
LARGEST = 5000
"""Largest number of atoms for which distances are computed."""


def topological_distances(mol: Mol, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """Return int16 [n, n], bonds on the shortest path between two atoms, DISCONNECTED between fragments.

    RDKit computes them, or scipy for large molecules. Raises InvalidMolecule for more than LARGEST atoms, because all
    pairs would not fit into memory.

    Args:
        src, dst: int32 [e], both directions of every bond.
    """
    n = mol.GetNumAtoms()
    if n > LARGEST:
        raise InvalidMolecule(f"the molecule has {n} atoms; distances between all pairs are computed up to {LARGEST}")
    if n > LARGE:
        return shortest_paths(n, src, dst)
    # Without `force` RDKit stores the matrix in the molecule, which takes longer than computing it.
    found = rdmolops.GetDistanceMatrix(mol, force=True)
    if found.max() >= n:
        found = np.where(found < n, found, DISCONNECTED)
    return found.astype(np.int16)


def shortest_paths(n: int, src: np.ndarray, dst: np.ndarray) -> np.ndarray:
    """Return int16 [n, n], edges on the shortest path between two of n nodes, DISCONNECTED where there is none.

    Args:
        src, dst: int [e], both directions of every edge; self loops do not count.
    """
    from scipy.sparse import csr_matrix  # imported here: slow to import, and only large molecules need it
    from scipy.sparse.csgraph import shortest_path

    adjacency = csr_matrix((np.ones(len(src)), (src, dst)), shape=(n, n))
    found = shortest_path(adjacency, method="D", directed=False, unweighted=True)
    return np.where(np.isfinite(found), found, DISCONNECTED).astype(np.int16)
