"""The exceptions of molsam: each is one plain sentence that names the field, the value and the remedy.

Exit codes of every command: 0 success; 1 the answer is no (an incomplete report, a rerun that differs);
2 a setting or an argument is wrong; 3 the data are wrong; 4 numbers went wrong (non-finite loss or
gradient); 5 a file cannot be read or written, or is damaged; 70 a defect; 130 Ctrl-C; 143 SIGTERM.
"""

from __future__ import annotations

NOTE = 25
"""Logging level of what a person should see though nothing is wrong; between INFO and WARNING."""


class MolsamError(Exception):
    """Base of all errors a user can cause and mend."""

    exit_code = 2

    def __str__(self) -> str:
        """One line whatever value it quotes: line breaks and control characters are shown as escapes."""
        text = super().__str__()
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class ConfigError(MolsamError):
    """A setting is unknown, of the wrong type, out of range, or does not fit another one."""

    exit_code = 2


class DataError(MolsamError):
    """A data file is missing, unreadable, or holds something that cannot be used."""

    exit_code = 3


class InvalidMolecule(DataError):  # noqa: N818 - reads as the sentence it raises
    """A SMILES string that cannot become a molecule graph; the message is the reason."""


class NumericalError(MolsamError):
    """A loss or a gradient is not finite."""

    exit_code = 4


class StorageError(MolsamError):
    """A file cannot be written or read, or its checksum does not fit."""

    exit_code = 5
