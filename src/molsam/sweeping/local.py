"""Jobs on this machine: worker processes that are kept from one job to the next, and hand back no more than a value.

joblib's launcher returns each job's whole settings, and its workers learn of their sweep's end with the first job.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext
from joblib.externals.loky import get_reusable_executor
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from molsam.sweeping import orphan
from molsam.sweeping.compose import Change, put
from molsam.sweeping.job import Job, Launch

IDLE = 300
"""Seconds after which a worker without a job ends."""

THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS",
)  # fmt: skip


@dataclass(frozen=True)
class Workers:
    """Where jobs run.

    Attributes:
        context: Hydra's own.
        job: what each job does.
        count: how many run at a time; 0: in this very process.
        threads: of each worker; None leaves it to the libraries.
    """

    context: HydraContext
    job: Job
    count: int
    threads: int | None

    def run(self, launches: Iterable[Launch]) -> None:
        """Run jobs in their order, each as soon as a worker is free. Raises what kept a job from taking its trial."""
        if not self.count:
            for launch in launches:
                execute(self.context, self.job, launch, None)
            return
        orphan.remove_semaphores()
        pending: set[Future[None]] = set()
        executor = get_reusable_executor(
            max_workers=self.count,
            timeout=IDLE,
            initializer=orphan.follow,
            initargs=(os.getpid(),),
            env=dict.fromkeys(THREADS, str(self.threads)) if self.threads else {},
        )
        try:
            for launch in launches:
                pending.add(executor.submit(execute, self.context, self.job, launch, Singleton.get_state()))
                # One waits, so that no worker does.
                while len(pending) > self.count:
                    pending = _settle(pending)
            while pending:
                pending = _settle(pending)
        finally:
            for future in pending:
                future.cancel()


def _settle(pending: set[Future[None]]) -> set[Future[None]]:
    done, left = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return left


def execute(context: HydraContext, job: Job, launch: Launch, state: Any) -> None:
    """One job, in whatever process. Raises what kept it from taking its trial."""
    if state is not None:
        setup_globals()
        Singleton.set_state(state)
    settings = launch.settings
    config = completed(settings.base, settings.changes, settings.overrides)
    with read_write(config.hydra), open_dict(config):
        config.hydra.sweep.dir, config.hydra.sweep.subdir = str(launch.folder.parent), launch.folder.name
        config.hydra.job.num, config.hydra.job.id = launch.number, str(launch.number)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        outcome = run_job(
            hydra_context=context,
            config=config,
            task_function=job,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    finally:
        HydraConfig.instance().cfg = before
    _ = outcome.return_value


def completed(base: DictConfig, changes: Iterable[Change], overrides: Iterable[str]) -> DictConfig:
    """A job's settings: the shared base, which stays as it is, with what differs put in."""
    config = copy.deepcopy(base)
    for change in changes:
        put(config, change)
    with read_write(config.hydra), open_dict(config):
        config.hydra.overrides.task = list(overrides)
    OmegaConf.copy_cache(from_config=base, to_config=config)
    return config
