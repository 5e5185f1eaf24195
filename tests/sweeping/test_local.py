"""Workers that get ready while a sweep plans."""

from __future__ import annotations

import threading

import psutil
import pytest

from molsam.sweeping import local


def workers() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "popen_loky" in " ".join(one.cmdline())]


@pytest.mark.parametrize("reused", [False, True])
def test_an_error_of_the_plan_ends_the_workers(monkeypatch: pytest.MonkeyPatch, reused: bool) -> None:
    """Otherwise a refusal would be printed only after they have imported what they no longer need."""
    crashed: list[object] = []
    monkeypatch.setattr(threading, "excepthook", crashed.append)
    executor = local._executor(1, 1)
    executor.submit(int).result()
    if not reused:
        executor.shutdown(kill_workers=True)
    begun: list[psutil.Process] = []

    def refuse() -> None:
        with local.warm(1, 1):
            begun.extend(workers())
            raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        refuse()
    assert begun
    _, left = psutil.wait_procs(begun, timeout=60)
    assert not left
    assert not crashed
