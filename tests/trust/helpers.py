"""Small runs, the parts of them that must be equal bit for bit, and a process that dies at a chosen moment."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from molsam.commands.train import main
from molsam.config.compose import compose
from molsam.runs import result
from molsam.training import checkpoint
from molsam.training.loop import Trainer
from molsam.wiring.run import start
from tests.integration.test_run import METRICS, SMALL
from tests.paths import ROOT

TINY = ["dataset.limit=30", "training.epochs=2", "training.batch_size=8", "training.threads=1"]
"""24 training molecules, 3 steps an epoch, 6 in all."""
TIMES = {"graphs_per_s", "seconds"}
MODELS = sorted(SMALL)
OPTIMIZERS = sorted(path.stem for path in (ROOT / "conf" / "optimizer").glob("*.yaml"))


class Killed(BaseException):
    """Stands for kill -9: nothing in the program expects it."""


def settings(model: str, *more: str) -> Any:
    """The composed settings of a small run with dropout."""
    return _composed(model, *more).copy()


@functools.cache
def _composed(model: str, *more: str) -> Any:
    return compose([f"model={model}", *SMALL[model], *TINY, *more])


def train(cfg: Any, folder: Path) -> None:
    """Run, or go on, in this process."""
    start(cfg.copy(), folder, [])


def die_after_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let training end as by a kill once so many steps were made and logged."""
    whole = Trainer.log_step

    def log_step(self: Trainer) -> None:
        whole(self)
        if self.step == step:
            raise Killed

    monkeypatch.setattr(Trainer, "log_step", log_step)


def last_weights(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """Filled during training: epoch -> digest of the weights after it (those that `best/` does not show)."""
    seen: dict[int, str] = {}
    whole = Trainer._keep_best

    def keep_best(self: Trainer, value: float) -> None:
        seen[self.epoch] = hashlib.sha256(checkpoint.encode(dict(self.model.state_dict()))).hexdigest()
        whole(self, value)

    monkeypatch.setattr(Trainer, "_keep_best", keep_best)
    return seen


def outcome(folder: Path) -> dict[str, Any]:
    """Everything of a finished run that a kill must not change, times left out."""
    found = result.read(folder)
    assert found is not None, f"{folder} is not finished"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    whole = {key: found[key] for key in METRICS}
    whole["metrics.jsonl"] = [{k: v for k, v in line.items() if k not in TIMES} for line in lines]
    for name in ("gradients.jsonl", "test_predictions.csv", "best/model.safetensors"):
        whole[name] = (folder / name).read_bytes() if (folder / name).exists() else None
    return whole


def left_over(folder: Path) -> list[str]:
    """Half-written files and checkpoints of a run that is finished."""
    return [str(path) for path in folder.rglob("*") if path.name.endswith(".tmp") or path.parent.name == "last"]


def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str]:
    """`python train.py arguments` in this process: (exit code, what stands on stderr)."""
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    capsys.readouterr()
    code = main()
    return code, capsys.readouterr().err


class Ended(NamedTuple):
    """How a process ended."""

    returncode: int
    stderr: str


def run_train(*arguments: str, cache: Path) -> Ended:
    """`python train.py arguments` as a user starts it."""
    env = {**os.environ, "MOLSAM_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    script = [sys.executable, str(ROOT / "train.py"), *arguments]
    done = subprocess.run(script, capture_output=True, text=True, env=env, check=False)
    return Ended(done.returncode, done.stderr)


def fork_train(*arguments: str, cache: Path, kill_at: tuple[str, int] | None = None) -> Ended:
    """`python train.py arguments` in a fork of this process, which has imported everything already.

    kill_at=(event, n) ends it by SIGKILL at the n-th event (never if n is 0, then stderr ends in "events N"): the
    call of os.fsync, os.replace or os.open, or of any function of molsam ("call").
    """
    with tempfile.TemporaryFile() as output:
        if (pid := os.fork()) == 0:
            code = 70
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1, closefd=False) for fd in (1, 2))
                os.environ["MOLSAM_CACHE"] = str(cache)
                sys.argv = ["train.py", *arguments]
                count = _counter(kill_at)
                code = main()
                sys.setprofile(None)
                print("events", count[0], file=sys.stderr, flush=True)
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        output.seek(0)
        return Ended(os.waitstatus_to_exitcode(status), output.read().decode())


def _counter(kill_at: tuple[str, int] | None) -> list[int]:
    """Counts the events of a kind from here on, and ends the process at one of them."""
    count = [0]
    if kill_at is None:
        return count
    event, place = kill_at

    def tick() -> None:
        count[0] += 1
        if count[0] == place:
            os.kill(os.getpid(), signal.SIGKILL)

    def profile(frame: Any, kind: str, _: Any) -> None:
        if kind == "call" and "/molsam/" in frame.f_code.co_filename:
            tick()

    if event == "call":
        sys.setprofile(profile)
    else:
        real = getattr(os, event)
        setattr(os, event, lambda *args, **kwargs: (tick(), real(*args, **kwargs))[1])
    return count


def nth(n: int, error: BaseException, real: Callable[..., Any]) -> Callable[..., Any]:
    """`real`, whose n-th call (from 1) and all later ones raise."""
    calls = 0

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= n:
            raise error
        return real(*args, **kwargs)

    return call
