"""Reading CSV files of molecules: whatever people have, or one sentence that says what is wrong."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np

from molsam.errors import DataError

DELIMITERS = ",;\t|"
MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
LARGEST = 1e12
"""A label beyond this cannot be a measurement; it would ruin scaling and loss."""
LARGEST_FILE = 2_000_000_000
csv.field_size_limit(1_000_000)


class Table(NamedTuple):
    """A CSV file as text."""

    path: Path
    columns: list[str]
    rows: list[list[str]]
    lines: list[int]
    """line in the file where each row ends, from 1"""
    content: bytes
    """the file as it is, unpacked"""

    def column(self, name: str, *, first: bool = False) -> list[str]:
        """The cells of a column. Raises DataError as `place` does."""
        place = self.place(name, first=first)
        return [row[place] for row in self.rows]

    def place(self, name: str, *, first: bool = False) -> int:
        """Index of a column, the first if there are several and `first` allows it.

        Raises DataError if there is none, naming the nearest, or several.
        """
        count = self.columns.count(name)
        if count == 1 or (count and first):
            return self.columns.index(name)
        if count > 1:
            raise DataError(f"{self.path} has {count} columns named {name!r}; rename them so that one is left.")
        near = get_close_matches(name, self.columns, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(map(repr, self.columns[:20]))}."
        raise DataError(f"{self.path} has no column {name!r}; {hint}")


def read_table(path: Path, *, keep_empty: bool = False) -> Table:
    """Read a CSV file: plain or gzip, with or without BOM, LF or CRLF, comma, semicolon, tab or bar.

    Blank lines are left out; so are rows of empty cells, unless `keep_empty`.
    Raises DataError naming the file (and line) if it is missing, empty, not text, or has a ragged row.
    """
    return parse_table(path, _content(path), keep_empty=keep_empty)


def parse_table(path: Path, packed: bytes, *, keep_empty: bool = False) -> Table:
    """The table in the bytes of a file; raises DataError as `read_table` does."""
    content = _unpacked(path, packed)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path} is not UTF-8 text (line {line}, byte {error.start}); save it as UTF-8.") from error
    if not text.strip():
        raise DataError(f"{path} is empty; give a CSV file with a header line.")
    if "\0" in text:
        raise DataError(f"{path} holds NUL characters, so it is not a CSV text file; save it as UTF-8 text.")
    columns, rows, lines = _split(path, text, keep_empty)
    return Table(path, columns, rows, lines, content)


def labels(table: Table, names: Sequence[str], *, first: bool = False) -> np.ndarray:
    """float64 [rows, names]; NaN where the cell is empty. Raises DataError naming line, column and value."""
    values = np.full((len(table.rows), len(names)), np.nan)
    for t, name in enumerate(names):
        for i, cell in enumerate(table.column(name, first=first)):
            text = cell.strip()
            if text.lower() not in MISSING:
                values[i, t] = _number(table, name, table.lines[i], text)
    return values


def _number(table: Table, column: str, line: int, text: str) -> float:
    try:
        value = float(text)
        if "_" in text:
            raise ValueError
    except ValueError:
        raise DataError(
            f"{table.path}, line {line}, column {column!r}: {text[:60]!r} is not a number; "
            "correct it, leave the cell empty if the label is missing, or name other columns in dataset.targets."
        ) from None
    if not np.isfinite(value) or abs(value) > LARGEST:
        raise DataError(
            f"{table.path}, line {line}, column {column!r}: {text[:60]!r} is not a finite number below {LARGEST:g}; "
            "correct it, or leave the cell empty if the label is missing."
        )
    return value


def _content(path: Path) -> bytes:
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{path} is not a file; name the CSV file itself.")
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read ({reason}); check the path.") from error


def _unpacked(path: Path, content: bytes) -> bytes:
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
            unpacked = file.read(LARGEST_FILE + 1)
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}); fetch it again.") from error
    if len(unpacked) > LARGEST_FILE:
        raise DataError(f"{path} unpacks to more than {LARGEST_FILE} bytes; give a smaller file.")
    return unpacked


def _delimiter(text: str) -> str:
    """The separator that the first line with anything on it has most of, outside quotes."""
    header = re.search(r"[^\r\n]*\S[^\r\n]*", text)
    bare = re.sub(r'"[^"]*"', "", header[0] if header else "")
    return max(DELIMITERS, key=bare.count)


def _split(path: Path, text: str, keep_empty: bool) -> tuple[list[str], list[list[str]], list[int]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    columns: list[str] | None = None
    try:
        for row in reader:
            empty = not any(cell.strip() for cell in row)
            if empty and not (keep_empty and columns is not None and row and len(row) == len(columns)):
                continue
            if columns is None:
                columns = [cell.strip() for cell in row]
                continue
            if len(row) != len(columns):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(row)} cells where the header has {len(columns)}; "
                    "quote cells that contain the delimiter, or correct the line."
                )
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}; correct the quotes of this line.") from error
    if columns is None or not rows:
        raise DataError(f"{path} has a header but no rows; give at least one molecule.")
    return columns, rows, lines
