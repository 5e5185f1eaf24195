"""Conversion of cells to labels: numbers, bounds such as >10, true and false, two words, several classes."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from molsam.config.command import override
from molsam.data.numbers import decimal_commas, number, remedy
from molsam.data.table import MISSING, Table
from molsam.errors import NOTE, ConfigError, DataError, counted

log = logging.getLogger(__name__)
BOUND = re.compile(r"\s*(>=|<=|>|<|≥|≤)\s*(.+)")
FEW_TEXTS = 4
"""Number of different cells that a sentence shows."""
TRUTH = {"false": 0.0, "true": 1.0}
NEGATIONS = ("in", "im", "ir", "il", "un", "non", "non-", "not ", "not-", "not_", "no ", "no-", "non ", "non_")
PAIRS = {("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"), ("negative", "positive"), ("neg", "pos"), ("-", "+"),
         ("fail", "pass"), ("low", "high"), ("off", "on")}  # fmt: skip
"""Known pairs of words: (negative, positive)."""


@dataclass
class Labels:
    """Labels of n rows for T tasks."""

    values: np.ndarray
    """float64 [n, T], NaN where missing; a class is its number"""
    task: str
    """regression, classification or multiclass"""
    bounds: np.ndarray | None = None
    """int8 [n, T]: 1 where the value is at least the label, -1 where it is at most the label; None if there is none"""
    classes: list[list[str]] | None = None
    """[T], the names of each task's classes; None if the file has 0 and 1"""

    def take(self, rows: np.ndarray) -> Labels:
        """Return copies of the labels of some rows."""
        return replace(self, values=self.values[rows], bounds=None if self.bounds is None else self.bounds[rows])


def tell(table: Table, columns: Sequence[Column], task: str) -> None:
    """Log what may be misread: words that count as missing labels, and numbers that may be classes."""
    for column in columns:
        words = Counter(cell.strip() for cell in table.column(column.name, first=True) if cell.strip())
        nothing = {word: count for word, count in words.items() if word.lower() in MISSING}
        if nothing:
            shown = ", ".join(f"{word!r} ({count})" for word, count in list(nothing.items())[:5])
            log.log(NOTE, "%s: read as missing labels: %s.", column.name, shown)
        found = np.unique(column.values[column.known]).tolist()
        if task == "regression" and len(found) == 2 < len(column.known) and not column.bounds.any():
            log.warning(
                "%s has only the values %g and %g, which are used as numbers; if they are classes, "
                "add dataset.task=classification.",
                column.name, *found,
            )  # fmt: skip


@dataclass
class Column:
    """A label column whose cells were read as numbers, bounds or words."""

    name: str
    texts: list[str]
    """empty where missing"""
    values: np.ndarray
    """float64 [n], NaN where the cell is empty or not a number"""
    bounds: np.ndarray
    """int8 [n]: 1 where the value is at least the label, -1 where it is at most the label, else 0"""
    wrong: list[int]
    """rows whose cell is neither a number nor a bound"""

    @property
    def known(self) -> list[int]:
        """Rows with a label."""
        return [row for row, text in enumerate(self.texts) if text]

    @property
    def example(self) -> str:
        """The first cell that is not a number, for messages; empty if there is none."""
        return repr(self.texts[self.wrong[0]][:30]) if self.wrong else ""

    @property
    def kind(self) -> str:
        """number, class, words (no numbers at all), or empty."""
        known = len(self.known)
        if not known:
            return "empty"
        words = {self.texts[row].casefold() for row in self.known}
        if words <= set(TRUTH):
            return "class"
        if len(self.wrong) > known / 2:
            return "class" if len(words) == 2 else "words"
        if self.wrong or self.bounds.any():
            return "number"
        found = set(np.unique(self.values[self.known]).tolist())
        return "class" if found == {0.0, 1.0} else "one" if found in ({0.0}, {1.0}) else "number"


def read_column(name: str, cells: Sequence[str], commas: Sequence[bool] | np.ndarray) -> Column:
    """Read the cells of a label column; `commas`: for each row, whether a comma is the decimal point."""
    texts = ["" if cell.strip().lower() in MISSING else cell.strip() for cell in cells]
    values, bounds, wrong = np.full(len(texts), np.nan), np.zeros(len(texts), dtype=np.int8), []
    for row, text in enumerate(texts):
        if not text:
            continue
        sign, rest = 0, text
        if match := BOUND.fullmatch(text):
            sign, rest = (1 if match[1] in (">", ">=", "≥") else -1), match[2]
        value = number(rest, bool(commas[row]))
        if value is None:
            wrong.append(row)
        else:
            values[row], bounds[row] = value, sign
    return Column(name, texts, values, bounds, wrong)


def read_columns(table: Table, names: Sequence[str], *, first: bool = False) -> list[Column]:
    """Read label columns, all of one file with the same decimal sign.

    Raises DataError if a column does not exist, or if it is not plain which sign it is.
    """
    cells = [table.column(name, first=first) for name in names]
    commas = decimal_commas(table, names, cells)
    return [read_column(name, texts, commas) for name, texts in zip(names, cells, strict=True)]


def labels(table: Table, columns: Sequence[Column], settings: Mapping[str, Any]) -> Labels:
    """Return the labels of columns, according to dataset.task, dataset.positive and dataset.censored.

    Raises DataError for a cell that is not a valid label, or for columns of different kinds. The message names row,
    column, value and remedy.
    """
    task = settings.get("task") or _infer(table, columns)
    if task == "regression":
        return _numbers(table, columns, settings.get("censored"))
    if task == "multiclass":
        numbered = [_classes(table, column) for column in columns]
        return Labels(
            np.stack([values for values, _ in numbered], axis=1), task, None, [names for _, names in numbered]
        )
    told, undecided = _told(columns, settings.get("positive")), dict[str, list[str]]()
    pairs = [_pair(table, column, told.get(column.name), undecided) for column in columns]
    if undecided:
        which = ", and ".join(f"column {name!r} has the classes {_and(names)}" for name, names in undecided.items())
        typed = override("dataset.positive", list(dict.fromkeys(names[0] for names in undecided.values())))
        one = "which one is" if len(undecided) == 1 else "which ones are"
        raise DataError(f"{table.path}: {which}; say {one} positive, as in {typed}.")
    named = [names for _, names in pairs]
    values = np.stack([values for values, _ in pairs], axis=1)
    return Labels(values, task, None, None if all(names == ["0", "1"] for names in named) else named)


def _infer(table: Table, columns: Sequence[Column]) -> str:
    kinds = {column.name: column.kind for column in columns}
    classes = [name for name, kind in kinds.items() if kind == "class"]
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    words = [column for column in columns if kinds[column.name] == "words"]
    if words:
        column = words[0]
        count = len({text.casefold() for text in column.texts if text})
        what = f"{at(table, column, column.wrong[0])} is not a number"
        if count == 1:
            raise DataError(
                f"{what}, and the column holds no other word; set dataset.task=classification if it is a class, or "
                "name other columns in dataset.targets."
            )
        hint = remedy([column.texts[row] for row in column.wrong])
        if count > _most_classes(column):
            raise DataError(
                f"{what}; {hint or 'write numbers such as 0.52'}, or name other columns in dataset.targets."
            )
        raise DataError(
            f"{what}, and the column holds {count} different words; {f'{hint}, ' if hint else ''}set "
            "dataset.task=multiclass if they are classes, or name other columns in dataset.targets."
        )
    if classes and numbers:
        raise DataError(
            f"{table.path}: column {classes[0]!r} has classes and {numbers[0]!r} has numbers, and one model cannot "
            "learn both; name columns of one kind in dataset.targets, or set dataset.task=regression."
        )
    return "regression" if numbers else "classification"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _others_like(column: Column) -> str:
    """Return a phrase with the number of other cells that are no numbers, and some of them; empty if there are none."""
    others = [column.texts[row] for row in column.wrong[1:]]
    shown = list(dict.fromkeys(others))[:FEW_TEXTS]
    more = ", ..." if len(set(others)) > FEW_TEXTS else ""
    return f" (nor {counted(len(others), 'other cell')}: {', '.join(map(repr, shown))}{more})" if others else ""


def _numbers(table: Table, columns: Sequence[Column], censored: str | None) -> Labels:
    for column in columns:
        if column.kind == "class" and column.wrong:
            truth = [TRUTH.get(text.casefold(), np.nan) for text in column.texts]
            column.values, column.wrong = (
                np.array(truth),
                [] if not np.isnan(truth)[column.known].any() else column.wrong,
            )
        if column.wrong:
            text = column.texts[column.wrong[0]]
            what = "finite number below 1e+12" if _is_number(text) else "number"
            hint = ("" if _is_number(text) else remedy([text])) or "correct it"
            raise DataError(
                f"{at(table, column, column.wrong[0])} is not a {what}{_others_like(column)}; {hint}, leave the cell "
                "empty if the label is missing, or name other columns in dataset.targets."
            )
        bounded = np.flatnonzero(column.bounds)
        if len(bounded) and censored != "bound":
            raise DataError(
                f"{at(table, column, bounded[0])} is a bound, not a value (the column has {len(bounded)}); set "
                "dataset.censored=bound to train on bounds, or empty these cells."
            )
    bounds = np.stack([column.bounds for column in columns], axis=1)
    values = np.stack([column.values for column in columns], axis=1)
    return Labels(values, "regression", bounds if bounds.any() else None)


def _classes(table: Table, column: Column) -> tuple[np.ndarray, list[str]]:
    """Return the number of each row's class, and the names of the classes.

    Classes are sorted: numbers by value, then words alphabetically.
    """
    tokens = [_token(text) for text in column.texts]
    names: dict[Any, str] = {}
    for token, text in zip(tokens, column.texts, strict=True):
        if text:
            names.setdefault(token, text)
    order = sorted(names, key=lambda token: (isinstance(token, str), token))
    if len(order) > _most_classes(column):
        raise DataError(
            f"{table.path}: column {column.name!r} has {len(order)} different values in {len(column.known)} rows, too "
            "many for classes; set dataset.task=regression or name another column in dataset.targets."
        )
    place = {token: float(i) for i, token in enumerate(order)}
    values = [place[token] if text else np.nan for token, text in zip(tokens, column.texts, strict=True)]
    return np.array(values), [names[token] for token in order]


def _most_classes(column: Column) -> int:
    return max(20, len(column.known) // 2)


def _told(columns: Sequence[Column], positive: Any) -> dict[str, Any]:
    """Return the positive class of each column for which dataset.positive tells it.

    It is a mapping from columns to words, or a word or several that each count in all columns of which they are a
    class. Raises ConfigError if a column or word is unknown, or if two words are classes of one column.
    """
    names = [column.name for column in columns]
    if isinstance(positive, Mapping):
        told = {str(name): word for name, word in positive.items()}
        if unknown := [name for name in told if name not in names]:
            raise ConfigError(f"dataset.positive names {unknown[0]!r}, which is no label column; use {_and(names)}.")
        return told
    words = [] if positive is None else list(positive) if isinstance(positive, (list, tuple)) else [positive]
    if len(columns) == len(words) == 1:
        return {names[0]: words[0]}
    told = {}
    classes = {column.name: {_token(text) for text in column.texts if text} for column in columns}
    for word in words:
        having = [name for name in names if _token(str(word)) in classes[name]]
        if not having:
            raise ConfigError(f"dataset.positive: {word} is not a class of {_and(names)}; give words of these columns.")
        if twice := [name for name in having if name in told]:
            raise ConfigError(
                f"dataset.positive: {told[twice[0]]} and {word} are both classes of column {twice[0]!r}; give one, or "
                f"the column of each, as in 'dataset.positive={{{names[0]}: {word}}}'."
            )
        told |= dict.fromkeys(having, word)
    for name in names:  # a column of one class, whose other one is told
        if name not in told and len(classes[name]) == 1:
            (only,) = classes[name]
            told |= dict.fromkeys([name], next((w for w in words if _opposite(str(only), str(w).casefold())), None))
    return told


def _opposite(negative: str, positive: str) -> bool:
    """Return whether two words in lower case are a known pair."""
    return (negative, positive) in PAIRS or any(negative == negation + positive for negation in NEGATIONS)


def _and(names: Sequence[str]) -> str:
    return " and ".join(map(repr, names))


def _pair(table: Table, column: Column, chosen: Any, undecided: dict[str, list[str]]) -> tuple[np.ndarray, list[str]]:
    """Return 0 or 1 for each row, and the names of the negative and the positive class.

    Adds the column to `undecided` if it is not plain which class is positive.
    """
    numeric = not column.wrong and not column.bounds.any()
    if chosen is None and numeric and np.isin(column.values[column.known], (0.0, 1.0)).all():
        return column.values, ["0", "1"]
    values, names = _classes(table, column)
    if len(names) > 2:
        odd = [row for row in column.known if column.values[row] not in (0.0, 1.0) and row not in column.wrong]
        row = odd[0] if odd else next(row for row in column.known if values[row] > 1)
        raise DataError(
            f"{at(table, column, row)} is not a class; write 0, 1 or nothing, or set dataset.task=regression, or "
            "dataset.task=multiclass for more than two classes."
        )
    place = _positive(column, names, chosen)
    if place is None:
        undecided[column.name] = names
        return values, names
    if place == 0:
        values, names = 1 - values, [*names[1:], names[0]]
    if len(names) == 1:
        names = [f"not {names[0]}", names[0]] if place == 0 else [names[0], f"not {names[0]}"]
    log.log(NOTE, "%s: %r is the positive class.", column.name, names[1])
    return values, names


def _positive(column: Column, names: list[str], chosen: Any) -> int | None:
    """Return the index of the positive class among one or two; None if it is not plain."""
    tokens = [_token(name) for name in names]
    if chosen is not None:
        if _token(str(chosen)) in tokens:
            return tokens.index(_token(str(chosen)))
        if len(names) == 1:
            return 1
        raise ConfigError(
            f"dataset.positive={chosen} is not a class of column {column.name!r}; use {names[0]!r} or {names[1]!r}."
        )
    lower = [name.casefold() for name in names]
    if tokens == [-1.0, 1.0] or lower == ["false"]:
        return 1
    if lower == ["true"]:
        return 0
    for place, (this, other) in enumerate(((lower[0], lower[-1]), (lower[-1], lower[0]))):
        if _opposite(other, this):
            return place
    return None


def _token(text: str) -> Any:
    """Return a key that is equal for cells of the same class: equal numbers, or equal words in any letter case."""
    value = number(text, False)
    return text.casefold() if value is None else value


def at(table: Table, column: Column, row: int) -> str:
    """Return file, row, column and value of a cell, for messages."""
    return f"{table.at(row)}, column {column.name!r}: {column.texts[row][:60]!r}"
