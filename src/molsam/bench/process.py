"""Benchmarks in separate processes, which answer each line of input with a line."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import IO, Any

from molsam.errors import ConfigError


class Process:
    """A worker that receives a JSON object, prints "ready", and then answers lines until its input ends."""

    def __init__(
        self, command: Sequence[str], given: Mapping[str, Any], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start the worker. `environment`: variables that differ from those of this process."""
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self.child = subprocess.Popen(
            [*command, json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def __enter__(self) -> Process:
        self.answer()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._input.close()
        if kind is not None:
            self.child.kill()
        self.child.wait()
        assert self.child.stdout is not None
        self.child.stdout.close()
        self.errors.close()

    def ask(self, line: object) -> None:
        """Send a line to the worker, without waiting for the answer."""
        self._input.write(f"{line}\n")
        self._input.flush()

    def answer(self) -> str:
        """Wait for the worker's answer. Raises ConfigError with the last line of a worker that ended."""
        assert self.child.stdout is not None
        line = self.child.stdout.readline()
        if not line:
            self.errors.seek(0)
            words = self.errors.read().decode(errors="replace").strip().splitlines() or ["it gave no reason"]
            raise ConfigError(f"A benchmark process ended: {words[-1][:300]}")
        return line.strip()

    @property
    def _input(self) -> IO[str]:
        assert self.child.stdin is not None
        return self.child.stdin
