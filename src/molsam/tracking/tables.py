"""Writing of tables row by row, such that a file appears only when it is complete."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from molsam.data.formats import unique
from molsam.errors import ConfigError, StorageError
from molsam.files import as_text, is_special
from molsam.terminal import as_data

OTHERS = (".xls", ".xlsx", ".ods", ".sdf", ".smi", ".json", ".gz", ".zip")
"""Suffixes of other kinds of files."""


class Writer(Protocol):
    """Writes a table chunk by chunk."""

    def write(self, names: Sequence[str], columns: Sequence[Any]) -> None:
        """Write some rows. The names of the columns must be the same in each call.

        A column is a list, an array of numbers, or an array of pyarrow. NaN and None become an empty cell, null in
        Parquet.
        """


class _Delimited:
    def __init__(self, stream: TextIO, delimiter: str) -> None:
        self.writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        self.begun = False

    def write(self, names: Sequence[str], columns: Sequence[Any]) -> None:
        if not self.begun:
            self.writer.writerow(map(as_text, names))
            self.begun = True
        rows = zip(*(values.tolist() if isinstance(values, np.ndarray) else values for values in columns), strict=True)
        self.writer.writerows([as_text(cell) if cell == cell else "" for cell in row] for row in rows)


class _Parquet:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer: Any = None

    def write(self, names: Sequence[str], columns: Sequence[Any]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        different: list[str] = []
        for name in names:
            different.append(unique(name, different))  # pandas opens no file in which a name occurs twice
        table = pa.Table.from_arrays(list(map(_arrow, columns)), names=different)
        if self.writer is None:
            self.writer = pq.ParquetWriter(self.path, table.schema)
        self.writer.write_table(table)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _arrow(values: Any) -> Any:
    """Return a column for Parquet. Its type must not depend on which values are there, for each chunk has its own."""
    import pyarrow as pa

    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    if isinstance(values, np.ndarray):
        return pa.array(values, from_pandas=True)
    return pa.array(values, pa.string() if all(value is None or isinstance(value, str) for value in values) else None)


@contextmanager
def writer(path: Path | None) -> Iterator[Writer]:
    """Open a table for writing: Parquet or TSV by its suffix, else CSV; None for CSV on standard output.

    The file appears only when it is complete. A device or a pipe is written to.
    Raises ConfigError for other kinds of files, StorageError if it cannot be written.
    """
    if path is None:
        yield _Delimited(as_data(sys.stdout), ",")
        return
    suffix = path.suffix.lower()
    if suffix in OTHERS:
        raise ConfigError(
            f"{path} is not a table that molsam can write; give a name that ends in .csv, .tsv or .parquet."
        )
    special = is_special(path)
    fresh = path if special else path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix == ".parquet":
                parquet = _Parquet(fresh)
                yield parquet
                parquet.close()
            else:
                with fresh.open("w", newline="", encoding="utf-8") as stream:
                    yield _Delimited(stream, "\t" if suffix == ".tsv" else ",")
                    stream.flush()
                    if not special:
                        os.fsync(stream.fileno())
            if not special:
                os.replace(fresh, path)
        except OSError as error:
            raise StorageError(
                f"{path} cannot be written ({error.strerror or error}); give another path with --output."
            ) from error
    finally:
        if not special:
            fresh.unlink(missing_ok=True)
