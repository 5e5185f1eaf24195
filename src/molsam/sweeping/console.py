"""Terminal output of a sweep: a line for each cell that ends, each warning once, and a live line of the progress."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, TextIO

LOG = "console.log"
"""File in a run folder with the output of the run itself."""


class Count(NamedTuple):
    """Progress of a sweep, as numbers of cells."""

    done: int
    failed: int
    running: int
    total: int
    before: int
    """done before this process started"""
    left: float | None = None
    """estimated time of the remaining cells divided by that of the cells that have ended since; None if unknown"""


class Ended(NamedTuple):
    """A cell that has ended: its name, its outcome, its duration in seconds, and its warnings."""

    name: str
    how: str
    seconds: float | None
    warnings: tuple[str, ...] = ()


def line(name: str, count: Count, elapsed: float, noun: str = "cells") -> str:
    """Return a line such as `table3: 12 of 60 cells, 1 failed, 2 running, 0:10:03 so far, about 0:40:12 left`."""
    parts = [f"{name}: {count.done} of {count.total} {noun}"]
    parts += [f"{count.failed} failed"] if count.failed else []
    parts += [f"{count.running} running"] if count.running else []
    parts.append(f"{duration(elapsed)} so far")
    finished, left = count.done + count.failed - count.before, count.total - count.done - count.failed
    if left > 0:
        share = left / max(finished, 1) if count.left is None else count.left
        parts.append(f"about {duration(elapsed * share)} left" if finished > 0 else "time left not known yet")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Return seconds as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class Console:
    """Context manager with a thread that prints cells as they end, and a live line of the progress below them.

    Args:
        name: name of the sweep.
        look: returns the progress, and the cells that have ended since the last call. It is called from the thread
            only, and once more at the end.
        noun: the word for cells.
        stream: where to print. The live line is only for terminals; elsewhere each cell's line has its number.
        every: seconds between two calls of `look`.
    """

    def __init__(
        self,
        name: str,
        look: Callable[[], tuple[Count, Iterable[Ended]]],
        *,
        noun: str = "cells",
        stream: TextIO | None = None,
        every: float = 1.0,
    ) -> None:
        self.name, self.look, self.noun, self.every = name, look, noun, every
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty()
        self.started = time.monotonic()
        self.warned: set[str] = set()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, name="molsam-console", daemon=True)

    def __enter__(self) -> Console:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()
        self.show()
        if self.live:
            self._write("\r\x1b[K")

    def show(self) -> None:
        """Print what is new. If the storage is busy, the next call prints it."""
        from optuna.exceptions import StorageInternalError

        try:
            count, found = self.look()
        except StorageInternalError:
            return
        whole = line(self.name, count, time.monotonic() - self.started, self.noun)
        ended = list(found)
        first = count.done + count.failed - len(ended) + 1
        clear = "\r\x1b[K" if self.live else ""
        for place, cell in enumerate(ended, start=first):
            took = "" if cell.seconds is None else f" ({duration(cell.seconds)})"
            self._write(f"{clear}[{place}/{count.total}] {cell.name}: {cell.how}{took}\n")
            for text in cell.warnings:
                self._warn(text, cell.name)
        if self.live:
            # Cut to the terminal's width, because a wrapped line could not be erased.
            self._write(f"\r\x1b[K{whole[: shutil.get_terminal_size().columns - 1]}")

    def _warn(self, text: str, name: str) -> None:
        if text not in self.warned:
            self.warned.add(text)
            self._write(f"WARNING: {text} ({name}; shown once)\n")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def _run(self) -> None:
        while not self.stop.wait(self.every):
            self.show()


class CapturedOutput:
    """Context manager that sends a run's output to a file in its folder, and its warnings to the sweep.

    Args:
        folder: the run folder.
        warned: receives the warnings of the run at its end, if there were any.
    """

    def __init__(self, folder: Path, warned: Callable[[list[str]], Any]) -> None:
        self.folder, self.warned = folder, warned
        self.warnings: dict[str, None] = {}
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> CapturedOutput:
        try:
            file = self.stack.enter_context(open(self.folder / LOG, "a", encoding="utf-8", errors="replace"))
        except OSError:
            return self  # the run itself reports what is wrong with its folder
        self.stack.enter_context(contextlib.redirect_stdout(file))
        self.stack.enter_context(contextlib.redirect_stderr(file))
        handler = _Collector(self.warnings)
        logger = logging.getLogger("molsam")
        logger.addHandler(handler)
        self.stack.callback(logger.removeHandler, handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stack.close()
        if self.warnings:
            self.warned(list(self.warnings)[:20])


class _Collector(logging.Handler):
    """Collects the text of every warning once."""

    def __init__(self, found: dict[str, None]) -> None:
        super().__init__(logging.WARNING)
        self.found = found

    def emit(self, record: logging.LogRecord) -> None:
        self.found[record.getMessage()[:500]] = None
