"""The Hydra application: composes the settings, runs one job or a sweep, turns errors into one sentence."""

from __future__ import annotations

import argparse
import atexit
import functools
import os
import re
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from molsam import terminal
from molsam.config import command
from molsam.config.compose import compose, conf_dir, register_resolvers, set_project_root
from molsam.errors import MolsamError, nearest
from molsam.training.events import RunObserver


def main() -> int:
    """Entry point of `molsam train` and train.py; returns the exit code (molsam.errors lists them)."""
    terminal.prepare(lasting=True)
    set_project_root()
    # Hydra then raises what it would print, so that one place below words every error.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    register_resolvers(_run_dir)
    outcome: list[int] = []

    # What Hydra itself would call for a configuration (callbacks, logging): nothing beyond its own handlers.
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
        task()
    except MolsamError as error:
        return report(error)
    except (HydraException, OmegaConfBaseException) as error:
        print(f"molsam: {explain(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("molsam: stopped by Ctrl-C.", file=sys.stderr)
        return 130
    except Exception as error:
        if (known := _known(error)) is not None:
            return known
        traceback.print_exc()
        print(
            "molsam: this is a defect of molsam, not of your settings; please report the lines above.",
            file=sys.stderr,
        )
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
    """A folder for Hydra's empty log in a process that writes nothing; it goes when the process ends."""
    folder = tempfile.mkdtemp(prefix="molsam-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _known(error: Exception) -> int | None:
    """Say what is wrong where a library's error has a plain cause; None if it has none."""
    if isinstance(error, OSError):
        place = error.filename or "A file or the terminal"
        print(
            f"molsam: {place} cannot be used ({error.strerror or error}); free some space, or choose another folder with "
            "paths.outputs=FOLDER.",
            file=sys.stderr,
        )
        return 5
    if isinstance(error, yaml.YAMLError):
        # Hydra reads settings as plain values: other tags, or what is no YAML at all, end here.
        print(
            f"molsam: a configuration file is not plain YAML ({' '.join(str(error).split())}); correct it.",
            file=sys.stderr,
        )
        return 2
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HydraException):
        cause = cause.__cause__
    if isinstance(cause, HydraException) or str(error).startswith("Unknown plugin class"):
        print(f"molsam: {explain(cause if isinstance(cause, HydraException) else error)}", file=sys.stderr)
        return 2
    return None


def report(error: MolsamError) -> int:
    """Print one sentence and return the exit code."""
    print(f"molsam: {error}", file=sys.stderr)
    return error.exit_code


def explain(error: Exception) -> str:
    """Hydra's complaint as one sentence with the nearest valid name."""
    text = " ".join(str(error).split())
    if match := re.search(
        r"Could not find '([\w/]+)/([^']+)'.*?Available options in '[^']+': (.*?)(?: Config search|$)", text
    ):
        group, given, options = match.groups()
        names = re.findall(r"[\w-]+", options)
        near = nearest(given, names)
        hint = f" Did you mean {group}={near}?" if near else ""
        return f"{group}={given} does not exist.{hint} Choose one of: {', '.join(names)}."
    if match := re.search(r"Ambiguous value for argument '([^']+?)=([^']*)'", text):
        key, value = match.groups()
        return (
            f"{key}={value} are several values; add --multirun to train with one after another, or write {key}=[{value}] if "
            "it is one list."
        )
    if match := re.search(r"Error when parsing index: (\d+), string: (.*?) out of \[", text):
        return _unreadable(match.group(2))
    if match := re.search(r"Key '([^']+)' is not in struct.*?full_key: (\S+)", f"{text} {_cause(error)}"):
        return _unknown_key(match.group(2))
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(match.group(1))
    return f"{text} {_cause(error)}".strip()


def _unreadable(word: str) -> str:
    """The sentence about a word of the command line that Hydra cannot read."""
    key, equals, value = word.partition("=")
    if not equals or not re.fullmatch(r"[\w./@+~-]+", key):
        return f"{word} is not a setting; settings are written key=value, as in model=gcn."
    listed = re.fullmatch(r"\[(.*)\]", value)
    quoted = f"[{','.join(_quoted(one.strip()) for one in listed[1].split(','))}]" if listed else _quoted(value)
    text = f"{key}={quoted}"
    return (
        f"{word} cannot be read; put quotes around values with signs or letters beyond ASCII: {command.shell([text])}"
    )


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[\w./+-]+", value, re.ASCII) else "'" + value.strip("'\"") + "'"


def _cause(error: BaseException) -> str:
    return " ".join(str(error.__cause__).split()) if error.__cause__ is not None else ""


def _unknown_key(key: str) -> str:
    try:
        names = _names()
    except (ConfigCompositionException, OmegaConfBaseException):
        names = []
    # A setting of the same name elsewhere, the least deep one; else the one that is written most alike.
    same = sorted(
        (name for name in names if name.split(".")[-1] == key.split(".")[-1]), key=lambda name: name.count(".")
    )
    near = same[0] if same else nearest(key, names, least=0.5)
    hint = f" Did you mean {near}?" if near else ""
    return f"{key} is not a setting of this run.{hint} `{command.training()} --help` lists them all."


def _config_dir() -> Path | None:
    """The person's own configuration folder (Hydra's --config-dir), if the command line names one."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    found: Path | None = parser.parse_known_args()[0].config_dir
    return None if found is None else found.resolve()


def _names() -> list[str]:
    """Every setting's dotted name, with the groups that the command line chose."""
    chosen = [a for a in sys.argv[1:] if "=" in a and (conf_dir() / a.split("=")[0].strip("+~")).is_dir()]
    if (own := _config_dir()) is not None:
        chosen.append(f"hydra.searchpath=[file://{os.environ['PROJECT_ROOT']},file://{own}]")
    found: list[str] = []

    def walk(node: DictConfig, prefix: str) -> None:
        for key in node:
            name = f"{prefix}{key!s}"
            found.append(name)
            child = node._get_node(key)
            if isinstance(child, DictConfig) and not child._is_none() and not child._is_interpolation():
                walk(child, f"{name}.")

    walk(compose(chosen), "")
    return found


if __name__ == "__main__":
    sys.exit(main())
