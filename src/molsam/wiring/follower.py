"""A process of a run that another one leads: it trains along and writes nothing."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig

from molsam.config.compose import structured
from molsam.errors import ConfigError, MolsamError, NumericalError
from molsam.native.process import keep_freed_memory
from molsam.training import accelerator
from molsam.training.interrupt import Interrupted, Interrupts
from molsam.training.together import Together
from molsam.wiring import check, processes, run


def main() -> int:
    """Follow the process that started this one; returns the exit code."""
    seat = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_leader, daemon=True).start()
    print("ready", flush=True)
    try:
        return follow(processes.join(seat))
    except RuntimeError:
        # The first process says what happened to the run, unless it went wrong here.
        if not dist.is_initialized():
            return 1
        raise


def launched() -> int:
    """Follow the first of the processes that torchrun started; returns the exit code."""
    dist.init_process_group(processes.backends(), timeout=processes.PATIENCE)
    try:
        return follow(Together())
    finally:
        dist.destroy_process_group()


def _end_with_leader() -> None:
    """End this process when the first one ends, however that comes about: then the other end of the pipe closes."""
    sys.stdin.read()
    os._exit(1)


def follow(together: Together) -> int:
    """Train what the first process says, until it ends the run; returns the exit code."""
    logging.disable(logging.ERROR)  # it says the same
    try:
        with Interrupts() as interrupts:
            for cfg, made_from in processes.orders(together):
                interrupts.deferred = False
                _train(together, cfg, made_from, interrupts)
    except (NumericalError, Interrupted) as error:
        return error.exit_code  # all processes have it
    except MolsamError as error:
        print(f"molsam: process {together.rank} of {together.size}: {error}", file=sys.stderr)
        return error.exit_code
    except RuntimeError as error:
        if processes.Team(together).lost(error):
            return 6
        traceback.print_exc()
        return 70
    return 0


def _train(together: Together, cfg: DictConfig, made_from: dict[str, Any], interrupts: Interrupts) -> None:
    cfg = structured(cfg)
    training = processes.own_device(check.training_config(cfg), together.rank)
    cfg.training.device, together.local = training.device, training.perturb == "local"
    processes.share_cores(training)
    accelerator.be_deterministic(training.deterministic)
    if torch.device(training.device).type == "cuda":
        torch.cuda.set_device(training.device)
    dataset, split = run.load_data(cfg)
    keep_freed_memory()
    for name, value in run.hashes(dataset, split).items():
        if value != made_from[name]:
            raise ConfigError(
                f"The {name} here is another than that of the first process (hash {value}, there {made_from[name]}); "
                "give all machines the same files."
            )
    trainer = run.make_trainer(cfg, training, dataset, split, Path(os.devnull), together=together)
    trainer.fit(interrupts)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without Python's own end: gloo's threads would sometimes abort it.
    os._exit(code)
