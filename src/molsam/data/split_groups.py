"""Splits that keep families of molecules together: scaffolds, and clusters of similar molecules."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from molsam.chem.fingerprints import Morgan, similarities
from molsam.data.split_kinds import Parts, group_by
from molsam.errors import DataError

MOST = 30_000
"""Molecules that are clustered at most: all pairs are compared."""


def scaffold_split(scaffolds: Sequence[str], share: tuple[float, float], balanced: bool, seed: int, fold: int) -> Parts:
    """Whole scaffolds, large ones first into train, then valid, then test.

    balanced: scaffolds of more than half the size of valid or test go to train, the others in random order
    (so that seeds and folds differ), as in chemprop's and GROVER's scaffold_balanced.
    """
    sets = sorted(group_by(scaffolds, len(scaffolds)), key=lambda rows: (-len(rows), rows[0]))
    total = len(scaffolds)
    sizes = [share[0] * total, share[1] * total]
    if balanced:
        limit = min(sizes[1], total - sum(sizes)) / 2
        large, small = [s for s in sets if len(s) > limit], [s for s in sets if len(s) <= limit]
        rng = np.random.default_rng([seed, fold, 2])
        sets = [s for group in (large, small) for s in (group[i] for i in rng.permutation(len(group)))]
    parts: list[list[np.ndarray]] = [[], [], []]
    filled = [0, 0]
    for rows in sets:
        place = next((p for p in (0, 1) if filled[p] + len(rows) <= sizes[p] + 1e-9), 2)
        parts[place].append(rows)
        if place < 2:
            filled[place] += len(rows)
    return [np.concatenate(part) if part else np.array([], dtype=np.int64) for part in parts]


def deepchem_split(scaffolds: Sequence[str], share: tuple[float, float]) -> Parts:
    """Whole scaffolds as DeepChem's ScaffoldSplitter has them: by size, of equal ones the last first.

    What does not fit into train goes to valid as long as train and valid together stay within their share.
    """
    sets = sorted(group_by(scaffolds, len(scaffolds)), key=lambda rows: (len(rows), rows[0]), reverse=True)
    first, second = share[0] * len(scaffolds), sum(share) * len(scaffolds)
    parts: list[list[int]] = [[], [], []]
    for rows in sets:
        if len(parts[0]) + len(rows) <= first:
            parts[0] += rows.tolist()
        elif len(parts[0]) + len(parts[1]) + len(rows) <= second:
            parts[1] += rows.tolist()
        else:
            parts[2] += rows.tolist()
    return [np.array(part, dtype=np.int64) for part in parts]


def refuse_oversized(names: Sequence[str], share: float, what: str) -> None:
    """Raise DataError naming a family that is larger than the training part."""
    ((largest, count),) = Counter(names).most_common(1)
    if count > share * len(names) + 1e-9:
        name = f"The {what} {largest!r}" if what == "scaffold" else f"The largest {what}"
        name = name if largest else f"The {what} of molecules without rings"
        raise DataError(
            f"{name} has {count} of {len(names)} molecules, more than the training part takes "
            f"(split.fractions begins with {share:g}); use split=random, or a larger first fraction."
        )


def clusters(mols: Sequence[Any], cutoff: float) -> list[str]:
    """The cluster of each molecule, by the number of its centroid.

    Butina (J. Chem. Inf. Comput. Sci. 1999) on Morgan fingerprints (radius 2, 2048 bits): the molecule with most
    neighbours within the Tanimoto distance `cutoff` takes them all, then the next of those that are left.
    Raises DataError for more molecules than can be compared.
    """
    if len(mols) > MOST:
        raise DataError(
            f"split=cluster compares all pairs, which {len(mols)} molecules are too many for; use split=scaffold."
        )
    prints = list(map(Morgan(), mols))
    near = [np.flatnonzero(1 - similarities(one, prints) <= cutoff) for one in prints]
    free, names = np.ones(len(mols), dtype=bool), [""] * len(mols)
    for centre in sorted(range(len(mols)), key=lambda place: (-len(near[place]), -place)):
        if free[centre]:
            for member in near[centre][free[near[centre]]]:
                names[member], free[member] = str(centre), False
    return names
