"""Tables of molecules as text, read from the file formats that people use, with one sentence for each fault."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from molsam.data.texts import Texts
from molsam.data.unpack import DGL, PARQUET, read_bytes, unpacked
from molsam.errors import DataError

TITLES = 20
"""Number of first rows among which a header is looked for that is not in the first line."""
MISSING = {"", "na", "n/a", "n.a.", "nan", "-nan", "null", "none", "?", "#n/a", "#na", "#n/a n/a", "<na>", "1.#ind",
           "-1.#ind", "1.#qnan", "-1.#qnan", "#div/0!", "#value!", "#ref!", "#num!", "#name?", "#null!"}  # fmt: skip
"""Cells that count as missing, in lower case: the words of pandas and the errors of Excel."""


@dataclass(frozen=True)
class Table:
    """A table of n rows as text."""

    path: Path
    columns: list[str]
    cells: list[Texts]
    """for each column, n texts"""
    numbers: Sequence[int]
    """number of each row in the file, from 0; blank lines do not count, as in pandas"""
    lines: Sequence[int] | None
    """line of the file where each row ends, from 1; None if the format has no lines"""
    content: bytes
    """the bytes of the file, unpacked"""
    files: list[Path] | None = None
    """each row's file, if there are several"""
    typed: frozenset[str] = frozenset()
    """columns that are numbers in the file, not text"""

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def rows(self) -> list[list[str]]:
        """The cells row by row."""
        return [list(row) for row in zip(*self.cells, strict=True)]

    def column(self, name: str, *, first: bool = False) -> list[str]:
        """Return the cells of a column. Raises DataError like `place`."""
        return list(self.cells[self.place(name, first=first)])

    def place(self, name: str, *, first: bool = False) -> int:
        """Return the index of a column; with `first`, that of the first one if there are several.

        Raises DataError if there is none, with the nearest name, or if there are several.
        """
        count = self.columns.count(name)
        if count == 1 or (count and first):
            return self.columns.index(name)
        if count > 1:
            raise DataError(f"{self.path} has {count} columns named {name!r}; rename them so that one is left.")
        if (line := self._header_below(name)) is not None:
            raise DataError(
                f"{self.path}: the header with {name!r} is {line}, not the first line; remove the lines above it."
            )
        lower = [column for column in self.columns if column.lower() == name.lower()]
        near = lower or get_close_matches(name, self.columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(map(repr, self.columns[:20]))}."
        raise DataError(f"{self.path} has no column {name!r}; {hint}")

    def _header_below(self, name: str) -> str | None:
        """Return where a row with a column's name is, if titles stand above the header; None if there is none."""
        for row in range(min(len(self), TITLES)):
            if any(column[row].strip().lower() == name.lower() for column in self.cells):
                return "row" if self.lines is None else f"line {self.lines[row]}"
        return None

    def where(self, row: int) -> str:
        """Return where a row is in the file, for messages: file, row number and line."""
        file = "" if self.files is None else f"{self.files[row].name}, "
        return f"{file}{self._place(row)}"

    def at(self, row: int) -> str:
        """Return the path of a row's file, and where in it the row is, for messages."""
        return f"{self.path if self.files is None else self.files[row]}, {self._place(row)}"

    def _place(self, row: int) -> str:
        return f"row {self.numbers[row]}" + ("" if self.lines is None else f" (line {self.lines[row]})")

    def parts(self) -> list[range]:
        """Return the rows of each file."""
        if self.files is None:
            return [range(len(self))]
        ends = np.cumsum([len(list(rows)) for _, rows in groupby(self.files)]).tolist()
        return [range(start, end) for start, end in pairwise([0, *ends])]

    def take(self, rows: Sequence[int]) -> Table:
        """Return a table of some of the rows."""
        return replace(
            self,
            cells=[column.take(rows) for column in self.cells],
            numbers=array("q", (self.numbers[row] for row in rows)),
            lines=None if self.lines is None else array("q", (self.lines[row] for row in rows)),
            files=None if self.files is None else [self.files[row] for row in rows],
        )


def joined(tables: Sequence[Table]) -> Table:
    """Return several tables as one, with the columns that all have. A row keeps its number in its own file."""
    if len(tables) == 1:
        return tables[0]
    first = tables[0]
    columns = [name for name in first.columns if all(table.columns.count(name) == 1 for table in tables)]
    lines = [table.lines for table in tables]
    return Table(
        path=first.path,
        columns=columns,
        cells=[Texts.of(cell for table in tables for cell in table.column(name)) for name in columns],
        numbers=array("q", (number for table in tables for number in table.numbers)),
        lines=None if any(one is None for one in lines) else array("q", (line for one in lines for line in one or ())),
        content=b"\0".join(table.content for table in tables),
        files=[table.path for table in tables for _ in table.numbers],
        typed=frozenset.intersection(*(table.typed for table in tables)),
    )


def read_table(path: Path, *, keep_empty: bool = False, smiles: str = "smiles") -> Table:
    """Read a table of molecules: delimited text, Parquet, SDF or .smi; plain, gzip or zip.

    Blank lines are left out, and row numbers do not count them. Rows of empty cells are counted, and are left out
    unless `keep_empty`. `smiles` is the column by which the delimiter of a text file is recognized.
    Raises DataError naming the file (and line) if it is missing, empty, damaged or not text, or has an uneven row.
    """
    return parse_table(path, read_bytes(path), keep_empty=keep_empty, smiles=smiles)


def parse_table(path: Path, packed: bytes, *, keep_empty: bool = False, smiles: str = "smiles") -> Table:
    """Return the table in the bytes of a file. Raises DataError like `read_table`."""
    from molsam.data import delimited, formats

    name, content = unpacked(path, packed)
    suffix = name.lower().rpartition(".")[2]
    parts: dict[str, Any]
    if packed.startswith(DGL):
        from molsam.data import dgl_file  # imports torch, which the plan of a sweep does without

        parts = dgl_file.table(path)
    elif content.startswith(PARQUET):
        parts = formats.parquet(path, content)
    elif suffix in ("sdf", "sd", "mol"):
        parts = formats.sdf(path, content)
    elif suffix in ("smi", "smiles", "ism"):
        parts = formats.smi(path, delimited.decoded(path, content))
    else:
        parts = delimited.split(path, delimited.decoded(path, content), smiles)
    cells = [Texts.of(column) for column in parts.pop("cells")]
    table = Table(path=path, content=content, cells=cells, **parts)
    if not keep_empty:
        empty = {row for row, texts in enumerate(zip(*table.cells, strict=True)) if not any(map(str.strip, texts))}
        table = table.take([row for row in range(len(table)) if row not in empty]) if empty else table
    if not len(table):
        raise DataError(f"{path} has a header but no rows; give at least one molecule.")
    return table
