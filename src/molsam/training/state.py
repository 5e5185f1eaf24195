"""The contents of a checkpoint: everything that the rest of a run depends on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch

from molsam.training import accelerator, provenance

if TYPE_CHECKING:
    from molsam.training.loop import Trainer


def own(trainer: Trainer) -> dict[str, Any]:
    """Return what differs between the processes of a run."""
    own = {"torch_rng": torch.get_rng_state(), "device_rng": accelerator.random_state(trainer.settings.device)}
    return own | ({"optimizer": trainer.optimizer.state_dict()} if trainer.together.local else {})


def of(trainer: Trainer) -> dict[str, Any]:
    """Return everything that the rest of the run depends on."""
    state = {
        "model": dict(trainer.model.state_dict()),
        "optimizer": trainer.optimizer.state_dict(),
        "epoch": trainer.epoch,
        "step": trainer.step,
        "steps_skipped": trainer.steps_skipped,
        "totals": trainer.totals,
        "best": trainer.best,
        "average": trainer.average.state_dict() if trainer.average is not None else None,
        "tests": trainer.tests,
        "stop": trainer.stop,
        "clock": {
            "epochs": trainer.clock.epochs,
            "graphs": trainer.clock.graphs,
            "seconds": trainer.clock.seconds,
        },
        "seconds": trainer.earlier + time.monotonic() - trainer.begun,
        "made_from": provenance.of(trainer),
        "torch_rng": torch.get_rng_state(),
        "trackers": [tracker.state() for tracker in trainer.trackers],
        "callbacks": [callback.state_dict() for callback in trainer.callbacks],
        "diagnostics": trainer.diagnostics.state_dict() if trainer.diagnostics is not None else None,
    }
    if (noise := accelerator.random_state(trainer.settings.device)) is not None:
        state["device_rng"] = noise
    return state


def load(trainer: Trainer, saved: dict[str, Any]) -> None:
    """Restore the state of `of`. The trackers receive theirs when they start."""
    if trainer.together.rank:
        saved = {**saved, **saved["others"][trainer.together.rank - 1]}
    trainer.model.load_state_dict(saved["model"])
    trainer.optimizer.load_state_dict(saved["optimizer"])
    trainer.epoch, trainer.step, trainer.stop = saved["epoch"], saved["step"], saved["stop"]
    trainer.steps_skipped = saved["steps_skipped"]
    trainer.totals, trainer.best, trainer.tests = saved["totals"], saved["best"], saved.get("tests", {})
    if trainer.average is not None:
        trainer.average.load_state_dict(saved["average"])
    trainer.earlier = saved.get("seconds", 0.0)
    clock = saved["clock"]
    trainer.clock.epochs = [(graphs, seconds) for graphs, seconds in clock["epochs"]]
    trainer.clock.graphs, trainer.clock.seconds = clock["graphs"], clock["seconds"]
    for callback, own in zip(trainer.callbacks, saved["callbacks"], strict=not trainer.together.rank):
        callback.load_state_dict(own)
    if trainer.diagnostics is not None and saved["diagnostics"] is not None:
        trainer.diagnostics.load_state_dict(saved["diagnostics"])
    if saved.get("device_rng") is not None:
        accelerator.set_random_state(trainer.settings.device, saved["device_rng"])
    torch.set_rng_state(saved["torch_rng"])
