"""Which process works on a trial, and whether it is still alive.

On the same machine the kernel knows whether a process of that id and start time exists. For another machine there is
only a counter that the process raises every few seconds. It is watched by the observer's own monotonic clock, so that
clocks may differ between machines.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

WORKER, SWEEPER = "molsam:worker", "molsam:sweeper"
"""System attributes of a trial: the process that runs it, and the one that launched it."""

MISSED_BEATS = 6
"""Number of intervals without a beat after which a process of another machine counts as dead."""


@cache
def host() -> str:
    """Return a name for this machine, until it restarts, and this container. Process ids are unique within it."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8])
        parts.append(os.readlink("/proc/self/ns/pid"))
    return "/".join(parts)


def process_start(pid: int) -> str | None:
    """Return the start time of a process in the kernel's ticks; None if it does not exist or is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def beat(count: int, interval: float) -> dict[str, Any]:
    """Return a heartbeat of this process."""
    pid = os.getpid()
    return {
        "host": host(),
        "pid": pid,
        "start": process_start(pid),
        "beat": count,
        "interval": interval,
        "time": time.time(),
    }


class Heartbeat:
    """Context manager with a thread that renews this process's heartbeat on some trials."""

    def __init__(self, storage: BaseStorage, trial_ids: list[int], role: str, interval: float) -> None:
        self.storage, self.trial_ids, self.role, self.interval = storage, list(trial_ids), role, interval
        self.count = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"molsam-{role}", daemon=True)

    def __enter__(self) -> Heartbeat:
        self.write()
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(timeout=self.interval + 5)

    def write(self) -> None:
        """Write one beat. Finished trials need no more beats. If the storage is busy, the next beat will do."""
        from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError

        self.count += 1
        record = beat(self.count, self.interval)
        for trial_id in list(self.trial_ids):
            try:
                self.storage.set_trial_system_attr(trial_id, self.role, record)
            except UpdateFinishedTrialError:
                self.trial_ids.remove(trial_id)
            except StorageInternalError:
                pass

    def _run(self) -> None:
        while not self.stop.wait(self.interval):
            self.write()


class Watch:
    """Tells live trials from dead ones. Use the same object for all checks, because it remembers the beats it saw."""

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.interval, self.clock = interval, clock
        self.seen: dict[tuple[int, str], tuple[Any, float]] = {}

    def dead(self, trial: FrozenTrial, roles: tuple[str, ...] = (WORKER, SWEEPER)) -> bool:
        """Return whether no process works on a running trial any more; False as long as this is not certain."""
        # Between claiming a trial and its first beat there is no record. An empty one is watched instead.
        records = {role: trial.system_attrs[role] for role in roles if role in trial.system_attrs} or {"": {}}
        return all(self._dead(trial.number, role, record) for role, record in records.items())

    def _dead(self, number: int, role: str, record: Mapping[str, Any]) -> bool:
        if record.get("host") == host() and record.get("start") is not None:
            return process_start(record["pid"]) != record["start"]
        now = self.clock()
        mark = (record.get("host"), record.get("pid"), record.get("beat"))
        last, since = self.seen.get((number, role), (None, now))
        if mark != last:
            self.seen[number, role] = (mark, now)
            return False
        return now - since > MISSED_BEATS * float(record.get("interval", self.interval))
