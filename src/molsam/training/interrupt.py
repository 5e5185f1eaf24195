"""SIGTERM and Ctrl-C end a run after the next step and a checkpoint; before training begins they end it at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, ClassVar

from molsam.errors import MolsamError


class Interrupted(MolsamError):  # noqa: N818 - it is not the user's error
    """A signal asked the run to stop; exit code 128 + signal."""

    def __init__(self, signum: int, where: str) -> None:
        name = "Ctrl-C" if signum == signal.SIGINT else signal.Signals(signum).name
        super().__init__(f"Stopped by {name} {where}.")
        self.exit_code = 128 + signum


class Interrupts:
    """Context manager: once `deferred` is set, the first signal is remembered, and the second one ends the process."""

    current: ClassVar[Interrupts | None] = None
    """the one of this process's run"""

    def __init__(self) -> None:
        self.pending: int | None = None
        self.deferred = False
        """whether the training loop checks `pending`; before that a signal stops the run at once"""
        self.old: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        Interrupts.current = self
        if threading.current_thread() is threading.main_thread():
            for signum in (signal.SIGINT, signal.SIGTERM):
                self.old[signum] = signal.signal(signum, self._remember)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Interrupts.current = None
        for signum, handler in self.old.items():
            signal.signal(signum, handler)

    @classmethod
    def asked(cls) -> bool:
        """Return whether a signal has asked the run of this process to stop."""
        return cls.current is not None and cls.current.pending is not None

    def error(self, step: int) -> Interrupted:
        """Return the exception that ends the run after a checkpoint."""
        assert self.pending is not None
        return Interrupted(
            self.pending, f"after step {step}; a checkpoint was saved, and the same command continues from it"
        )

    def begin_fold(self) -> None:
        """Raise Interrupted if a signal came while the last fold was written. From now on a signal stops at once."""
        self.deferred = False
        if self.pending is not None:
            raise Interrupted(self.pending, "between two folds; the same command continues with the next")

    def _remember(self, signum: int, frame: FrameType | None) -> None:
        self.pending = signum
        # A second signal ends the process at once.
        signal.signal(signum, self.old[signum])
        if not self.deferred:
            raise Interrupted(signum, "before the first step; the same command starts again")
