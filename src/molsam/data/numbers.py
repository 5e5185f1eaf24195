"""Parsing of numbers as people write them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from molsam.data.table import Table
from molsam.errors import DataError

LARGEST = 1e12
"""Largest absolute value of a label. A larger one cannot be a measurement, and would ruin scaling and loss."""
SIGN = r"\s*(?:[<>≤≥]=?)?\s*[+\u2212-]?"
COMMA = re.compile(SIGN + r"(\d*),(\d+)(?:[eE][+-]?\d+)?\s*")
POINT = re.compile(SIGN + r"(?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?\s*")
THOUSANDS = re.compile(SIGN + r"[1-9]\d{0,2}\.\d{3}\s*")
"""A number with a point that may separate thousands. 0.125 is none."""
WHOLE = re.compile(SIGN + r"(\d+)\s*")
SEPARATED = re.compile(SIGN + r"\d{1,3}(?:[ .,'\u2019\u00a0\u202f]\d{3})+(?:[.,]\d+)?\s*")
UNIT = re.compile(SIGN + r"\d*[.,]?\d+(?:[eE][+-]?\d+)?\s*([^\W\d].{0,11}|[%‰°].{0,3})\s*")


def number(text: str, commas: bool = False) -> float | None:
    """Return the number in a text; None if it is not a finite number of at most LARGEST."""
    if commas:
        text = text.replace(",", ".")
    text = text.replace("\u2212", "-")  # the typographic minus sign
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) <= LARGEST and "_" not in text else None


def remedy(texts: Sequence[str]) -> str:
    """Return how to write cells that are no numbers because of thousands separators or a unit; empty if neither is so.

    At least half of the cells must be of one of these kinds.
    """
    if sum(bool(SEPARATED.fullmatch(text)) for text in texts) * 2 >= len(texts) > 0:
        return "write numbers with a decimal point and no thousands separator"
    units = [match[1] for text in texts if (match := UNIT.fullmatch(text))]
    if len(units) * 2 >= len(texts) > 0 and len(set(units)) <= 3:
        return f"write the number without {units[0]!r}; a unit may stand in the column's name"
    return ""


def decimal_commas(table: Table, names: Sequence[str], columns: Sequence[Sequence[str]]) -> np.ndarray:
    """Return for each row whether a comma is the decimal sign of its file in these columns, bool [n].

    Raises DataError if a file's commas or points may also separate thousands, or if it has both as decimal signs.
    """
    found = np.zeros(len(table), dtype=bool)
    for rows in table.parts():
        cells = {name: column[rows.start : rows.stop] for name, column in zip(names, columns, strict=True)}
        found[rows.start : rows.stop] = _has_commas(table, rows, cells)
    return found


def _has_commas(table: Table, rows: range, columns: dict[str, Sequence[str]]) -> bool:
    """Return whether one file, some rows of the table, has decimal commas."""
    found = list(_matching(COMMA, ",", columns))
    points = list(_matching(POINT, ".", columns))
    if points and all(THOUSANDS.fullmatch(match[0]) for _, _, match in points):
        _refuse_thousands(table, rows, columns)
    if not found:
        return False
    plain = any(_is_decimal(match) for _, _, match in found)
    if points or not plain:
        name, row, match = found[0]
        why = "the comma may be a decimal or a thousands separator"
        if points:
            why = f"other cells have a decimal point, such as {points[0][2][0].strip()!r}"
        raise DataError(
            f"{table.at(rows[row])}, column {name!r}: {match[0].strip()!r} is ambiguous ({why}); write "
            "numbers with a decimal point and no thousands separator."
        )
    return True


def _refuse_thousands(table: Table, rows: range, columns: dict[str, Sequence[str]]) -> None:
    """Raise DataError if points may separate thousands, where each point has three digits behind it.

    Two things make that likely. The other numbers of the column are whole and below 1000: decimals are not. Or another
    column of the file has decimal commas.
    """
    for name, cells in columns.items():
        pointed = [(row, cell.strip()) for row, cell in enumerate(cells) if THOUSANDS.fullmatch(cell)]
        if not pointed or name in table.typed:
            continue
        whole = [int(match[1]) for cell in cells if (match := WHOLE.fullmatch(cell))]
        other = _column_of_commas(table, rows)
        if other is None and not (any(whole) and max(whole) < 1000):
            continue
        row, cell = pointed[0]
        why = (
            "and the numbers without a point are whole" if other is None else f"and column {other!r} has decimal commas"
        )
        raise DataError(
            f"{table.at(rows[row])}, column {name!r}: {cell!r} is ambiguous (each point has three digits behind it, as "
            f"one that separates thousands, {why}); write {cell.replace('.', '')} and no such points, or {cell}0 if "
            "it is a decimal point."
        )


def _column_of_commas(table: Table, rows: range) -> str | None:
    """Return the first column of a file, some rows of the table, that is of numbers with decimal commas."""
    for name, texts in zip(table.columns, table.cells, strict=True):
        cells = [cell for cell in texts[rows.start : rows.stop] if cell.strip()]
        matches = [COMMA.fullmatch(cell) for cell in cells if "," in cell]
        if any(match is not None and _is_decimal(match) for match in matches):
            numbers = sum(bool(COMMA.fullmatch(cell) or WHOLE.fullmatch(cell)) for cell in cells)
            if numbers * 2 > len(cells):
                return name
    return None


def _is_decimal(match: re.Match[str]) -> bool:
    """Return whether a comma cannot separate thousands."""
    return len(match[2]) != 3 or match[1] in ("", "0") or len(match[1]) > 3


def _matching(
    pattern: re.Pattern[str], sign: str, columns: dict[str, Sequence[str]]
) -> Iterator[tuple[str, int, re.Match[str]]]:
    """Yield column, row and match of the cells that match a pattern; `sign` occurs in all of them."""
    for name, cells in columns.items():
        for row, cell in enumerate(cells):
            if sign in cell and (match := pattern.fullmatch(cell)):
                yield name, row, match
