"""run.log in the run folder and warnings on the terminal, for as long as a run lasts."""

from __future__ import annotations

import contextlib
import logging
import sys
from pathlib import Path

from molsam import terminal
from molsam.errors import NOTE, StorageError

logging.addLevelName(NOTE, "note")


class RunLog:
    """Context manager: gives molsam's loggers a file and the terminal, and takes them back."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "run.log"

    def __enter__(self) -> None:
        try:
            file = _LogFile(self.path, encoding="utf-8")
        except OSError as error:
            raise StorageError(
                f"{self.path} cannot be written ({error.strerror}); choose another folder with paths.outputs=FOLDER."
            ) from error
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        screen = logging.StreamHandler()
        screen.setLevel(NOTE)
        screen.setFormatter(_Fitted("%(levelname)s: %(message)s"))
        self.logger = logging.getLogger("molsam")
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        self.handlers: list[logging.Handler] = [file, screen]
        for handler in self.handlers:
            self.logger.addHandler(handler)

    def __exit__(self, *_: object) -> None:
        for handler in self.handlers:
            self.logger.removeHandler(handler)
            with contextlib.suppress(OSError):
                handler.close()


class _Fitted(logging.Formatter):
    """Lines that fit the screen."""

    def format(self, record: logging.LogRecord) -> str:
        return terminal.fitted(super().format(record), sys.stderr)


class _LogFile(logging.FileHandler):
    """A run is worth more than its log: a full disk is one line on the terminal."""

    told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.told:
            self.told = True
            print(
                f"WARNING: {self.baseFilename} cannot be written ({error.strerror}); free some space.", file=sys.stderr
            )
