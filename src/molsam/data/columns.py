"""Choice of the columns of a user's own file that hold the molecules, the labels and the ids."""

from __future__ import annotations

import contextlib
import logging
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from molsam.chem.molecule import parse
from molsam.config.command import override
from molsam.data.labels import Column, read_column
from molsam.data.table import Table
from molsam.errors import NOTE, ConfigError, DataError, InvalidMolecule

log = logging.getLogger(__name__)
SHOWN = 12
BOUND = re.compile(r"'?[<>=~≤≥≈]{1,2}'?")
"""A cell of a column with the relation of a label to the measured value, such as ChEMBL's "Standard Relation"."""
ID_NAME = re.compile(
    r"(?i:(.*[ _-])?(id|cid|sid|uid|index|idx|no|nr|num|number|row|serial|#))|.*[a-z](ID|Id|Index|Idx|No|Nr|Number)"
)
"""The last word of a name: mol_id, CAS no, CompoundID."""
FEWEST = 5
"""Fewest rows of a file in which consecutive numbers in any order are ids."""


def smiles_column(table: Table, wanted: str | None = "smiles", setting: str = "dataset.smiles=") -> str:
    """Return the name of the SMILES column.

    It is `wanted`, in any letter case if only one column matches. For None it is the only column of the file.
    `setting` is the setting that messages tell the user to change.
    Raises DataError if there is no such column, or the file has no header.
    """
    if wanted is not None and wanted in table.columns:
        return wanted
    lower = (wanted or "smiles").lower()
    fitting = [name for name in table.columns if name.lower() == lower]
    if len(fitting) == 1:
        return fitting[0]
    named = [name for name in table.columns if name]
    if wanted is None and len(named) == 1:
        return named[0]
    if not fitting:
        refuse_headless(table)
        if lower == "smiles" and len(near := [name for name in table.columns if lower in name.lower()]) == 1:
            typed = override(setting[:-1], near[0]) if setting.endswith("=") else setting + shlex.quote(near[0])
            raise DataError(f"{table.path} has no column {wanted or 'smiles'!r}; if it is {near[0]!r}, add {typed}.")
    table.place(wanted or "smiles")  # raises, with the nearest name, or if there are several
    return wanted or "smiles"


def refuse_headless(table: Table) -> None:
    """Raise DataError if a column's name is a SMILES string, which means that the file has no header line."""
    for name, cells in zip(table.columns, table.cells, strict=True):
        with contextlib.suppress(InvalidMolecule):
            parse(name), parse(cells[0])  # both, because a column of phosphorus contents may be named P
            raise DataError(
                f"{table.path} has no header: its first line contains the molecule {name!r}; add a header line."
            )


def named(table: Table, setting: str, value: Any) -> str:
    """Return the column that a setting names.

    A name that Hydra parsed as a number, a boolean or null is found too.
    Raises ConfigError if several columns match the parsed value, DataError if none does.
    """
    if isinstance(value, str):
        if value not in table.columns:
            lower = [name for name in table.columns if name.lower() == value.lower()]
            place(table, setting, lower[0] if len(lower) == 1 and setting == "dataset.smiles" else value)
        return value
    alike = [name for name in dict.fromkeys(table.columns) if repr(_read(name)) == repr(value)]
    if len(alike) > 1:
        raise ConfigError(
            f"{setting}={value} matches the columns {' and '.join(map(repr, alike))}; put the name in two kinds of "
            f"quotes: {setting}=\"'{alike[0]}'\"."
        )
    if not alike:
        place(table, setting, str(value))
    return alike[0] if alike else str(value)


def place(table: Table, setting: str, name: str) -> int:
    """Return the index of the column that a setting names. Raises DataError like `Table.place`, with the setting."""
    try:
        return table.place(name)
    except DataError as error:
        raise DataError(f"{setting}={name}: {error}") from None


def target_columns(table: Table, value: Any, others: Sequence[str]) -> list[str]:
    """Return the label columns: those that dataset.targets names, else all columns of numbers that are not ids.

    `others` are the columns of other use (molecules, ids, weights, the split). Logs which columns were chosen, and
    which were left out and why. Raises ConfigError or DataError if there is none.
    """
    if value is not None and value != []:
        if isinstance(value, Mapping):
            raise ConfigError(
                f"dataset.targets={value} must be a list of label columns, as in dataset.targets=[pIC50]."
            )
        given = value if isinstance(value, (list, tuple)) else [value]
        names = [named(table, "dataset.targets", one) for one in given]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"{table.path}: column {twice[0]!r} is used twice in dataset.targets; name it once.")
        taken = [name for name in names if name in others]
        if taken:
            raise DataError(
                f"{table.path}: column {taken[0]!r} is used twice, in dataset.targets and as the column of molecules, "
                "ids, weights or the split; name another column in one of the settings."
            )
        return names
    return _chosen(table, others)


def _chosen(table: Table, others: Sequence[str]) -> list[str]:
    candidates, ids, words, left = [], [], [], []
    for place, name in enumerate(table.columns):
        if name in others:
            continue
        if not name:
            left.append(f"the nameless column {place + 1}")
            continue
        if table.columns.count(name) > 1:
            table.place(name)
        column = read_column(name, table.cells[place], commas=[True] * len(table))  # whether it is plain shows later
        if column.kind == "empty":
            left.append(f"{_shown(name)} (empty)")
        elif column.kind == "words" or (column.kind == "class" and column.wrong and not _truth(column)):
            words.append(name)
            left.append(f"{_shown(name)} (no numbers: {column.example})")
            _warn_of_bounds(column)
        elif _is_id(column, table):
            ids.append(name)
        else:
            candidates.append(name)
    doubtful = [name for name in ids if not ID_NAME.fullmatch(name)]
    if not candidates and len(doubtful) == 1:
        candidates, ids = doubtful, [name for name in ids if name not in doubtful]
        log.warning(
            "%s looks like an id, but is used as the label because there is no other column of numbers.", *doubtful
        )
    left += [f"{_shown(name)} (an id)" for name in ids]
    if not candidates:
        what = f" (left out: {_listed(left)})" if left else ""
        # What looks most like classes: the fewest words.
        likely = min(words, key=lambda name: len(set(table.column(name))), default="pIC50")
        typed = override("dataset.targets", likely, listed=True)
        raise DataError(
            f"{table.path} has no label column beside {others[0]!r}{what}; add a column of numbers, or name the label "
            f"columns, as in {typed}."
        )
    log.log(
        NOTE,
        "label column%s: %s%s",
        "" if len(candidates) == 1 else "s",
        _listed(list(map(_shown, candidates))),
        f"; left out: {_listed(left)}" if left else "",
    )
    return candidates


def _warn_of_bounds(column: Column) -> None:
    """Warn if all cells of a column are relations and some have < or >, because the labels may then be bounds."""
    cells = [column.texts[row] for row in column.known]
    bounds = [cell for cell in cells if "<" in cell or ">" in cell]
    if bounds and all(BOUND.fullmatch(cell) for cell in cells):
        log.warning(
            "%s is %s in %d of %d rows, but the labels are used as exact values; if they are bounds, write the sign "
            "before the number, as in >10, and add dataset.censored=bound.", column.name, bounds[0], len(bounds),
            len(cells)
        )  # fmt: skip


def _truth(column: Column) -> bool:
    return all(column.texts[row].casefold() in ("true", "false") for row in column.known)


def _is_id(column: Column, table: Table) -> bool:
    """Return whether a column holds ids: in each file on its own, because ids begin anew there."""
    known = column.values[column.known]
    if not np.equal(known, np.floor(known)).all():
        return False
    if any(re.fullmatch(r"0\d+", column.texts[row]) for row in column.known):
        return True  # 007
    parts = [column.values[rows.start : rows.stop] for rows in table.parts()]
    large = [values for values in parts if len(values) >= 3]
    return bool(large) and all(_are_ids(values, bool(ID_NAME.fullmatch(column.name))) for values in large)


def _are_ids(values: np.ndarray, named_so: bool) -> bool:
    """Return whether whole numbers are ids: they are distinct and have the name of an id, or are consecutive."""
    known = values[~np.isnan(values)]
    if len(np.unique(known)) < len(known):
        return False
    if named_so:
        return True
    steps = np.diff(values if len(values) < FEWEST else np.sort(values))  # NaN if a value is missing
    return bool((steps == 1).all())


def _shown(name: str) -> str:
    """Return a name for a list; in quotes if it contains a comma."""
    return repr(name) if "," in name else name


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _read(name: str) -> Any:
    """Return a column name as Hydra and YAML parse it."""
    if "${" in name:
        return name
    try:
        return OmegaConf.create(f"x: {name}").x
    except Exception:  # whatever YAML or OmegaConf raises, the name is then plain text
        return name
