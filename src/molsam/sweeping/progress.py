"""The overall line of a sweep: cells done, failed, elapsed, and the time left."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, TextIO


class Count(NamedTuple):
    """Where a sweep stands; `total` cells, some of them `before` this process started; `left` is the time of those to
    come over that of those that have ended since, if their times are known."""

    done: int
    failed: int
    running: int
    total: int
    before: int
    left: float | None = None


def line(name: str, count: Count, elapsed: float) -> str:
    """One line: `table3: 12 of 60 cells, 1 failed, 2 running, 0:10:03 so far, about 0:40:12 left`."""
    parts = [f"{name}: {count.done} of {count.total} cells"]
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


class ProgressLine:
    """Context manager: a thread that prints the line whenever a cell ends, and keeps it fresh on a terminal.

    Args:
        name: of the sweep.
        count: asks the study where it stands; called from the thread.
        in_place: rewrite the line on a terminal, which only works while no job writes there too.
    """

    def __init__(
        self, name: str, count: Callable[[], Count], *, in_place: bool, stream: TextIO | None = None, every: float = 1.0
    ) -> None:
        self.name, self.count, self.every = name, count, every
        self.stream = stream or sys.stderr
        self.in_place = in_place and self.stream.isatty()
        self.started = time.monotonic()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, name="molsam-progress", daemon=True)
        self.last: tuple[int, int] | None = None

    def __enter__(self) -> ProgressLine:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(timeout=5)
        self.show(final=True)

    def show(self, final: bool = False) -> None:
        """Print where the sweep stands, if there is news."""
        from optuna.exceptions import StorageInternalError

        try:
            count = self.count()
        except StorageInternalError:
            return
        text = line(self.name, count, time.monotonic() - self.started)
        ended = (count.done, count.failed)
        if self.in_place:
            self.stream.write(f"\r\x1b[K{text}" + ("\n" if final else ""))
        elif ended != self.last:
            self.stream.write(text + "\n")
        self.last = ended
        self.stream.flush()

    def _run(self) -> None:
        while not self.stop.wait(self.every):
            self.show()
