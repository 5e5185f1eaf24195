"""Workers on this machine end with their sweep, even if it is killed.

loky's workers alone would finish their job, take the next one from the queue, and then wait for minutes.
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
"""Seconds between two checks of the parent process."""

GRACE = 30.0
"""Seconds that a run has for its last step and checkpoint."""

_follower: threading.Thread | None = None


def remove_semaphores() -> None:
    """Remove semaphores of this user's loky processes that no longer exist; a killed process leaves them behind."""
    for path in Path("/dev/shm").glob("sem.loky-*"):
        pid = path.name.split("-")[1]
        with contextlib.suppress(OSError):
            if pid.isdigit() and path.stat().st_uid == os.getuid() and not Path("/proc", pid).exists():
                path.unlink()


def follow(owner: int | None) -> None:
    """End this process soon after its parent `owner` has ended. None, or this process itself, is not followed."""
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
    # A run writes a checkpoint at the first signal and stops at once at the second. The run may have received the first
    # one together with the sweep. Outside a run the signal ends the process at once.
    if not Interrupts.asked():
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGKILL)
