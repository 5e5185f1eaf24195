"""Metrics as conf/metric describes them: display name, tasks, and whether larger or smaller is better."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from molsam.config.compose import OWN, conf_dir
from molsam.config.trust import TRUSTED, trusted
from molsam.errors import ConfigError

TASKS = ("regression", "classification", "multiclass")
NAMELESS = "_target_ is a function of molsam or of a package that you trust, direction max or min, task of "


def metric_folders() -> tuple[Path, ...]:
    """Return the folders of metrics: molsam's, then the one in the user's configuration folder, if there is one."""
    own = os.environ.get(OWN)
    return (conf_dir() / "metric", *([Path(own) / "metric"] if own else []))


def metric_files() -> dict[str, dict[str, Any]]:
    """Return the settings of all metrics by name: _target_, task (a tuple), direction, display, main.

    Raises ConfigError for a file that does not describe a metric, a name that molsam has already, and a function that
    is not trusted.
    """
    return read(metric_folders(), os.environ.get(TRUSTED))


@cache
def read(folders: tuple[Path, ...], trust: str | None) -> dict[str, dict[str, Any]]:
    """Return the metrics of some folders, read once for each value of MOLSAM_TRUSTED; raises as `metric_files` does."""
    found: dict[str, dict[str, Any]] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.yaml"))):
        if path.stem in found:
            raise ConfigError(f"{path}: molsam has a metric of this name; give the file another one.")
        found[path.stem] = _metric(path)
    return found


def _metric(path: Path) -> dict[str, Any]:
    """Return the settings of one metric."""
    import yaml

    try:
        settings = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
        tasks = settings["task"] if isinstance(settings["task"], list) else [settings["task"]]
        if (
            settings["direction"] not in ("max", "min")
            or not set(tasks) <= set(TASKS)
            or "." not in settings["_target_"]
        ):
            raise ValueError(NAMELESS + ", ".join(TASKS))
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ConfigError(f"{path} is not a metric ({reason}); see conf/metric/rmse.yaml.") from error
    address = str(settings["_target_"])
    if not address.startswith("molsam.") and not trusted(address):
        raise ConfigError(
            f"{path}: _target_={address} is not allowed; use a function of molsam. If you wrote it yourself, trust its "
            f"package: {TRUSTED}={address.split('.')[0]}."
        )
    return {"display": path.stem, "main": False, **settings, "task": tuple(tasks), "path": path}


def direction(metric: str) -> str:
    """Return "max" or "min", the better direction. It is "max" for a metric that this version does not know."""
    return str(metric_files().get(metric, {}).get("direction", "max"))


def display(metric: str) -> str:
    """Return the name of a metric in tables."""
    return str(metric_files().get(metric, {}).get("display", metric))
