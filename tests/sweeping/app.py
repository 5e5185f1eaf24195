"""A tiny Hydra application with the shape of molsam's: python app.py CONF_DIR OVERRIDES...

Its task sleeps `work` seconds, then writes result.json; `mode` makes it fail, die or ask to be pruned. As a run of
molsam does, it saves itself when a signal asks it to stop, which takes it a second.
Every start of a cell is one line of `log`, so that a test can count them.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from molsam.config.compose import plain
from molsam.config.identity import stored
from molsam.errors import ConfigError, MolsamError
from molsam.runs import result
from molsam.sweeping.trial import Trial
from molsam.training.interrupt import Interrupts
from molsam.wiring import identify


def note(cfg: DictConfig, event: str, number: int) -> None:
    """One line, appended in one write."""
    text = f"{event} {HydraConfig.get().runtime.output_dir} {number} {os.getpid()}\n"
    with open(cfg.paths.log, "a", encoding="utf-8") as file:
        file.write(text)


def task(cfg: DictConfig, trial: Trial | None = None) -> float | None:
    """One cell."""
    assert trial is not None
    folder = Path(HydraConfig.get().runtime.output_dir)
    found = result.read(folder)
    if found is not None and stored(found) == identify.of(cfg):
        return float(found["valid"]["rmse"])
    note(cfg, "start", trial.number)
    if cfg.paths.mode == f"fail-{cfg.seed}":
        raise ConfigError("this cell cannot run; give it a better seed.")
    if cfg.paths.mode == f"die-{cfg.seed}":
        os.kill(os.getpid(), signal.SIGKILL)
    with Interrupts() as interrupts:
        interrupts.deferred = True
        for epoch in range(cfg.training.epochs):
            pause(cfg, interrupts, trial.number)
            reached = (cfg.x - 0.3) ** 2 + cfg.seed + 1.0 / (epoch + 1)
            trial.end_of_epoch(reached, epoch, cfg.training.epochs, last=epoch + 1 == cfg.training.epochs)
    for fold in range(cfg.split.folds):
        trial.on_fold_start(fold, cfg.split.folds)
        trial.on_fold_end((cfg.x - 0.3) ** 2 * (2 - 0.1 * fold))
    value = (cfg.x - 0.3) ** 2 + cfg.seed
    if cfg.paths.mode != "silent":
        write(cfg, folder, value)
    note(cfg, "end", trial.number)
    return value


def pause(cfg: DictConfig, interrupts: Interrupts, number: int) -> None:
    """An epoch, which ends early when the run is asked to stop."""
    end = time.monotonic() + cfg.paths.work / cfg.training.epochs
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))
        if interrupts.pending:
            time.sleep(1)
            note(cfg, "saved", number)
            raise interrupts.error(0)


def write(cfg: DictConfig, folder: Path, value: float) -> None:
    """A complete result.json."""
    outcome = dict.fromkeys(result.REQUIRED)
    outcome |= {
        "config": plain(cfg),
        "config_hash": "",
        "identity": identify.of(cfg).record(),
        "model": "m",
        "optimizer": "o",
        "dataset": cfg.dataset.name,
        "seed": cfg.seed,
        "fold": cfg.split.fold,
        "metric": "rmse",
        "direction": "min",
        "epochs": cfg.training.epochs,
        "seconds": 60.0,
        "graphs_per_s": 2.0,
        "passes_per_step": 1.0,
        "split": {"sizes": [240, 30, 30]},
        "valid": {"rmse": value},
        "test": {"rmse": value},
        "run_dir": str(folder),
    }
    result.write(folder, outcome)


def run(arguments: list[str]) -> int:
    """Run with the arguments CONF_DIR OVERRIDES...; exit code as molsam's."""
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv[1:] = arguments[1:]
    try:
        hydra.main(config_path=str(Path(arguments[0]).resolve()), config_name="config")(task)()
    except MolsamError as error:
        print(f"molsam: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
