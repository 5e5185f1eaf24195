"""The Optuna sweeper that survives: hydra-optuna-sweeper 1.4, made to resume, share, prune and report."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl
from omegaconf import DictConfig, OmegaConf, read_write

from molsam.errors import ConfigError
from molsam.sweeping import grid, search
from molsam.sweeping import storage as storages
from molsam.sweeping.job import Job

log = logging.getLogger(__name__)

GRID = "optuna.samplers.GridSampler"


class JobNumbers(int):
    """The `initial_job_idx` of a batch whose numbers have gaps.

    Launchers number job i of a batch by adding i to it; here the sum is the i-th trial's own number, so
    that a job's number is its trial's, in every process and after every resume.
    """

    numbers: list[int]

    def __new__(cls, numbers: list[int]) -> JobNumbers:
        """Numbers of the jobs of one batch, in their order."""
        self = super().__new__(cls, numbers[0])
        self.numbers = numbers
        return self

    def __add__(self, place: int) -> int:
        """The number of the job at a place of the batch."""
        return self.numbers[place]


class ResumableSweeper(OptunaSweeperImpl):
    """Runs what is missing of a sweep.

    With the grid sampler every cell of the `sweeps:` section (or of the command line's choices) runs
    once; with any other sampler the study runs until `n_trials` trials are complete or pruned.
    """

    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher

    def __init__(self) -> None:
        """Hydra passes everything to `setup`."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Hydra's call before `sweep`."""
        self.hydra_context, self.config = hydra_context, config
        self.sweep_name = str(OmegaConf.select(config, "sweeps.name") or "multirun")
        if Path(self.sweep_name).name != self.sweep_name:
            raise ConfigError(f"sweeps.name={self.sweep_name} is no folder's name; use letters, digits, - and _.")
        self.smoke = bool(config.get("smoke"))
        # Cells of a few molecules must never be taken for cells of the table.
        suffix = "-smoke" if self.smoke else ""
        self.sweep_name += suffix
        self.sweep_dir = os.path.abspath(str(config.hydra.sweep.dir)) + suffix
        with read_write(config.hydra.sweep):
            config.hydra.sweep.dir = self.sweep_dir
        self.settings = config.hydra.sweeper
        # Read by the methods of the plugin that this class extends.
        self.params, self.direction = self.settings.params, self.settings.direction
        self.job = Job(
            task=task_function,
            heartbeat=float(self.settings.heartbeat),
            pruner=self._node("pruner"),
            claim=self.is_grid,
            # loky's workers are children of this very process; those of other launchers need not be.
            owner=os.getpid() if config.hydra.launcher.get("backend") == "loky" else None,
        )
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=self.job
        )

    @property
    def outputs(self) -> Path:
        """The folder of all runs, whatever sweep made them."""
        return Path(str(OmegaConf.select(self.config, "paths.outputs") or Path(self.sweep_dir).parent))

    @property
    def is_grid(self) -> bool:
        """Whether every cell runs, rather than the points a sampler suggests."""
        return bool(self.settings.sampler.get("_target_") == GRID)

    def sweep(self, arguments: list[str]) -> None:
        """Run what is missing. Raises SweepIncomplete at the end if cells failed."""
        self._check_needs()
        run = grid.sweep if self.is_grid else search.sweep
        try:
            run(self, self._parse_sweeper_params_config() + arguments)
        finally:
            storages.close()

    def launch(self, overrides: list[list[str]], numbers: list[int]) -> None:
        """Run a batch of jobs; job i is trial `numbers[i]`. Raises what kept a job from taking its trial."""
        for job in self.launcher.launch(overrides, initial_job_idx=JobNumbers(numbers)):
            _ = job.return_value

    def workers(self) -> int:
        """How many jobs the launcher runs at a time."""
        given = self.settings.n_jobs
        if given is None:
            given = self.config.hydra.launcher.get("n_jobs") or 1
        return (os.cpu_count() or 1) if int(given) < 1 else int(given)

    def in_process(self) -> bool:
        """Whether the jobs run in this very process."""
        return "basic_launcher" in str(self.config.hydra.launcher.get("_target_"))

    def directions(self) -> list[str]:
        """The study's directions; `auto` follows the dataset's task."""
        if self.settings.direction != "auto":
            return self._get_directions()
        dataset = self.config.get("dataset") or {}
        task = dataset.get("task", "regression")
        if task is None and not self.is_grid:
            raise ConfigError(
                "hydra.sweeper.direction=auto cannot tell whether more is better, because dataset.task is left open; "
                "give dataset.task=regression or classification."
            )
        return ["minimize" if task == "regression" else "maximize"]

    def name_of_study(self) -> str:
        """The study's name, that of the sweep if the settings give none."""
        return str(self.settings.study_name or self.sweep_name)

    def storage_node(self) -> Any:
        """The storage's address or node."""
        return self._node("storage")

    def _node(self, key: str) -> Any:
        node = self.settings[key]
        return OmegaConf.to_container(node, resolve=True) if isinstance(node, DictConfig) else node

    def _check_needs(self) -> None:
        """Say in one sentence what a sweep needs that the settings do not give."""
        for key, sentence in (OmegaConf.select(self.config, "sweeps.needs") or {}).items():
            if OmegaConf.select(self.config, str(key)) is None:
                raise ConfigError(str(sentence))
