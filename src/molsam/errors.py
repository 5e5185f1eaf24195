"""The exceptions of molsam: each is one plain sentence that names the field, the value and the remedy.

Exit codes of every command: 0 success; 1 the answer is no (an incomplete report, a rerun that differs); 2 a setting
or an argument is wrong; 3 the data are wrong; 4 a loss or gradient is not finite; 5 a file cannot be read or written,
or is damaged; 6 another process of the run ended; 70 a defect of molsam; 130 Ctrl-C; 143 SIGTERM.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

NOTE = 25
"""Logging level of notes that a user should see although nothing is wrong; between INFO and WARNING."""


class MolsamError(Exception):
    """Base class of all errors that a user can cause and correct."""

    exit_code = 2

    def __str__(self) -> str:
        """Return one line; line breaks and control characters in quoted values become escapes."""
        text = super().__str__()
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class ConfigError(MolsamError):
    """A setting is unknown, of the wrong type, out of range, or does not fit another one."""

    exit_code = 2


class DataError(MolsamError):
    """A data file is missing, unreadable, or has values that cannot be used."""

    exit_code = 3


class InvalidMolecule(DataError):  # noqa: N818 - reads as the sentence it raises
    """A SMILES string that cannot become a molecule graph; the message is the reason."""


class NumericalError(MolsamError):
    """A loss or a gradient is not finite."""

    exit_code = 4


class StorageError(MolsamError):
    """A file cannot be written or read, or its checksum is wrong."""

    exit_code = 5


class ProcessLost(MolsamError):  # noqa: N818 - it is not the user's error
    """Another process that trains the same run ended before it did."""

    exit_code = 6


def counted(count: int, noun: str) -> str:
    """Return a count with its noun: 1 molecule, 2 molecules."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def nearest(word: str, words: Iterable[str], least: float = 0.6) -> str | None:
    """Return the one of `words` that is most similar to a mistyped word, or None if none is similar enough.

    Similarity is the larger of difflib's ratio and the share of letters that remain after the fewest insertions,
    deletions, substitutions and swaps.
    """

    def alike(other: str) -> float:
        share = 1 - _edits(word, other) / max(len(word), len(other), 1)
        return max(SequenceMatcher(None, word, other).ratio(), share)

    best = max(words, key=alike, default=None)
    return best if best is not None and alike(best) >= least else None


def _edits(a: str, b: str) -> int:
    """Fewest letters to add, drop, change, or swap with the next one, that make b of a."""
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        rows.append([i])
        for j, y in enumerate(b, 1):
            cost = min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, rows[i - 2][j - 2] + 1)
            rows[i].append(cost)
    return rows[-1][-1]
