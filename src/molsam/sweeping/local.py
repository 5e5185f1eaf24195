"""Jobs on this machine: worker processes that are reused for the next job, and return only a value.

Hydra's joblib launcher is not used, because it returns each job's whole settings, and its workers follow the sweep's
end only from their first job on.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import importlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import configure_log, run_job, setup_globals
from hydra.types import HydraContext
from joblib.externals.loky import ProcessPoolExecutor, get_reusable_executor
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from molsam.native.process import cores
from molsam.sweeping import orphan
from molsam.sweeping.compose import Change, put
from molsam.sweeping.job import Job, Launch

IDLE = 300
"""Seconds after which an idle worker ends."""

THREADS = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS",
)  # fmt: skip


@dataclass(frozen=True)
class Workers:
    """Worker processes of a sweep.

    Attributes:
        context: Hydra's context.
        job: the task function.
        count: number of jobs at a time; 0 runs them in this process.
        threads: number of threads of each worker; None leaves it to the libraries.
    """

    context: HydraContext
    job: Job
    count: int
    threads: int | None

    def run(self, launches: Iterable[Launch]) -> None:
        """Run jobs in their order, each as soon as a worker is free.

        Raises the error of a job that could not claim its trial.
        """
        if not self.count:
            for launch in launches:
                execute(self.context, self.job, launch, None)
            return
        pending: set[Future[None]] = set()
        executor = _executor(self.count, self.threads)
        try:
            for launch in launches:
                pending.add(executor.submit(execute, self.context, self.job, launch, Singleton.get_state()))
                # One job waits in the queue, so that no worker is idle.
                while len(pending) > self.count:
                    pending = _settle(pending)
            while pending:
                pending = _settle(pending)
        finally:
            for future in pending:
                future.cancel()


@contextlib.contextmanager
def warm(count: int, threads: int | None) -> Iterator[None]:
    """Start the workers and their imports while the body runs; an error in the body ends them."""
    executor = _executor(count, threads)
    at_once = max(cores() - 1, 1)  # so that the first worker is ready soon: one core is left to the body
    with tempfile.TemporaryDirectory() as folder:
        turns = [Path(folder, str(worker % at_once)) for worker in range(count)]
        imports = [executor.submit(_import, turn) for turn in turns]
        try:
            yield
        except BaseException:
            # loky's own thread fails with KeyError if it still has to send a job when the workers are killed.
            while not all(future.running() or future.done() for future in imports):
                time.sleep(0.01)
            executor.shutdown(wait=False, kill_workers=True)
            raise


def _import(turn: Path) -> None:
    """Import what a run needs, after other workers with the same `turn`; at once if that file's folder is gone."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            fcntl.flock(stack.enter_context(open(turn, "wb")), fcntl.LOCK_EX)
        importlib.import_module("molsam.wiring.run")


def _executor(count: int, threads: int | None) -> ProcessPoolExecutor:
    orphan.remove_semaphores()
    return get_reusable_executor(
        max_workers=count,
        timeout=IDLE,
        initializer=orphan.follow,
        initargs=(os.getpid(),),
        env=dict.fromkeys(THREADS, str(threads)) if threads else {},
    )


def _settle(pending: set[Future[None]]) -> set[Future[None]]:
    done, left = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return left


def execute(context: HydraContext, job: Job, launch: Launch, state: Any) -> None:
    """Run one job, in this process or a worker. Raises the error if it could not claim its trial."""
    if state is not None:
        setup_globals()
        Singleton.set_state(state)
    settings = launch.settings
    # A worker received its own copy of the base; in this process all jobs share it.
    base = copy.deepcopy(settings.base) if state is None else settings.base
    config = completed(base, settings.changes, settings.overrides)
    with read_write(config.hydra), open_dict(config):
        config.hydra.sweep.dir, config.hydra.sweep.subdir = str(launch.folder.parent), launch.folder.name
        config.hydra.job.num, config.hydra.job.id = launch.number, str(launch.number)
        config.hydra.runtime.output_dir = os.path.abspath(launch.folder)
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        _run(context, job, config, launch.folder)
    finally:
        HydraConfig.instance().cfg = before


def _run(context: HydraContext, job: Job, config: DictConfig, folder: Path) -> None:
    """Run a job as Hydra does, but without copying Hydra's own section, unless the settings need more of Hydra."""
    own = config.hydra
    if own.callbacks or own.job.chdir or own.job.env_set or own.output_subdir is not None:
        outcome = run_job(
            hydra_context=context,
            config=config,
            task_function=job,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        _ = outcome.return_value
        return
    folder.mkdir(parents=True, exist_ok=True)
    configure_log(own.job_logging, own.verbose, execution_whitelist=context.execution_whitelist)
    job(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))


def completed(config: DictConfig, changes: Iterable[Change], overrides: Iterable[str]) -> DictConfig:
    """Return a job's settings: its base with its changes."""
    for change in changes:
        put(config, change)
    with read_write(config.hydra), open_dict(config):
        config.hydra.overrides.task = list(overrides)
    return config
