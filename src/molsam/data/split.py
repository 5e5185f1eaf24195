"""Splits into train, valid and test: pure functions of the molecules, the settings, the seed and the fold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from molsam.chem.molecule import parse
from molsam.chem.scaffold import scaffold
from molsam.data import split_groups, split_kinds
from molsam.data.given import FIXED
from molsam.data.split_kinds import Parts, group_by
from molsam.data.times import times_of
from molsam.errors import ConfigError, DataError, counted

PARTS = ("train", "valid", "test")
KINDS = ("random", "kfold", "stratified", "scaffold", "cluster", "time", "predefined", "files", "official")


class Split(NamedTuple):
    """The molecules of each part, as indices into the dataset."""

    kind: str
    train: np.ndarray
    """int64, ascending; so are `valid` and `test`"""
    valid: np.ndarray
    test: np.ndarray
    leaked: int
    """number of molecules of valid and test that are also in train (equal canonical SMILES)"""

    @property
    def hash(self) -> str:
        """Hex digest of the three parts."""
        text = "|".join(",".join(map(str, getattr(self, part))) for part in PARTS)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def summary(self) -> dict[str, Any]:
        """Return what result.json stores of it."""
        sizes = [len(getattr(self, part)) for part in PARTS]
        return {"kind": self.kind, "hash": self.hash, "sizes": sizes, "leaked": self.leaked}

    def as_dict(self, rows: np.ndarray, ids: Sequence[str] | None = None) -> dict[str, Any]:
        """Return what split.json stores: the rows of the file in each part, and their ids.

        Args:
            rows: int64 [M], each molecule's row in the file.
            ids: [M], each molecule's id, if the file has ids.
        """
        parts = {part: rows[getattr(self, part)].tolist() for part in PARTS}
        named = {} if ids is None else {"ids": {part: [ids[i] for i in getattr(self, part)] for part in PARTS}}
        return {**self.summary(), **parts, **named}


def make_split(dataset: Any, settings: Mapping[str, Any], seed: int, fold: int) -> Split:
    """Return the split of a dataset.

    Args:
        dataset: what is split.
        settings: the split section of the configuration; its seed, if it has one, is used instead of `seed`.
        seed: the run's seed.
        fold: the number of the fold.

    Raises:
        ConfigError: a setting does not fit.
        DataError: a part would be empty.
    """
    kind, own = settings["kind"], settings.get("seed")
    parts = _parts(dataset, settings, kind, seed if own is None else own, fold)
    for part, rows in zip(PARTS, parts, strict=True):
        if not len(rows):
            raise DataError(
                f"The {part} part of the {kind} split is empty ({counted(len(dataset), dataset.noun)}); give more data "
                "or other fractions."
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
        column = column_of(settings, "the time of each row", "year")
        times = times_of(dataset.table, dataset.split_column(column), column, dataset.where)
        return split_kinds.time_split(groups, times, fractions(settings))
    if kind == "predefined":
        column = column_of(settings, "the part of each row", "part")
        places = split_kinds.parts_of(dataset.split_column(column), column, dataset.where)
        return [np.flatnonzero(places == place) for place in range(3)]
    if kind == "files":
        return split_kinds.files_split(groups, getattr(dataset, "parts", None), share_of(settings), seed, fold)
    if kind == "official":
        return split_kinds.official_split(len(dataset) - dataset.tests, dataset.tests, settings["valid"], seed, fold)
    raise ConfigError(f"split.kind={kind} is not a split; use {', '.join(KINDS[:-1])} or {KINDS[-1]}.")


def _families(dataset: Any, settings: Mapping[str, Any], kind: str) -> tuple[list[str], str]:
    """Return the group of each molecule that must stay together, and the word for such a group."""
    texts = dataset.canonical if dataset.standardize != "none" else dataset.smiles
    mols = [parse(smiles) for smiles in texts]
    if kind == "scaffold":
        return [scaffold(mol) for mol in mols], "scaffold"
    cutoff = settings.get("cutoff")
    if cutoff is None or not 0 < cutoff < 1:
        raise ConfigError(f"split.cutoff={cutoff} must be a Tanimoto distance between 0 and 1, such as 0.4.")
    return split_groups.clusters(mols, cutoff), "cluster"


def column_of(settings: Mapping[str, Any], what: str, example: str) -> str:
    """Return split.column. Raises ConfigError if it is not set."""
    column = settings.get("column")
    if not column:
        raise ConfigError(f"split.column is not set; name the column with {what}, as in split.column={example}.")
    return str(column)


def share_of(settings: Mapping[str, Any]) -> float:
    """Return split.valid: the share of the molecules outside the test part. Raises ConfigError if it is not one."""
    share = settings.get("valid")
    if not isinstance(share, (int, float)) or not 0 < share < 1:
        raise ConfigError(
            f"split.valid={share} must be a share, between 0 and 1, of the molecules outside the test part, such as "
            "0.1."
        )
    return float(share)


def fractions(settings: Mapping[str, Any]) -> tuple[float, float]:
    """Return the shares of train and valid; test has the rest. Raises ConfigError if split.fractions are not shares."""
    try:
        train, valid, test = (float(share) for share in settings["fractions"])
    except (TypeError, ValueError):
        train = valid = test = 0.0
    if not (min(train, valid, test) > 0 and abs(train + valid + test - 1) < 1e-6):
        raise ConfigError(f"split.fractions={settings['fractions']} must be three positive numbers that add up to 1.")
    return train, valid


def leaked(canonical: Sequence[str], parts: Sequence[np.ndarray]) -> int:
    """Return the number of molecules of valid and test that are also in train."""
    known = {canonical[row] for row in parts[0]}
    return sum(canonical[row] in known for part in parts[1:] for row in part)


def notes(dataset: Any, split: Split) -> list[str]:
    """Return what a person should know of the labels and parts of a dataset, a sentence each."""
    found = []
    bare, noun = int(np.isnan(dataset.targets).all(1).sum()), dataset.noun
    if bare:
        does = "it trains and judges" if bare == 1 else "they train and judge"
        found.append(f"note: {counted(bare, noun)} without any label; {does} nothing.")
    if split.leaked:
        remedy = "dataset.duplicates=drop, merge or group avoids that"
        if split.kind in FIXED:
            remedy = "the parts are given, and nothing is moved between them; delete these rows from one of the parts"
        found.append(
            f"note: {counted(split.leaked, noun)} of validation or test {'is' if split.leaked == 1 else 'are'} also in "
            f"training; {remedy}."
        )
    return found
