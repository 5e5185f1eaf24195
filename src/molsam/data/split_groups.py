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
"""Largest number of molecules that are clustered, because all pairs are compared."""


def scaffold_split(scaffolds: Sequence[str], share: tuple[float, float], balanced: bool, seed: int, fold: int) -> Parts:
    """Return parts of whole scaffolds: the largest scaffolds fill train, the next valid, the rest test.

    balanced: scaffolds larger than half of valid or test come first, and the others follow in random order, so that
    seeds and folds differ. chemprop's and GROVER's scaffold_balanced do the same.
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
    """Return parts of whole scaffolds, as DeepChem's ScaffoldSplitter does.

    Scaffolds are taken by decreasing size; among equal ones the last of the file comes first. A scaffold that does not
    fit into train goes to valid if train and valid together stay within their share, else to test.
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
    """Raise DataError if a group (`what`: scaffold or cluster) is larger than the training part."""
    ((largest, count),) = Counter(names).most_common(1)
    if count > share * len(names) + 1e-9:
        name = f"The {what} {largest!r}" if what == "scaffold" else f"The largest {what}"
        name = name if largest else f"The {what} of molecules without rings"
        raise DataError(
            f"{name} has {count} of {len(names)} molecules, more than fit into the training part "
            f"(split.fractions begins with {share:g}); use split=random, or a larger first fraction."
        )


def clusters(mols: Sequence[Any], cutoff: float) -> list[str]:
    """Return the cluster of each molecule, named by the number of its centroid.

    Butina's algorithm (J. Chem. Inf. Comput. Sci. 1999) on Morgan fingerprints (radius 2, 2048 bits): the molecule with
    the most neighbours within the Tanimoto distance `cutoff` forms a cluster with them; then the next one of those
    left. Raises DataError for more than MOST molecules.
    """
    if len(mols) > MOST:
        raise DataError(
            f"split=cluster compares all pairs of molecules, and {len(mols)} are too many (at most {MOST}); use "
            "split=scaffold."
        )
    prints = list(map(Morgan(), mols))
    near = [np.flatnonzero(1 - similarities(one, prints) <= cutoff) for one in prints]
    free, names = np.ones(len(mols), dtype=bool), [""] * len(mols)
    for centre in sorted(range(len(mols)), key=lambda place: (-len(near[place]), -place)):
        if free[centre]:
            for member in near[centre][free[near[centre]]]:
                names[member], free[member] = str(centre), False
    return names
