"""Standard forms of molecules: without salts and solvents, neutral, one tautomer (RDKit's rdMolStandardize)."""

from __future__ import annotations

from functools import cache
from typing import Any

from rdkit import Chem, rdBase

from molsam.errors import InvalidMolecule

HOW = ("none", "largest_fragment", "full")


def standardize(mol: Chem.Mol, how: str | None) -> Chem.Mol:
    """Return a molecule's standard form.

    how: none leaves it as it is; largest_fragment keeps the organic fragment with most atoms; full also normalizes
    functional groups, neutralizes charges and takes RDKit's canonical tautomer.
    Raises InvalidMolecule if RDKit fails.
    """
    if how in (None, "none"):
        return mol
    steps = _steps()
    with rdBase.BlockLogs():
        try:
            if how == "largest_fragment":
                return steps["fragment"].choose(mol)
            mol = steps["uncharge"].uncharge(steps["fragment"].choose(steps["cleanup"](mol)))
            return steps["tautomer"].Canonicalize(mol)
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[-1][:200] if str(error).strip() else type(error).__name__
            raise InvalidMolecule(f"it cannot be standardized ({reason})") from error


@cache
def _steps() -> dict[str, Any]:
    from rdkit.Chem.MolStandardize import rdMolStandardize

    return {
        "cleanup": rdMolStandardize.Cleanup,
        "fragment": rdMolStandardize.LargestFragmentChooser(preferOrganic=True),
        "uncharge": rdMolStandardize.Uncharger(),
        "tautomer": rdMolStandardize.TautomerEnumerator(),
    }
