"""Workers that a launcher keeps on this machine end with their sweep, however that ended.

loky's workers would go on with the job they have, take the next from the queue, and then wait for minutes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

from molsam.training.interrupt import Interrupts

EVERY = 0.5
"""Seconds between two looks at the parent."""

GRACE = 30.0
"""Seconds that a run has for its last step and checkpoint."""

_follower: threading.Thread | None = None


def remove_semaphores() -> None:
    """Remove the semaphores of this user's loky processes that are gone: one killed as it makes one cannot itself."""
    for path in Path("/dev/shm").glob("sem.loky-*"):
        pid = path.name.split("-")[1]
        with contextlib.suppress(OSError):
            if pid.isdigit() and path.stat().st_uid == os.getuid() and not Path("/proc", pid).exists():
                path.unlink()


def follow(owner: int | None) -> None:
    """End this process soon after its parent `owner` has ended; None, or this very process, is not followed."""
    global _follower
    if owner is None or owner == os.getpid():
        return
    leave_without(owner)
    if _follower is None:
        _follower = threading.Thread(target=_follow, args=(owner,), name="molsam-orphan", daemon=True)
        _follower.start()


def leave_without(owner: int | None) -> None:
    """End this process now if its parent `owner` has ended."""
    if owner not in (None, os.getpid(), os.getppid()):
        os._exit(128 + signal.SIGTERM)


def _follow(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(EVERY)
    # A run saves itself at the first signal and breaks off at the second, and whoever ended the sweep may have
    # sent it one. Outside a run the signal ends the process at once.
    if not Interrupts.asked():
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)
