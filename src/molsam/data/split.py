"""Train, valid and test: pure functions of the molecules, the settings, the seed and the fold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from molsam.chem.molecule import parse
from molsam.chem.scaffold import scaffold
from molsam.data import split_groups, split_kinds
from molsam.data.split_kinds import Parts, group_by
from molsam.errors import ConfigError, DataError, counted

PARTS = ("train", "valid", "test")
KINDS = ("random", "kfold", "stratified", "scaffold", "cluster", "time", "predefined", "files", "official")


class Split(NamedTuple):
    """Rows of a dataset."""

    kind: str
    train: np.ndarray
    """int64, ascending"""
    valid: np.ndarray
    test: np.ndarray
    leaked: int
    """molecules of valid and test that also stand in train (equal canonical SMILES)"""

    @property
    def hash(self) -> str:
        """Hex digest of which row is where."""
        text = "|".join(",".join(map(str, getattr(self, part))) for part in PARTS)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def summary(self) -> dict[str, Any]:
        """For result.json."""
        sizes = [len(getattr(self, part)) for part in PARTS]
        return {"kind": self.kind, "hash": self.hash, "sizes": sizes, "leaked": self.leaked}

    def as_dict(self, rows: np.ndarray, ids: Sequence[str] | None = None) -> dict[str, Any]:
        """For split.json: each part's rows of the file, and ids.

        Args:
            rows: int64 [M], the row of the file of each molecule.
            ids: of each molecule, if the file has some.
        """
        parts = {part: rows[getattr(self, part)].tolist() for part in PARTS}
        named = {} if ids is None else {"ids": {part: [ids[i] for i in getattr(self, part)] for part in PARTS}}
        return {**self.summary(), **parts, **named}


def make_split(dataset: Any, settings: Mapping[str, Any], seed: int, fold: int) -> Split:
    """The split of a dataset by the settings of conf/split; their own seed, if they have one, takes the place of `seed`.

    Raises:
        ConfigError: a setting does not fit.
        DataError: a part would be empty.
    """
    kind, own = settings["kind"], settings.get("seed")
    parts = _parts(dataset, settings, kind, seed if own is None else own, fold)
    for part, rows in zip(PARTS, parts, strict=True):
        if not len(rows):
            raise DataError(
                f"The {part} part of the {kind} split is empty ({counted(len(dataset), dataset.noun)}); give more of them or other fractions."
            )
    train, valid, test = (np.sort(rows) for rows in parts)
    return Split(kind, train, valid, test, leaked(dataset.canonical, parts))


def _parts(dataset: Any, settings: Mapping[str, Any], kind: str, seed: int, fold: int) -> Parts:
    groups = group_by(dataset.canonical if dataset.duplicates == "group" else None, len(dataset))
    if kind == "random":
        return split_kinds.random_split(groups, fractions(settings), seed, fold)
    if kind == "kfold":
        strata = split_kinds.strata_of(dataset, groups) if settings.get("stratify") else None
        return split_kinds.kfold_split(groups, settings["folds"], share_of(settings), seed, fold, strata)
    if kind == "stratified":
        strata = split_kinds.strata_of(dataset, groups)
        return split_kinds.stratified_split(groups, strata, fractions(settings), seed, fold)
    if kind in ("scaffold", "cluster"):
        names, what = _families(dataset, settings, kind)
        split_groups.refuse_oversized(names, fractions(settings)[0], what)
        if settings.get("convention") == "deepchem":
            return split_groups.deepchem_split(names, fractions(settings))
        return split_groups.scaffold_split(names, fractions(settings), settings["balanced"], seed, fold)
    if kind == "time":
        times = split_kinds.times_of(dataset, settings["column"])
        return split_kinds.time_split(groups, times, fractions(settings))
    if kind == "predefined":
        cells = dataset.split_column(settings["column"])
        return split_kinds.predefined_split(cells, settings["column"], dataset.where)
    if kind == "files":
        return split_kinds.files_split(groups, getattr(dataset, "parts", None), share_of(settings), seed, fold)
    if kind == "official":
        return split_kinds.official_split(len(dataset) - dataset.tests, dataset.tests, settings["valid"], seed, fold)
    raise ConfigError(f"split.kind={kind} is not a split; use {', '.join(KINDS[:-1])} or {KINDS[-1]}.")


def _families(dataset: Any, settings: Mapping[str, Any], kind: str) -> tuple[list[str], str]:
    """What each molecule must not be parted from, and what that is called."""
    texts = dataset.canonical if dataset.standardize != "none" else dataset.smiles
    mols = [parse(smiles) for smiles in texts]
    if kind == "scaffold":
        return [scaffold(mol) for mol in mols], "scaffold"
    cutoff = settings.get("cutoff")
    if cutoff is None or not 0 < cutoff < 1:
        raise ConfigError(f"split.cutoff={cutoff} must be a Tanimoto distance between 0 and 1, such as 0.4.")
    return split_groups.clusters(mols, cutoff), "cluster"


def share_of(settings: Mapping[str, Any]) -> float:
    """split.valid, checked: a share of what is not tested."""
    share = settings.get("valid")
    if not isinstance(share, (int, float)) or not 0 < share < 1:
        raise ConfigError(f"split.valid={share} must be a share of the rest, between 0 and 1, such as 0.1.")
    return float(share)


def fractions(settings: Mapping[str, Any]) -> tuple[float, float]:
    """(train, valid), checked; test is the rest."""
    try:
        train, valid, test = (float(share) for share in settings["fractions"])
    except (TypeError, ValueError):
        train = valid = test = 0.0
    if not (min(train, valid, test) > 0 and abs(train + valid + test - 1) < 1e-6):
        raise ConfigError(f"split.fractions={settings['fractions']} must be three positive numbers that add up to 1.")
    return train, valid


def leaked(canonical: Sequence[str], parts: Sequence[np.ndarray]) -> int:
    """Molecules of valid and test with an equal one in train."""
    known = {canonical[row] for row in parts[0]}
    return sum(canonical[row] in known for part in parts[1:] for row in part)
