"""Report of what a dataset's file contains, and which of its rows were left out."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from molsam.data.duplicates import Duplicates
from molsam.errors import DataError

log = logging.getLogger(__name__)
SHOWN = 5


@dataclass
class DataReport:
    """Counts of one dataset's file."""

    path: str
    hash: str
    """hex digest of the file's content, unpacked"""
    rows: int
    files: int = 1
    """number of files"""
    verified: bool = False
    """whether the file equals, byte for byte, the copy whose counts and label statistics are documented"""
    invalid: list[tuple[str, str, str]] = field(default_factory=list)
    """(where: row and line, SMILES, reason)"""
    too_large: int = 0
    found: Duplicates = field(default_factory=Duplicates)
    """equal molecules"""
    missing: int = 0
    """number of missing labels of the molecules that were kept"""
    missing_in_file: int = 0
    """number of missing labels of all rows"""
    bounds: int = 0
    """number of labels of the molecules that were kept that are bounds"""

    def summary(self) -> dict[str, Any]:
        """Return what result.json stores of it."""
        return {
            "hash": self.hash,
            "verified": self.verified,
            "rows": self.rows,
            "invalid": len(self.invalid),
            "too_large": self.too_large,
            **self.found.summary(),
            "missing": self.missing,
            "missing_in_file": self.missing_in_file,
            "bounds": self.bounds,
        }

    def refuse_or_tell(self, on_invalid: str) -> None:
        """Raise DataError (`error`) or warn (`drop`) if rows have no valid molecule."""
        if not self.invalid:
            return
        shown = "; ".join(
            f"{where}: {f'{smiles[:80]} ' if smiles.strip() else ''}({reason})"
            for where, smiles, reason in self.invalid[:SHOWN]
        )
        have = "has" if len(self.invalid) == 1 else "have"
        name = Path(self.path).name if self.files == 1 else f"{self.files} files"
        text = f"{name}: {len(self.invalid)} of {self.rows} rows {have} no valid molecule: {shown}"
        if on_invalid == "error":
            raise DataError(f"{text}. Correct them, or drop them with dataset.on_invalid=drop.")
        log.warning("%s%s They are left out.", text, " ..." if len(self.invalid) > SHOWN else ".")
