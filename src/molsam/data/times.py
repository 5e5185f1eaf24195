"""Times of molecules, read from a column of numbers or dates."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from molsam.data.labels import read_columns
from molsam.data.table import Table
from molsam.errors import DataError

GERMAN = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})")
"""Day, month and year. With points the order is never another, unlike with slashes."""
MONTH = re.compile(r"(0?[1-9]|1[0-2])[./]((?:19|20)\d\d)")
"""Month and year."""
FORMS = ((4, "%Y"), (6, "%Y%m"), (8, "%Y%m%d"))
"""Digits and form of whole numbers that are dates and sort as such."""


def times_of(table: Table, cells: Sequence[str], column: str, where: Callable[[int], str]) -> np.ndarray:
    """Return float64 [M], each molecule's time, from a column of numbers or dates; dates without a zone are UTC.

    Args:
        table: the whole table.
        cells: [M], those of its cells that count.
        column: the name of the column.
        where: returns where a row is in the file.

    Raises:
        DataError: a cell is neither a number nor a date, or the cells are of several kinds.
    """
    cells = [cell.strip() for cell in cells]

    def refuse(row: int, why: str) -> DataError:
        return DataError(f"{where(row)}, column {column!r}: {cells[row][:60]!r} {why}.")

    times, numbers = np.full(len(cells), np.nan), np.zeros(len(cells), dtype=bool)
    months = np.array([bool(MONTH.fullmatch(cell)) for cell in cells])
    try:
        for row, cell in enumerate(cells):
            value = None if "/" in cell else _number(cell)
            numbers[row] = value is not None
            times[row] = _date(cell) if value is None else value
    except (ValueError, OverflowError):
        raise refuse(
            row, "is neither a number nor a date; write a year, or a date such as 2024-05-31 or 31.05.2024"
        ) from None
    if (months & numbers).sum() * 2 > numbers.sum():  # and not a few numbers that look so, such as 3.2011
        numbers &= ~months
        times[months] = [_date(cells[row]) for row in np.flatnonzero(months)]
    if numbers.all():
        read_columns(table, [column])  # refuses points that may separate thousands
        _refuse_forms(cells, refuse)
    elif numbers.any():
        odd = numbers if numbers.sum() * 2 <= len(cells) else ~numbers
        row, other = int(np.flatnonzero(odd)[0]), cells[int(np.flatnonzero(~odd)[0])]
        kinds = ("a number", "dates") if numbers[row] else ("a date", "numbers")
        raise refuse(row, f"is {kinds[0]} among {kinds[1]} such as {other[:60]!r}; write all rows in the same form")
    return times


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    if not np.isfinite(value) or "_" in text:
        raise ValueError(text)
    return value


def _date(text: str) -> float:
    """Return seconds since 1970."""
    if german := GERMAN.fullmatch(text):
        day, month, year = map(int, german.groups())
        found = datetime(year, month, day)
    elif match := MONTH.fullmatch(text):
        found = datetime(int(match[2]), int(match[1]), 1)
    else:
        from dateutil.parser import isoparse

        found = isoparse(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _refuse_forms(cells: Sequence[str], refuse: Callable[[int, str], DataError]) -> None:
    """Raise DataError for whole numbers that are dates, but do not sort as such: 31052024, or 2023 among 20240531."""
    whole = [cell.removesuffix(".0") for cell in cells]
    form_of = {
        cell: next((f for size, f in FORMS if len(cell) == size and _valid(cell, f)), None) for cell in set(whole)
    }
    forms = [form_of[cell] for cell in whole]
    if None not in forms:
        row = next((row for row, form in enumerate(forms) if form != forms[0]), None)
        if row is not None:
            raise refuse(row, f"is a date of another form than {cells[0]!r}; write all rows in the same form")
        return
    padded = [cell.zfill(8) if len(cell) == 7 else cell for cell in whole]
    for form, example in (("%d%m%Y", "31052024"), ("%m%d%Y", "05312024")):
        if all(len(cell) == 8 and _valid(cell, form) for cell in padded):
            raise refuse(0, f"looks like a date such as {example}, which does not sort by time; write it as 2024-05-31")


def _valid(text: str, form: str) -> bool:
    try:
        return text.isdigit() and 1900 <= datetime.strptime(text, form).year < 2100
    except ValueError:
        return False
