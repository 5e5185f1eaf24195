"""The processes of one run: those of training.devices on this machine, or those that torchrun started on several.

The first process leads: it claims the folder, writes everything, and tells the others which settings to train with.
The others load the data, follow step by step, and leave nothing behind, so that they may end at any time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig, OmegaConf

from molsam.config.compose import plain
from molsam.config.schema import TrainingConfig
from molsam.errors import ConfigError, ProcessLost
from molsam.native.process import cores
from molsam.training.together import Alone, Together

log = logging.getLogger(__name__)
PATIENCE = timedelta(hours=12)
"""How long a process waits for another one, which may featurize a large file first."""


class Team:
    """The processes of a run, seen from one of them."""

    def __init__(self, together: Alone, children: list[subprocess.Popen[str]] | None = None) -> None:
        self.together, self.children = together, children or []

    def begin(self, cfg: DictConfig, made_from: Mapping[str, Any]) -> None:
        """Let the others train with these settings too; `made_from`: hashes of what they must read."""
        if self.together.size > 1:
            self.together.broadcast(json.dumps({"cfg": plain(cfg), "made_from": dict(made_from)}))

    def end(self) -> None:
        """Let the others end."""
        self.together.broadcast(None)
        for child in self.children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)

    def close(self) -> None:
        """Stop what has not ended."""
        for child in self.children:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        if self.together.size > 1:
            dist.destroy_process_group()

    def lost(self, error: RuntimeError) -> str | None:
        """Return how another process ended, if that is why this one cannot go on."""
        for rank, child in enumerate(self.children, 1):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return f"process {rank} of {self.together.size} {_ending(child.wait(1))}"
        text = str(error)
        known = isinstance(error, dist.DistError) or re.search(r"gloo|nccl|[Cc]onnection (closed|reset)|by peer", text)
        return "another process of it ended" if known and self.together.size > 1 else None


def _ending(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


def launched() -> tuple[int, int] | None:
    """(rank, number of processes) if torchrun, or what sets the same variables, started this process among several."""
    try:
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except (KeyError, ValueError):
        return None
    return (rank, size) if size > 1 and "MASTER_ADDR" in os.environ else None


def settle(cfg: DictConfig) -> None:
    """Write the number of processes that torchrun started into training.devices.

    Raises ConfigError if it says another.
    """
    found = launched()
    if found is None or not isinstance(cfg.training, DictConfig):
        return
    if cfg.training.get("devices", 1) not in (1, found[1]):
        raise ConfigError(
            f"training.devices={cfg.training.devices}, and torchrun started "
            f"{found[1]} processes; leave training.devices out."
        )
    cfg.training.devices = found[1]


def check(training: TrainingConfig) -> None:
    """Refuse what several processes cannot train."""
    if training.perturb == "local" and training.devices == 1:
        raise ConfigError(
            "training.perturb=local is of several processes; give training.devices=2 or more, or leave it out."
        )
    if training.devices == 1:
        return
    if not dist.is_available() or not dist.is_gloo_available():
        raise ConfigError(
            f"training.devices={training.devices} needs torch.distributed with gloo, which this torch lacks."
        )
    kind, _, place = training.device.partition(":")
    if place:
        raise ConfigError(
            f"training.device={training.device} is one device, and training.devices={training.devices} takes one "
            f"each; use training.device={kind}."
        )
    if kind == "cuda" and launched() is None and torch.cuda.device_count() < training.devices:
        raise ConfigError(
            f"training.devices={training.devices}, but this machine has "
            f"{torch.cuda.device_count()}; give that many or fewer."
        )
    if training.batch_size < training.devices:
        raise ConfigError(
            f"training.batch_size={training.batch_size} is shared by training.devices={training.devices} processes; "
            f"give at least {training.devices}."
        )


@contextlib.contextmanager
def lead(training: TrainingConfig) -> Iterator[Team]:
    """Start the processes of a run from its first one; they have ended afterwards.

    Raises ProcessLost inside if another one ended before the run did.
    """
    if training.devices == 1:
        yield Team(Alone())
        return
    team = Team(Alone())
    threads, hook = torch.get_num_threads(), sys.excepthook
    try:
        if launched() is None:
            _start(team, training)
        else:
            dist.init_process_group(backends(), timeout=PATIENCE)
        team.together = Together()
        team.together.local = training.perturb == "local"
        share_cores(training)
        yield team
        team.end()
    except RuntimeError as error:
        if reason := team.lost(error):
            raise ProcessLost(
                f"The run cannot go on ({reason}); the same command continues from its last checkpoint."
            ) from error
        raise
    finally:
        team.close()
        torch.set_num_threads(threads)
        sys.excepthook = hook  # torch.distributed puts its own there


def _start(team: Team, training: TrainingConfig) -> None:
    """Start the others on this machine, and meet them."""
    store = dist.TCPStore("127.0.0.1", 0, training.devices, is_master=True, wait_for_workers=False, timeout=PATIENCE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for rank in range(1, training.devices):
        command = [sys.executable, "-m", "molsam.wiring.follower"]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        team.children.append(child)
        assert child.stdin is not None
        seat = {"rank": rank, "size": training.devices, "port": store.port}
        child.stdin.write(json.dumps(seat) + "\n")
        child.stdin.flush()
    for rank, child in enumerate(team.children, 1):
        assert child.stdout is not None
        if child.stdout.readline().strip() != "ready":
            raise ProcessLost(
                f"Process {rank} of {training.devices} of this run did not start ({_ending(child.wait())}); free "
                "some memory, or use fewer training.devices."
            )
    dist.init_process_group(backends(), store=store, rank=0, world_size=training.devices, timeout=PATIENCE)


def backends() -> str:
    """Return what moves tensors of each kind of device."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"


def join(seat: Mapping[str, Any]) -> Together:
    """Take a seat that `_start` gave."""
    store = dist.TCPStore("127.0.0.1", seat["port"], seat["size"], is_master=False, timeout=PATIENCE)
    dist.init_process_group(backends(), store=store, rank=seat["rank"], world_size=seat["size"], timeout=PATIENCE)
    return Together()


def orders(together: Together) -> Iterator[tuple[DictConfig, dict[str, Any]]]:
    """Return what the first process wants to be trained, until it ends the run."""
    while isinstance(text := together.broadcast(None), str):
        told = json.loads(text)
        yield OmegaConf.create(told["cfg"]), told["made_from"]


def own_device(training: TrainingConfig, rank: int) -> TrainingConfig:
    """Return the settings with the device of a process."""
    if torch.device(training.device).type == "cpu":
        return training
    place = int(os.environ.get("LOCAL_RANK", rank)) if launched() else rank
    return replace(training, device=f"{training.device}:{place}")


def share_cores(training: TrainingConfig) -> None:
    """Give each process on this machine its part of the cores, unless training.threads says how many."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", training.devices)) if launched() else training.devices
    torch.set_num_threads(training.threads or max(cores() // here, 1))
