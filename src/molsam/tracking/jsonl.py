"""metrics.jsonl, gradients.jsonl and sharpness.jsonl, from which all tables and figures are made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from molsam.errors import StorageError
from molsam.files import RECORDS


class JsonlTracker:
    """Appends a JSON object per line. A resume truncates the files to their lengths at the checkpoint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[str, IO[bytes]] = {}

    def start(self, config: dict[str, Any], state: dict[str, Any]) -> None:
        """Open the files, truncated to the lengths in `state`."""
        for key, name in RECORDS.items():
            length = int(state.get(key, 0))
            path = self.folder / name
            try:
                if length == 0:
                    path.unlink(missing_ok=True)
                    continue
                if path.stat().st_size < length:
                    raise StorageError(f"{path} is shorter than at the checkpoint; start again with overwrite=true.")
                file = open(path, "r+b")  # noqa: SIM115 - stays open for the run
                file.truncate(length)
                file.seek(length)
                self.files[key] = file
            except OSError as error:
                raise StorageError(f"{path} cannot be opened ({error.strerror}); make the folder writable.") from error

    def log(self, record: dict[str, Any]) -> None:
        """Append to metrics.jsonl."""
        self._write("metrics", record)

    def gradients(self, record: dict[str, Any]) -> None:
        """Append to gradients.jsonl."""
        self._write("gradients", record)

    def sharpness(self, record: dict[str, Any]) -> None:
        """Append to sharpness.jsonl."""
        self._write("sharpness", record)

    def state(self) -> dict[str, Any]:
        """Return the lengths of the files, after an fsync, so that no checkpoint is ahead of the files."""
        for key, file in self.files.items():
            with self._written(key):
                file.flush()
                os.fsync(file.fileno())
        return {key: file.tell() for key, file in self.files.items()}

    def finish(self, result: dict[str, Any] | None) -> None:
        """Close the files."""
        for file in self.files.values():
            # A finished run has written everything. An unfinished one repeats its last lines after the checkpoint.
            with suppress(OSError):
                file.close()
        self.files.clear()

    def _write(self, key: str, record: dict[str, Any]) -> None:
        with self._written(key):
            if key not in self.files:
                self.files[key] = open(self.folder / RECORDS[key], "wb")  # noqa: SIM115
            self.files[key].write((json.dumps(record) + "\n").encode())
            if record.get("kind") == "epoch":
                self.files[key].flush()

    @contextmanager
    def _written(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{self.folder / RECORDS[key]} cannot be written ({error.strerror}); free some space, then run the "
                "same command again: it continues from the last checkpoint."
            ) from error
