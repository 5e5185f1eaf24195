"""Delimited text: commas, tabs, semicolons or bars; in UTF-8 or UTF-16.

Python's csv module is used instead of pandas because it tells the line of an uneven row, and because importing pandas
takes longer than a small training run.
"""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from molsam.data.texts import AT_ONCE, GrowingTexts
from molsam.errors import DataError, counted

DELIMITERS = ",;\t|"
SEP = re.compile(r'^\s*"?sep=([^\r\n])"?[ \t]*(\r\n|\r|\n)', re.IGNORECASE)
"""The first line by which Excel names the delimiter."""
TITLES = 50
"""Number of lines in which a header is searched for if the first line is not one."""
JSON = re.compile(r'\{|\[\s*[{\["]')
"""The beginning of JSON, with which neither a SMILES nor a header begins."""
csv.field_size_limit(1_000_000)


def decoded(path: Path, content: bytes) -> str:
    """Return the text of a file. Raises DataError if it is empty, or neither UTF-8 nor UTF-16."""
    encoding = _encoding(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} is not {encoding[:6].rstrip('-').upper()} text (line {line}, byte {error.start}); save it as "
            "UTF-8."
        ) from error
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise DataError(f"{path} is empty; give a CSV file with a header line.")
    start = text[:4000].lstrip()
    if start.startswith("<"):  # neither a header nor a SMILES does
        raise DataError(f"{path} is a web page or XML, not a table; download the file itself, as CSV.")
    if JSON.match(start):
        raise DataError(f"{path} is JSON, not a table; save it as CSV or Parquet.")
    if "\0" in text:
        raise DataError(f"{path} contains NUL characters, so it is not a CSV text file; save it as UTF-8 text.")
    return text


def split(path: Path, text: str, smiles: str) -> dict[str, Any]:
    """Return the columns, cells, row numbers and lines of a table.

    The delimiter is the one for which `smiles` is a column and all rows have equal length. If there is none, the most
    frequent delimiter of the header is used, and errors refer to it. A header without any delimiter is split at blanks.
    """
    skipped = SEP.match(text)
    if skipped:
        return _parts(path, text[skipped.end() :], skipped[1], 1, smiles)
    header = re.search(r"[^\r\n]*\S[^\r\n]*", text)
    bare = re.sub(r'"[^"]*"', "", header[0] if header else "")
    most = max(DELIMITERS, key=bare.count)
    for delimiter in sorted(DELIMITERS, key=bare.count, reverse=True):
        if bare.count(delimiter) and _names(header[0] if header else "", delimiter, smiles):
            try:
                return _parts(path, text, delimiter, 0, smiles)
            except DataError:
                continue
    if not bare.count(most) and smiles.lower() in bare.lower().split():
        return _parts(path, "\n".join(map(str.strip, text.splitlines())), " ", 0, smiles)
    return _parts(path, text, most, 0, smiles)


def _names(header: str, delimiter: str, smiles: str) -> bool:
    """Return whether a header, split at a delimiter, contains the SMILES column."""
    cells = next(csv.reader([header], delimiter=delimiter), [])
    return smiles.lower() in (cell.strip().lower() for cell in cells)


def _encoding(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    start = content[:2000]
    if len(start) >= 4 and not len(content) % 2:
        # Plain text in UTF-16 without a byte order mark: every other byte is 0.
        for place, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            if not any(start[place::2]) and all(start[1 - place :: 2]):
                return encoding
    return "utf-8-sig"


def _blank(row: list[str], width: int) -> bool:
    """Return whether a line is skipped. As in pandas, an empty cell in quotes is a row of a file of one column."""
    return not row or (len(row) == 1 and not row[0].strip() and (row[0] != "" or width > 1))


def _uneven(
    path: Path, line: int, text: str, delimiter: str, smiles: str, row: list[str], columns: list[str]
) -> DataError:
    """Return the error for a row that has more or fewer cells than the header."""
    for number, content in enumerate(text.splitlines()[:TITLES], 1):
        if smiles not in map(str.lower, columns) and _names(content, delimiter, smiles):
            return DataError(
                f"{path}, line {number} looks like the header, but is not the first line; delete the lines above it."
            )
    return DataError(
        f"{path}, line {line}: {counted(len(row), 'cell')} where the header has {len(columns)}; quote cells that "
        "contain the delimiter, or correct the line."
    )


def _parts(path: Path, text: str, delimiter: str, before: int, smiles: str) -> dict[str, Any]:
    blanks = delimiter == " "  # several blanks then count as one
    # Not StringIO, which takes four bytes for each letter.
    source = io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8", newline="")
    reader = csv.reader(source, delimiter=delimiter, strict=True, skipinitialspace=blanks)
    columns: list[str] | None = None
    rows: list[list[str]] = []
    cells: list[GrowingTexts] = []
    lines = array("q")
    try:
        for row in reader:
            if columns is None:
                if any(map(str.strip, row)):
                    columns, cells = [cell.strip() for cell in row], [GrowingTexts() for _ in row]
            elif not _blank(row, len(columns)):
                if len(row) != len(columns):
                    raise _uneven(path, reader.line_num + before, text, delimiter, smiles, row, columns)
                rows.append(row)
                lines.append(reader.line_num + before)
                if len(rows) == AT_ONCE:
                    _move(rows, cells)
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num + before}: {error}; correct the quotes of this line."
        ) from error
    if columns is None or not lines:
        raise DataError(f"{path} has a header but no rows; give at least one molecule.")
    _move(rows, cells)
    done = [column.done() for column in cells]
    return {"columns": columns, "cells": done, "numbers": range(len(lines)), "lines": lines}


def _move(rows: list[list[str]], cells: Sequence[GrowingTexts]) -> None:
    """Append rows to the columns, and remove them from the list."""
    for column, texts in zip(cells, zip(*rows, strict=True), strict=bool(rows)):
        column.extend(texts)
    rows.clear()
