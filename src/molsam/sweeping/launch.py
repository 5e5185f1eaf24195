"""Launchers of jobs: workers on this machine, or one of Hydra's launchers for a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from molsam.sweeping.context import Sweep
from molsam.sweeping.job import Job, Launch
from molsam.sweeping.local import Workers
from molsam.sweeping.local import warm as warm_workers
from molsam.sweeping.overrides import destination
from molsam.sweeping.storage import Node


@dataclass(frozen=True)
class Launcher:
    """Runs the jobs of a sweep.

    Attributes:
        run: runs jobs and returns when all have ended; raises the error of a job that could not claim its trial.
        at_once: whether the launcher needs all jobs before it starts the first one.
    """

    run: Callable[[Iterable[Launch]], None]
    at_once: bool


def make(sweep: Sweep, context: HydraContext, task: TaskFunction, storage: Node, study_name: str) -> Launcher:
    """Return the launcher that the settings choose, for the jobs of one study."""
    node = sweep.config.hydra.launcher
    local = is_local(sweep)
    job = Job(
        task=task,
        storage=storage,
        study_name=study_name,
        pruner=sweep.pruner,
        heartbeat=sweep.heartbeat,
        claim=sweep.is_grid,
        # Workers on this machine are children of this process; those of other launchers may not be.
        owner=os.getpid() if local else None,
    )
    if local:
        threads = node.get("inner_max_num_threads")
        return Launcher(Workers(context, job, sweep.workers, threads).run, at_once=False)
    if str(node.get("_target_")).endswith(".BasicLauncher"):
        return Launcher(Workers(context, job, 0, None).run, at_once=False)
    return Launcher(lambda launches: _by_hydra(sweep.config, context, job, list(launches)), at_once=True)


def is_local(sweep: Sweep) -> bool:
    """Return whether the jobs run in worker processes that this process keeps."""
    return bool(sweep.config.hydra.launcher.get("backend") == "loky")


def warm(sweep: Sweep) -> AbstractContextManager[None]:
    """Start worker processes on this machine while the jobs are planned; an error in the planning ends them."""
    if not is_local(sweep) or not sweep.workers:
        return nullcontext()
    return warm_workers(sweep.workers, sweep.config.hydra.launcher.get("inner_max_num_threads"))


def _by_hydra(config: DictConfig, context: HydraContext, job: Job, launches: list[Launch]) -> None:
    """Run jobs by one of Hydra's own launchers, which number them from 0."""
    if not launches:
        return
    numbered = replace(job, numbers=tuple(launch.number for launch in launches))
    launcher = Plugins.instance().instantiate_launcher(config=config, hydra_context=context, task_function=numbered)
    overrides = [
        [*launch.settings.overrides, *destination(str(launch.folder.parent), launch.folder.name)] for launch in launches
    ]
    for job_return in launcher.launch(overrides, initial_job_idx=0):
        _ = job_return.return_value
