"""A study's journal that survives processes killed while they write, and reports when it waits for a lock."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

log = logging.getLogger(__name__)

PATIENCE = 3.0
"""Seconds of waiting for another process's lock before a warning."""

STALE = 30
"""Seconds without a change after which a lock is taken over, because its process was killed."""


class Journal(JournalFileBackend):
    """An append-only file of JSON lines, one per operation, for processes that share its folder.

    Args:
        file_path: path of the journal.
    """

    def __init__(self, file_path: str) -> None:
        Path(file_path).parent.mkdir(parents=True, exist_ok=True)
        self.path = Path(file_path)
        self.lock = Lock(file_path)
        super().__init__(file_path, lock_obj=self.lock)
        self._drop_torn_tail()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations, after removing an incomplete line that a killed process left."""
        text = "".join(json.dumps(one, separators=(",", ":")) + "\n" for one in logs)
        self.lock.acquire()
        try:
            self._cut()
            with open(self.path, "ab") as file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        finally:
            self.lock.release()

    def _drop_torn_tail(self) -> None:
        if _torn(self.path):
            self.lock.acquire()
            try:
                self._cut()
            finally:
                self.lock.release()

    def _cut(self) -> None:
        """Remove an incomplete last line. The lock is held, so no process is writing it."""
        tail = _torn(self.path)
        if tail:
            log.warning(
                "%s ends in the middle of a line, because a process was killed while writing it; the last %d bytes are "
                "removed.",
                self.path,
                tail,
            )
            os.truncate(self.path, self.path.stat().st_size - tail)


class Lock(JournalFileSymlinkLock):
    """A lock that works on network file systems, and warns when it has to wait."""

    def __init__(self, file_path: str) -> None:
        super().__init__(file_path, grace_period=STALE)

    def acquire(self) -> bool:
        """Take the lock, waiting for it if necessary."""
        if not os.path.lexists(self._lock_file):
            return super().acquire()
        note = threading.Timer(PATIENCE, self.say)
        note.daemon = True
        note.start()
        try:
            return super().acquire()
        finally:
            note.cancel()

    def say(self) -> None:
        """Warn that the lock is held by another process."""
        log.warning(
            "Waiting for %s: another process writes to the study, or was killed while writing; if nothing changes, the "
            "lock is taken over after %d s.",
            self._lock_file,
            STALE,
        )


def _torn(path: Path, block: int = 1 << 16) -> int:
    """Return the number of bytes after the last line break of a file."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        seen = b""
        while len(seen) < size and b"\n" not in seen:
            start = max(size - len(seen) - block, 0)
            file.seek(start)
            seen = file.read(size - len(seen) - start) + seen
    return len(seen) - seen.rfind(b"\n") - 1
