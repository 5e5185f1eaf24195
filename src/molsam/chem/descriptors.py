"""RDKit's two-dimensional molecule descriptors as model inputs: raw, or normalised as for GROVER."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any

import numpy as np
from rdkit import rdBase
from rdkit.Chem import Mol, MolToSmiles

from molsam.errors import ConfigError

VERSION = 1
NAMES = ("rdkit_2d", "rdkit_2d_normalized")
NORMALIZED = "descriptastorus"
"""The package that holds the fitted distributions."""


def provenance(name: str) -> list[Any]:
    """Return what the values depend on besides the molecule and RDKit, for the cache key.

    Raises ConfigError if a package is missing.
    """
    return [name, VERSION if name == "rdkit_2d" else _version()]


def compute(name: str, mol: Mol) -> np.ndarray:
    """Return one molecule's descriptors, float32 [number of descriptors]; `name` is one of NAMES."""
    return rdkit_2d(mol) if name == "rdkit_2d" else rdkit_2d_normalized(mol)


def descriptor_functions() -> list[tuple[str, Callable[[Mol], Any]]]:
    """Name and function of each descriptor, in RDKit's order (217 in RDKit 2026.09)."""
    # The import takes half a second, so it is left to runs that use descriptors.
    from rdkit.Chem import Descriptors

    return list(Descriptors._descList)


def rdkit_2d(mol: Mol) -> np.ndarray:
    """Return float32 [number of descriptors], each as sign(x) log(1 + |x|); values that RDKit cannot compute are 0.

    Counts, masses and topological indices span six orders of magnitude. The logarithm brings them to a comparable scale
    without fitting anything to a dataset.
    """
    with rdBase.BlockLogs():
        values = np.array([_value(function, mol) for _, function in descriptor_functions()])
    values = np.where(np.isfinite(values), values, 0.0)
    return (np.sign(values) * np.log1p(np.abs(values))).astype(np.float32)


def rdkit_2d_normalized(mol: Mol) -> np.ndarray:
    """Return float32 [200]: each descriptor's quantile (0 to 1) in a distribution fitted to a large set of molecules.

    GROVER and chemprop use these features under the same name. descriptastorus computes them, in tenths of a second
    per molecule. Values that are not finite become 0, and nothing is scaled further.
    """
    with rdBase.BlockLogs():
        computed = _generator().processMol(mol, MolToSmiles(mol))
    values = np.array(computed[1:], dtype=np.float64)
    return np.where(np.isfinite(values), values, 0.0).astype(np.float32)


@cache
def _generator() -> Any:
    _version()
    from descriptastorus.descriptors.rdNormalizedDescriptors import RDKit2DNormalized

    return RDKit2DNormalized()


def _version() -> str:
    try:
        return version(NORMALIZED)
    except ImportError:
        raise ConfigError(
            f"dataset.descriptors=rdkit_2d_normalized needs the package {NORMALIZED}; install it with "
            "pip install 'molsam[descriptors]'."
        ) from None


def _value(function: Callable[[Mol], Any], mol: Mol) -> float:
    try:
        return float(function(mol))
    except (ArithmeticError, RuntimeError, ValueError, IndexError):
        return float("nan")
