"""A campaign: many sweeps one after the other, on the machine's spare time.

Each sweep is run by `molsam train` in a process group of its own, at the lowest priority. Finished cells are not run
again, so a campaign that was killed, paused or run twice continues where it stopped.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from molsam.config.cells import Cell, table_cells
from molsam.config.command import TYPED, program, train_arguments
from molsam.config.compose import sweep_section
from molsam.errors import ConfigError, StorageError
from molsam.native.process import cores
from molsam.runs import result
from molsam.runs.folder import locked

FREE = "CAMPAIGN_WORKERS"
"""Environment variable: number of cores that the campaign leaves to other programs."""
LOWEST = 19
"""The nice value of the lowest priority."""
LOOK_EVERY = 2.0
"""Seconds between two checks of the progress."""


@dataclass(frozen=True)
class Job:
    """A sweep of the campaign: its sweep file, the name of its folder, and overrides."""

    sweep: str
    name: str
    changes: tuple[str, ...] = ()

    @property
    def overrides(self) -> list[str]:
        """The arguments of `molsam train --multirun`."""
        named = [] if self.name == self.sweep else [f"sweeps.name={self.name}"]
        return [f"sweeps={self.sweep}", *named, *self.changes, "training.test_each_epoch=true"]

    def cells(self) -> list[Cell]:
        """Return the cells of the sweep."""
        section, _ = sweep_section(self.sweep)
        for change in self.changes:
            key, _, value = change.partition("=")
            if key.startswith("sweeps."):
                section[key.removeprefix("sweeps.")] = yaml.safe_load(value)
        return table_cells({**section, "name": self.name})


@dataclass(frozen=True)
class Step:
    """A step of the campaign: its number, title and sweeps."""

    number: int
    title: str
    jobs: tuple[Job, ...]


@dataclass
class Campaign:
    """A campaign: its steps, the folder of the runs, the folder of the packed results, and settings of all runs."""

    steps: list[Step]
    outputs: Path
    results: Path
    settings: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Folder of the campaign's logs, its lock, and the file that marks it as paused."""
        return self.outputs / "campaign"

    @property
    def paused(self) -> bool:
        """Whether the campaign is to pause."""
        return (self.folder / "paused").exists()

    def pause(self, wanted: bool) -> None:
        """Pause the campaign, or continue it."""
        sign = self.folder / "paused"
        self.folder.mkdir(parents=True, exist_ok=True)
        sign.touch() if wanted else sign.unlink(missing_ok=True)

    def progress(self, job: Job) -> tuple[int, int]:
        """Return the number of a sweep's cells that are done, and of all its cells."""
        cells = job.cells()
        return sum((self.outputs / job.name / cell.name / result.NAME).exists() for cell in cells), len(cells)

    def running(self) -> bool:
        """Return whether a process runs the campaign."""
        return locked(self.folder)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Lock the campaign within the context. Raises StorageError if another process runs it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StorageError(
                    f"Another process already runs the campaign in {self.folder}; see `molsam campaign status`."
                ) from None
            yield


def steps(path: Path | None = None) -> list[Step]:
    """Return the steps of a campaign file, by default the one of the package. Raises ConfigError if it is wrong."""
    try:
        text = (path or resources.files("molsam.sweeping").joinpath("campaign.yaml")).read_text(encoding="utf-8")
        return [
            Step(int(entry["step"]), str(entry["title"]), tuple(map(_job, entry["sweeps"])))
            for entry in yaml.safe_load(text)
        ]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path} is not a campaign file ({' '.join(str(error).split())}); see docs/campaign.md for the format."
        ) from error


def _job(entry: dict[str, Any]) -> Job:
    sweep = str(entry["sweep"])
    return Job(sweep, str(entry.get("name", sweep)), tuple(map(str, entry.get("set", []))))


def workers() -> int:
    """Return the number of runs at a time: the cores less those that CAMPAIGN_WORKERS leaves to other programs."""
    left = os.environ.get(FREE, "0")
    if not left.isdigit():
        raise ConfigError(f"{FREE}={left} must be a whole number of cores that the campaign leaves to other programs.")
    return max(1, cores() - int(left))


def launch(campaign: Campaign, job: Job) -> subprocess.Popen[bytes]:
    """Start a sweep in a process group of its own, at the lowest priority. Its output goes to its log."""
    campaign.folder.mkdir(parents=True, exist_ok=True)
    command = [*train_arguments(), "--multirun", *job.overrides, f"paths.outputs={campaign.outputs}",
               f"hydra.launcher.n_jobs={workers()}", *campaign.settings]  # fmt: skip
    with open(campaign.folder / f"{job.name}.log", "ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, TYPED: program()},
        )  # fmt: skip
    lower(process.pid)
    return process


def lower(pid: int) -> None:
    """Give a process and its future children the lowest priority.

    With autogroups, Linux first divides the processor among sessions, and a nice value counts only within a session.
    Therefore the session's group gets the nice value too.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, LOWEST)
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(str(LOWEST), encoding="ascii")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a sweep. Its runs write a checkpoint, from which they can be resumed."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
            return


def run_job(
    campaign: Campaign, job: Job, tell: Callable[[str], None], wait: Callable[[float], None] = time.sleep
) -> int:
    """Run one sweep to its end, stopping it while the campaign is paused; return its exit code.

    `tell` receives a line about the progress at every check.
    """
    process: subprocess.Popen[bytes] | None = None
    try:
        while True:
            done, total = campaign.progress(job)
            if campaign.paused:
                if process is not None:
                    stop(process)
                    process = None
                tell(f"{job.name}: paused, {done} of {total} cells")
            elif done == total and process is None:
                return 0
            elif process is None:
                process = launch(campaign, job)
            else:
                code = process.poll()
                if code is not None:
                    return code
                tell(f"{job.name}: {done} of {total} cells")
            wait(LOOK_EVERY)
    finally:
        if process is not None and process.poll() is None:
            stop(process)
