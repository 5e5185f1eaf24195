"""Parsing of numbers as people write them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from molsam.data.table import Table
from molsam.errors import DataError

LARGEST = 1e12
"""Largest absolute value of a label. A larger one cannot be a measurement, and would ruin scaling and loss."""
COMMA = re.compile(r"\s*(?:[<>≤≥]=?)?\s*[+\u2212-]?(\d*),(\d+)(?:[eE][+-]?\d+)?\s*")


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


def decimal_commas(table: Table, names: Sequence[str], columns: Sequence[Sequence[str]]) -> bool:
    """Return whether a comma is the decimal sign in these columns.

    Raises DataError if commas may also separate thousands, or if other cells have a decimal point.
    """
    found = [
        (name, row, match)
        for name, cells in zip(names, columns, strict=True)
        for row, cell in enumerate(cells)
        if "," in cell and (match := COMMA.fullmatch(cell))
    ]
    if not found:
        return False
    points = any(number(cell) is not None and "." in cell for cells in columns for cell in cells)
    plain = any(len(m[2]) != 3 or m[1] in ("", "0") or len(m[1]) > 3 for _, _, m in found)
    if points or not plain:
        name, row, match = found[0]
        why = "other cells have a decimal point" if points else "the comma may be a decimal or a thousands separator"
        raise DataError(
            f"{table.path}, {table.where(row)}, column {name!r}: {match[0].strip()!r} is ambiguous ({why}); write "
            "numbers with a decimal point and no thousands separator."
        )
    return True
