"""Workers that get ready while a sweep plans."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

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


def test_workers_of_one_turn_import_one_after_another(tmp_path: Path) -> None:
    thread = threading.Thread(target=local._import, args=(tmp_path / "turn",))
    with open(tmp_path / "turn", "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join(60)
    assert not thread.is_alive()
    local._import(tmp_path / "gone" / "turn")
