"""The Hydra application: it composes the settings, runs a job or a sweep, and reports errors in one sentence."""

from __future__ import annotations

import argparse
import atexit
import functools
import os
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from molsam import terminal
from molsam.config.compose import complaint, conf_dir, own_folder, register, set_project_root
from molsam.errors import MolsamError
from molsam.training.events import RunObserver


def main() -> int:
    """Run `molsam train` or train.py, and return the exit code (molsam.errors lists them)."""
    terminal.prepare(lasting=True)
    set_project_root()
    # Hydra then raises errors instead of printing them, so that all are reported below.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register(_run_dir)
    outcome: list[int] = []

    # The empty whitelist keeps configurations from making Hydra call anything but its own handlers.
    @hydra.main(config_path=str(conf_dir()), config_name="config", execution_whitelist=())
    def task(cfg: DictConfig, observer: RunObserver | None = None) -> Any:
        from molsam.wiring import follower, processes
        from molsam.wiring.run import run

        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return run(cfg, observer)
        if (launched := processes.launched()) is not None and launched[0] > 0:
            outcome.append(follower.launched())
            return None
        try:
            return run(cfg)
        except MolsamError as error:
            outcome.append(report(error))
            return None

    try:
        own_folder(_config_dir())
        sys.argv[1:] = with_name(sys.argv[1:])
        task()
    except MolsamError as error:
        return report(error)
    except (HydraException, OmegaConfBaseException) as error:
        terminal.complain(_explain(error))
        return 2
    except KeyboardInterrupt:
        terminal.complain("stopped by Ctrl-C.")
        return 130
    except Exception as error:
        if (known := _known(error)) is not None:
            return known
        traceback.print_exc()
        terminal.complain("this is a defect of molsam, not of your settings; please report the lines above.")
        return 70
    return outcome[0] if outcome else 0


def _run_dir(cfg: DictConfig) -> Path:
    from molsam.runs.folder import choose
    from molsam.wiring import identify, processes

    if (launched := processes.launched()) is not None and launched[0] > 0:
        return _nowhere()
    processes.settle(cfg)
    return choose(cfg, identify.of)


@functools.cache
def _nowhere() -> Path:
    """Return a temporary folder for Hydra's empty log, in a process that writes nothing."""
    folder = tempfile.mkdtemp(prefix="molsam-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _known(error: Exception) -> int | None:
    """Report a library's error of known cause in one sentence and return the exit code; None for other errors."""
    if isinstance(error, OSError):
        place = error.filename or "A file or the terminal"
        terminal.complain(
            f"{place} cannot be used ({error.strerror or error}); free some space, or choose another folder with "
            "paths.outputs=FOLDER."
        )
        return 5
    if isinstance(error, yaml.YAMLError):
        # Hydra reads only plain values. Other tags, or a file that is not YAML, cause this error.
        terminal.complain(f"a configuration file is not plain YAML ({' '.join(str(error).split())}); correct it.")
        return 2
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HydraException):
        cause = cause.__cause__
    if isinstance(cause, HydraException) or _is_of_hydra(error):
        terminal.complain(_explain(cause if isinstance(cause, HydraException) else error))
        return 2
    return None


def _is_of_hydra(error: Exception) -> bool:
    """Return whether Hydra itself rejected the command line (mutually exclusive flags, a group without a name)."""
    if not isinstance(error, ValueError) or error.__traceback__ is None:
        return str(error).startswith("Unknown plugin class")
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("hydra.")


def with_name(words: list[str]) -> list[str]:
    """Return a command line on which sweeps.name=NAME is a setting of every sweep, also of one without a sweep file."""
    if not {"--multirun", "-m"} & set(words) or any(word.startswith("sweeps=") for word in words):
        return words
    return [f"++{word}" if word.startswith("sweeps.name=") else word for word in words]


def report(error: MolsamError) -> int:
    """Print one sentence and return the exit code."""
    terminal.complain(str(error))
    return error.exit_code


def _config_dir() -> Path | None:
    """Return the user's own configuration folder (Hydra's --config-dir), if one was given."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    found: Path | None = parser.parse_known_args()[0].config_dir
    return found


def _explain(error: Exception) -> str:
    return complaint(error, [*sys.argv[1:], *own_folder(_config_dir())])


if __name__ == "__main__":
    sys.exit(main())
