"""What a split says of each row before it is drawn: the part that its file or a column gives, or its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from molsam.data.columns import place
from molsam.data.split_kinds import parts_of
from molsam.data.table import Table
from molsam.data.times import times_of

FIXED = ("predefined", "files", "official")
"""Splits whose parts the user's files give."""


class Given(NamedTuple):
    """Of n rows."""

    parts: np.ndarray | None = None
    """int64 [n], the part of each row; None if it is drawn"""
    times: np.ndarray | None = None
    """float64 [n], the time of each row; None if the split does not use it"""

    def take(self, rows: np.ndarray) -> Given:
        """Return that of some of the rows."""
        return Given(*(None if one is None else one[rows] for one in self))


def given(
    table: Table, files: Sequence[int] | None, rows: np.ndarray, split: Mapping[str, Any], *, times: bool
) -> Given:
    """Return what the split section of the configuration says of some rows of a table.

    Args:
        table: the table of all rows.
        files: each row's file; None if there is one.
        rows: int64 [n], positions in the table.
        split: the split section.
        times: whether times are wanted.

    Raises:
        DataError: a cell of its column cannot be used.
    """
    kind, column = split.get("kind"), split.get("column")
    if files is not None:
        return Given(np.array(files, dtype=np.int64)[rows])
    if not column or kind not in (("predefined", "time") if times else ("predefined",)):
        return Given()
    cells = list(table.cells[place(table, "split.column", column)].take(rows))

    def where(row: int) -> str:
        return table.where(int(rows[row]))

    if kind == "predefined":
        return Given(parts_of(cells, column, where))
    return Given(times=times_of(table, cells, column, where))
