"""The properties of a sweep: read once from the composed settings, and then frozen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, read_write

from molsam.config.metrics import direction, metric_files
from molsam.errors import ConfigError
from molsam.sweeping.storage import Node, file_of

GRID = "optuna.samplers.GridSampler"


@dataclass(frozen=True)
class Sweep:
    """A sweep.

    Attributes:
        config: the settings that all jobs share, including Hydra's own.
        section: the `sweeps:` section as a plain dict; empty without a sweep file.
        name: name of the sweep and its folder; that of a smoke sweep ends with -smoke.
        folder: folder of its runs.
        outputs: the folder of all runs, of all sweeps.
        smoke, dry_run, overwrite: as on the command line.
        is_grid: whether every cell runs, rather than the points that a sampler suggests.
        study_name, storage, directions: those of the study.
        sampler, pruner: their configuration nodes.
        params: swept overrides besides those on the command line.
        n_trials, max_failure_rate: those of a search.
        heartbeat: seconds between two heartbeats of a worker.
        wait: whether to wait at the end for cells that other processes run.
        reuse: whether to use finished runs of other sweeps with equal settings.
        workers: number of jobs at a time.
    """

    config: DictConfig
    section: Mapping[str, Any]
    name: str
    folder: Path
    outputs: Path
    smoke: bool
    dry_run: bool
    overwrite: bool
    is_grid: bool
    study_name: str
    storage: Node
    directions: tuple[str, ...]
    sampler: DictConfig
    pruner: Mapping[str, Any]
    params: tuple[str, ...]
    n_trials: int
    max_failure_rate: float
    heartbeat: float
    wait: bool
    reuse: bool
    workers: int

    @property
    def stores_in_folder(self) -> bool:
        """Whether the study is a file in the sweep's own folder."""
        path = file_of(self.storage)
        return path is not None and path.resolve().parent == self.folder.resolve()

    @property
    def elsewhere(self) -> str:
        """The settings that give the sweep another folder and study, for messages."""
        given = OmegaConf.select(self.config, "hydra.overrides.hydra") or []
        by_name = os.path.abspath(self.outputs / self.name) == os.path.abspath(self.folder)
        by_name &= not any(str(one).lstrip("+").startswith("hydra.sweep.dir=") for one in given)
        settings = ["sweeps.name=NAME" if by_name else "hydra.sweep.dir=OTHER_FOLDER"]
        if not self.stores_in_folder and self.study_name != self.name:
            settings.append("hydra.sweeper.study_name=NAME")
        elif not self.stores_in_folder and not by_name:
            settings.append("sweeps.name=NAME")
        return " ".join(settings)


def read(config: DictConfig) -> Sweep:
    """Read the composed settings of a sweep. Raises ConfigError if one is wrong or missing."""
    settings, smoke = config.hydra.sweeper, bool(config.get("smoke"))
    # Smoke runs with few molecules must never be taken for cells of the table.
    suffix = "-smoke" if smoke else ""
    name = str(OmegaConf.select(config, "sweeps.name") or "multirun")
    if Path(name).name != name:
        raise ConfigError(f"sweeps.name={name} is not a folder name; use letters, digits, - and _.")
    folder = usable("paths.outputs", os.path.abspath(str(config.hydra.sweep.dir)) + suffix)
    with read_write(config.hydra.sweep):
        config.hydra.sweep.dir = folder
    section = OmegaConf.to_container(config.get("sweeps") or OmegaConf.create(), resolve=False)
    assert isinstance(section, dict)
    is_grid = settings.sampler.get("_target_") == GRID
    _check_needs(config)
    return Sweep(
        config=config,
        section={str(key): value for key, value in section.items()},
        name=name + suffix,
        folder=Path(folder),
        outputs=Path(str(OmegaConf.select(config, "paths.outputs") or Path(folder).parent)),
        smoke=smoke,
        dry_run=bool(config.get("dry_run")),
        overwrite=bool(config.get("overwrite")),
        is_grid=is_grid,
        study_name=str(settings.study_name or name + suffix),
        storage=_plain(settings.storage),
        directions=_directions(config, is_grid),
        sampler=settings.sampler,
        pruner=_plain(settings.pruner),
        params=tuple(f"{key!s}={value}" for key, value in (settings.params or {}).items()),
        n_trials=int(settings.n_trials),
        max_failure_rate=float(settings.max_failure_rate),
        heartbeat=float(settings.heartbeat),
        wait=bool(settings.wait),
        reuse=bool(settings.reuse),
        workers=_workers(config),
    )


def usable(setting: str, folder: str) -> str:
    """Return a folder's path if settings can contain it, else raise ConfigError naming the setting and the reason."""
    if not folder.isprintable():
        raise ConfigError(f"{setting}={folder!r} has a control character in its path; choose another folder.")
    if "${" in folder:
        raise ConfigError(
            f"{setting}={folder} has ${{ in its path, which Hydra reads as an interpolation; choose another folder."
        )
    return folder


def _directions(config: DictConfig, is_grid: bool) -> tuple[str, ...]:
    """Return the study's directions. `auto` follows dataset.metric, or the default metric of the task."""
    given = config.hydra.sweeper.direction
    if given != "auto":
        return (str(given),) if isinstance(given, str) else tuple(str(one) for one in given)
    dataset = config.get("dataset") or {}
    task, metric = dataset.get("task", "regression"), dataset.get("metric")
    if metric in metric_files():
        return ("maximize" if direction(metric) == "max" else "minimize",)
    if task is None and not is_grid:
        raise ConfigError(
            "hydra.sweeper.direction=auto cannot be decided, because neither dataset.task nor dataset.metric is set; "
            "give dataset.task=regression or classification, or dataset.metric."
        )
    return ("minimize" if task == "regression" else "maximize",)


def _workers(config: DictConfig) -> int:
    given = config.hydra.sweeper.n_jobs
    if given is None:
        given = config.hydra.launcher.get("n_jobs") or 1
    return (os.cpu_count() or 1) if int(given) < 1 else int(given)


def _plain(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node


def _check_needs(config: DictConfig) -> None:
    """Raise ConfigError, with the sweep file's own sentence, if a setting that the sweep needs is missing."""
    for key, sentence in (OmegaConf.select(config, "sweeps.needs") or {}).items():
        if OmegaConf.select(config, str(key)) is None:
            raise ConfigError(str(sentence))
