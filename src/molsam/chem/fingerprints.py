"""Morgan fingerprints: radius 2, 2048 bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

RADIUS, BITS = 2, 2048


class Morgan:
    """Computes Morgan fingerprints as RDKit bit vectors."""

    def __init__(self, radius: int = RADIUS, bits: int = BITS) -> None:
        self.bits = bits
        self.generator = rdFingerprintGenerator.GetMorganGenerator(radius=radius, fpSize=bits)

    def __call__(self, mol: Chem.Mol) -> Any:
        """Return the fingerprint of a molecule."""
        return self.generator.GetFingerprint(mol)

    def array(self, mols: Sequence[Chem.Mol]) -> np.ndarray:
        """Return the fingerprints of M molecules, uint8 [M, bits]."""
        found = np.zeros((len(mols), self.bits), dtype=np.uint8)
        for row, mol in zip(found, mols, strict=True):
            row[list(self(mol).GetOnBits())] = 1
        return found


def similarities(one: Any, others: Sequence[Any]) -> np.ndarray:
    """Return float64 [M], the Tanimoto similarity of a fingerprint to each other one, from 0 to 1."""
    return np.array(DataStructs.BulkTanimotoSimilarity(one, others), dtype=np.float64)
