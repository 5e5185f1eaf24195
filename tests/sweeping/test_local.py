"""Workers that get ready while a sweep plans."""

from __future__ import annotations

import psutil
import pytest

from molsam.sweeping import local


def is_worker(process: psutil.Process) -> bool:
    return "popen_loky" in " ".join(process.cmdline())


def test_an_error_of_the_plan_ends_the_workers() -> None:
    """Otherwise a refusal would be printed only after they have imported what they no longer need."""
    before = set(psutil.Process().children())
    begun: list[psutil.Process] = []

    def refuse() -> None:
        with local.warm(1, 1):
            begun.extend(one for one in psutil.Process().children() if one not in before and is_worker(one))
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        refuse()
    assert begun
    _, left = psutil.wait_procs(begun, timeout=60)
    assert not left
