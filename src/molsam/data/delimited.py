"""Delimited text: CSV, TSV, semicolons, bars; in UTF-8 or UTF-16.

Split by Python's own csv module and not by pandas: uneven rows are refused, with their line, and pandas takes longer to
import than a small run to train.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

from molsam.errors import DataError

DELIMITERS = ",;\t|"
SEP = re.compile(r'^\s*"?sep=([^\r\n])"?[ \t]*(\r\n|\r|\n)', re.IGNORECASE)
"""Excel's first line that names the delimiter."""
csv.field_size_limit(1_000_000)


def decoded(path: Path, content: bytes) -> str:
    """The text of a file. Raises DataError if it is empty, or neither UTF-8 nor UTF-16."""
    encoding = _encoding(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} is not {encoding[:6].rstrip('-').upper()} text (line {line}, byte {error.start}); save it as UTF-8."
        ) from error
    text = text.removeprefix("\ufeff")
    if not text.strip():
        raise DataError(f"{path} is empty; give a CSV file with a header line.")
    if text.lstrip()[:200].casefold().startswith(("<!doctype html", "<html")):
        raise DataError(f"{path} is a web page and not a table; download the file itself again.")
    if "\0" in text:
        raise DataError(f"{path} holds NUL characters, so it is not a CSV text file; save it as UTF-8 text.")
    return text


def split(path: Path, text: str, smiles: str) -> dict[str, Any]:
    """Columns, cells, numbers and lines of a table.

    The delimiter is the one under which `smiles` is a column and all rows are even; if none is, the one that the
    header has most of, whose trouble is then told.
    """
    skipped = SEP.match(text)
    if skipped:
        return _parts(path, text[skipped.end() :], skipped[1], 1)
    header = re.search(r"[^\r\n]*\S[^\r\n]*", text)
    bare = re.sub(r'"[^"]*"', "", header[0] if header else "")
    most = max(DELIMITERS, key=bare.count)
    for delimiter in sorted(DELIMITERS, key=bare.count, reverse=True):
        if bare.count(delimiter) and _names(header[0] if header else "", delimiter, smiles):
            try:
                return _parts(path, text, delimiter, 0)
            except DataError:
                continue
    return _parts(path, text, most, 0)


def _names(header: str, delimiter: str, smiles: str) -> bool:
    """Whether a header cut by a delimiter names the SMILES column."""
    cells = next(csv.reader([header], delimiter=delimiter))
    return smiles.lower() in (cell.strip().lower() for cell in cells)


def _encoding(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    start = content[:2000]
    if len(start) >= 4 and not len(content) % 2:
        # Plain text in UTF-16 without a mark: every other byte is 0.
        for place, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
            if not any(start[place::2]) and all(start[1 - place :: 2]):
                return encoding
    return "utf-8-sig"


def _blank(row: list[str], width: int) -> bool:
    """Whether a line does not count, as with pandas: in a file of one column, an empty cell in quotes does."""
    return not row or (len(row) == 1 and not row[0].strip() and (row[0] != "" or width > 1))


def _parts(path: Path, text: str, delimiter: str, before: int) -> dict[str, Any]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        for row in reader:
            if columns is None:
                if any(map(str.strip, row)):
                    columns = [cell.strip() for cell in row]
            elif not _blank(row, len(columns)):
                if len(row) != len(columns):
                    raise DataError(
                        f"{path}, line {reader.line_num + before}: {len(row)} cells where the header has {len(columns)}; "
                        "quote cells that contain the delimiter, or correct the line."
                    )
                rows.append(row)
                lines.append(reader.line_num + before)
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num + before}: {error}; correct the quotes of this line."
        ) from error
    if columns is None or not rows:
        raise DataError(f"{path} has a header but no rows; give at least one molecule.")
    cells = [list(column) for column in zip(*rows, strict=True)]
    return {"columns": columns, "cells": cells, "numbers": list(range(len(rows))), "lines": lines}
