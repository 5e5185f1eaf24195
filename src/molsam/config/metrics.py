"""Metrics as conf/metric describes them: display name, tasks, and whether larger or smaller is better."""

from __future__ import annotations

from functools import cache
from typing import Any

from molsam.config.compose import conf_dir
from molsam.errors import ConfigError

TASKS = ("regression", "classification", "multiclass")


@cache
def metric_files() -> dict[str, dict[str, Any]]:
    """Settings of all metrics by name: _target_, task (a tuple), direction, display, main.

    Raises ConfigError for a file that is none.
    """
    import yaml

    found = {}
    for path in sorted((conf_dir() / "metric").glob("*.yaml")):
        try:
            settings = dict(yaml.safe_load(path.read_text(encoding="utf-8")))
            tasks = settings["task"] if isinstance(settings["task"], list) else [settings["task"]]
            fits = str(settings["_target_"]).startswith("molsam.") and settings["direction"] in ("max", "min")
            if not fits or not set(tasks) <= set(TASKS):
                raise ValueError(f"_target_ is a function of molsam, direction max or min, task of {', '.join(TASKS)}")
        except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(
                f"{path} is not a metric ({' '.join(str(error).split())}); see conf/metric/rmse.yaml."
            ) from error
        defaults = {"display": path.stem, "main": False}
        found[path.stem] = {**defaults, **settings, "task": tuple(tasks)}
    return found


def direction(metric: str) -> str:
    """Return "max" or "min", the better direction. It is "max" for a metric that this version does not know."""
    return str(metric_files().get(metric, {}).get("direction", "max"))


def display(metric: str) -> str:
    """What a metric is called in tables."""
    return str(metric_files().get(metric, {}).get("display", metric))
