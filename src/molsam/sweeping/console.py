"""What a person sees of a sweep: one line for each cell that ends, each warning once, one live line for the whole."""

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
"""In a run's folder: what the run itself would have printed."""


class Count(NamedTuple):
    """Where a sweep stands; `total` cells, some of them `before` this process started; `left` is the time of those to
    come over that of those that have ended since, if their times are known."""

    done: int
    failed: int
    running: int
    total: int
    before: int
    left: float | None = None


class Ended(NamedTuple):
    """A cell that has ended: its name, how, after how many seconds, and the warnings it gave."""

    name: str
    how: str
    seconds: float | None
    warnings: tuple[str, ...] = ()


def line(name: str, count: Count, elapsed: float, noun: str = "cells") -> str:
    """One line: `table3: 12 of 60 cells, 1 failed, 2 running, 0:10:03 so far, about 0:40:12 left`."""
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
    """h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class Console:
    """Context manager: a thread that prints cells as they end, and the line of the whole below them.

    Args:
        name: of the sweep.
        look: asks the study where it stands, and which cells have ended since; called from the thread alone, and once
            more at the end.
        stream: where to; the live line is for terminals, elsewhere each line of a cell says where the sweep stands.
        every: seconds between two looks.
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
        """Print what is new; a busy storage is asked again later."""
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
            # A line that wraps could not be taken back.
            self._write(f"\r\x1b[K{whole[: shutil.get_terminal_size().columns - 1]}")

    def _warn(self, text: str, name: str) -> None:
        if text not in self.warned:
            self.warned.add(text)
            self._write(f"WARNING: {text} ({name}; said once)\n")

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()

    def _run(self) -> None:
        while not self.stop.wait(self.every):
            self.show()


class Hushed:
    """Context manager: what a run prints goes to a file of its folder, its warnings to the sweep.

    Args:
        folder: the run's.
        warned: takes the warnings of the run at its end, if there were any.
    """

    def __init__(self, folder: Path, warned: Callable[[list[str]], Any]) -> None:
        self.folder, self.warned = folder, warned
        self.warnings: dict[str, None] = {}
        self.stack = contextlib.ExitStack()

    def __enter__(self) -> Hushed:
        try:
            file = self.stack.enter_context(open(self.folder / LOG, "a", encoding="utf-8", errors="replace"))
        except OSError:
            return self  # the run itself says what is wrong with its folder
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
    """Keeps the text of every warning once."""

    def __init__(self, found: dict[str, None]) -> None:
        super().__init__(logging.WARNING)
        self.found = found

    def emit(self, record: logging.LogRecord) -> None:
        self.found[record.getMessage()[:500]] = None
