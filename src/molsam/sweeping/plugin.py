"""Hydra's sweeper plugin: hydra/sweeper=molsam."""

from __future__ import annotations

import importlib
from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class MolsamSweeper(Sweeper):
    """Runs the missing cells or trials of a sweep. Optuna is imported only when a sweep runs.

    With the grid sampler every cell of the `sweeps:` section (or of the command line's choices) runs once. With any
    other sampler the study runs until `n_trials` trials are complete or pruned.

    Args:
        settings: the keys of conf/hydra/sweeper/molsam.yaml.
    """

    def __init__(self, **settings: Any) -> None:
        # `setup` reads them from the composed configuration, where their interpolations are resolved.
        pass

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what Hydra passes before it calls `sweep`."""
        self.context, self.task, self.settings = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Run or resume the sweep. Raises SweepIncomplete at the end if cells failed."""
        from molsam.sweeping import context, storage

        sweep = context.read(self.settings)
        # A search reads its data first and so imports torch; planning a grid does not need it.
        kind = importlib.import_module(f"molsam.sweeping.{'grid' if sweep.is_grid else 'search'}")
        try:
            kind.sweep(sweep, self.context, self.task, arguments)
        finally:
            storage.close()
