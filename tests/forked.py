"""Processes forked from one that has imported everything: like new ones, but without the seconds of the imports."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["molsam.wiring.run", "molsam.commands.train", "tests.sweeping.app"])


class Forked:
    """One process in a session of its own; the part of subprocess.Popen that tests need."""

    def __init__(
        self, function: Callable[[list[str]], int], arguments: list[str], folder: Path, out: Path, **env: str
    ) -> None:
        settings = (function, arguments, folder, out, {**os.environ, "OMP_NUM_THREADS": "1", **env})
        self.process: BaseProcess = CONTEXT.Process(target=_run, args=settings)
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    def poll(self) -> int | None:
        """The exit code, or minus the signal; None while it runs."""
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; the exit code."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise TimeoutExpired(str(self.pid), timeout or 0.0)
        return self.process.exitcode

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()

    def terminate(self) -> None:
        """Ask it to end."""
        os.kill(self.pid, signal.SIGTERM)


def train_py(arguments: list[str]) -> int:
    """What `python train.py ARGUMENTS` runs."""
    from molsam.commands.train import main

    sys.argv = ["train.py", *arguments]
    return main()


def _run(
    function: Callable[[list[str]], int], arguments: list[str], folder: Path, out: Path, env: dict[str, str]
) -> Any:
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    sys.exit(function(arguments))
