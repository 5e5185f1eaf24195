"""The process: its cores, its peak memory, and a setting of glibc that avoids page faults for large tensors."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Return freed memory to the system, then let glibc's malloc keep what is freed from now on.

    A step's blocks then reuse memory, instead of mapping new pages. Blocks above 64 MB are still mapped and returned:
    they belong to a large dataset, not to a step. Does nothing without glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    # The allocator of pyarrow, which scikit-learn imports, would start a thread. In a process of one thread glibc takes
    # no locks, which is worth 1 % of a small model's step.
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
    try:
        library = ctypes.CDLL(None)
        library.malloc_trim(0)
        for option, value in ((M_MMAP_THRESHOLD, 64 << 20), (M_TRIM_THRESHOLD, 1 << 30), (M_TOP_PAD, 64 << 20)):
            library.mallopt(option, value)
    except (OSError, AttributeError):
        return


def peak_memory_mb() -> float:
    """Return the process's peak memory in MB.

    On Linux `getrusage` includes the parent's memory at the time of the fork, so /proc/self/status is read instead.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024**2 if sys.platform == "darwin" else 1024)
