"""Compose settings: the folder of the configuration, Hydra's composition outside the command line."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from molsam.config.command import training
from molsam.config.schema import RunConfig
from molsam.config.wording import explain, names_of
from molsam.errors import ConfigError

NO_NAME = "Config group override must be"
"""How Hydra begins when a group is given a number or null instead of a name."""
OWN = "MOLSAM_CONFIG_DIR"
"""Environment variable with the person's own configuration folder, for this process and those that it starts."""
MAY_BE_MISSING = {"dataset.path"}
"""Settings without a default whose absence `molsam.data.sources` explains."""


def conf_dir() -> Path:
    """Return the folder of the configuration: beside the sources, or inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    source = package.parents[1] / "conf"
    return source if (source / "config.yaml").is_file() else package / "conf"


def set_project_root() -> None:
    """Make sweeps/ a config group from any working directory (read by conf/config.yaml)."""
    os.environ.setdefault("PROJECT_ROOT", str(conf_dir().parent))


def own_folder(folder: Path | None) -> list[str]:
    """Make the person's own configuration folder known, None for none; the overrides that let Hydra find it.

    Raises ConfigError if it is no folder.
    """
    if folder is None:
        return []
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; name the one that holds your model/, dataset/ or metric/.")
    set_project_root()
    os.environ[OWN] = str(folder.resolve())
    return [f"hydra.searchpath=[file://{os.environ['PROJECT_ROOT']},file://{folder.resolve()}]"]


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """Return the settings of a run, as the command line composes them. Raises ConfigError for what Hydra refuses."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException

    try:
        cfg = _compose("config", overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(complaint(error, overrides)) from error
    HydraConfig.instance().set_config(cfg)
    return _without_hydra(cfg)


def structured(cfg: DictConfig) -> DictConfig:
    """Return a copy of settings (composed, or recorded by a run) under the schema, interpolations resolved.

    Raises ConfigError for a setting that the schema does not have, has in another type, or misses.
    """
    try:
        found = OmegaConf.unsafe_merge(RunConfig, OmegaConf.to_container(cfg, resolve=True))  # of copies
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error, functools.partial(names_of, cfg))) from error
    assert isinstance(found, DictConfig)
    if missing := sorted(OmegaConf.missing_keys(found) - MAY_BE_MISSING):
        raise ConfigError(f"{missing[0]} is missing; give it, or choose one of the options of its config group.")
    return found


def complaint(error: Exception, overrides: Sequence[str]) -> str:
    """Return one sentence for what Hydra or OmegaConf refused of some overrides."""
    if str(error).startswith(NO_NAME):
        unnamed = [word for word in overrides if re.search(r"=(null|true|false|[-+.\d]+)$", word) and _is_group(word)]
        return (
            f"{unnamed[0] if unnamed else 'An override'} names no option of its config group; type one, as model=gcn."
        )
    return explain(error, functools.partial(_setting_names, overrides))


def _setting_names(overrides: Sequence[str]) -> list[str]:
    """Return every setting's dotted name, with the groups that some overrides choose if they can be composed."""
    from hydra.errors import HydraException

    chosen = [word for word in overrides if word.startswith("hydra.searchpath=") or _is_group(word)]
    for choices in (chosen, []):
        with contextlib.suppress(HydraException, OmegaConfBaseException):
            return names_of(_without_hydra(_compose("config", choices)))
    return []


def _is_group(override: str) -> bool:
    name, equals, _ = override.partition("=")
    return bool(equals) and (conf_dir() / name.strip("+~")).is_dir()


def _without_hydra(cfg: DictConfig) -> DictConfig:
    """Return the settings without Hydra's own section."""
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra", None)
    OmegaConf.set_struct(cfg, None)  # a caller may add settings to the sections without a schema
    return cfg


def _compose(name: str, overrides: Sequence[str]) -> DictConfig:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    set_project_root()
    register()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir())):
        return hydra.compose(name, overrides=list(overrides), return_hydra_config=True)


def datasets() -> dict[str, dict[str, Any]]:
    """Return the section of every dataset of the configuration, by name, with what it inherits."""
    names = sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml"))
    return {name: copy.deepcopy(_dataset(name)) for name in names}


@functools.cache
def _dataset(name: str) -> dict[str, Any]:
    cfg = _compose(f"dataset/{name}", ())
    return {str(key): value for key, value in cast(dict[Any, Any], OmegaConf.to_container(cfg.dataset)).items()}


def sweep_section(name: str) -> tuple[dict[str, Any], int]:
    """Return the `sweeps:` section of a sweep file, with what it inherits, and its number of trials were it a search.

    Raises ConfigError if the file makes no settings.
    """
    from hydra.errors import HydraException

    try:
        section, trials = _sweep(os.environ.get("PROJECT_ROOT", ""), name)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        reason = explain(error, list)
        raise ConfigError(f"sweeps={name} cannot be read ({reason}); mend the file.") from error
    return copy.deepcopy(section), trials


@functools.cache
def _sweep(root: str, name: str) -> tuple[dict[str, Any], int]:
    cfg = _compose("config", [f"sweeps={name}"])
    section = OmegaConf.to_container(cfg.get("sweeps") or OmegaConf.create(), resolve=False)
    return {str(key): value for key, value in cast(dict[Any, Any], section).items()}, int(cfg.hydra.sweeper.n_trials)


def register(run_dir: Callable[[DictConfig], Path] | None = None) -> None:
    """Make the schema, ${molsam.command:} and ${molsam.groups:} known to Hydra.

    Args:
        run_dir: chooses the folder of a run, for ${molsam.run_dir:}; given where a run may start.
    """
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store("schema", RunConfig, replace=True)  # first in the defaults list of conf/config.yaml
    OmegaConf.register_resolver("molsam.command", training, replace=True)
    OmegaConf.register_resolver("molsam.groups", _groups, replace=True)
    if run_dir is not None:
        OmegaConf.register_resolver("molsam.run_dir", functools.partial(_run_dir, run_dir), replace=True)


def _groups() -> str:
    """Return the groups and their choices for --help, in lines of at most 80 columns."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    if not GlobalHydra.instance().is_initialized():
        return ""
    loader = GlobalHydra.instance().config_loader()
    lines: list[str] = []
    for group in sorted(set(loader.list_groups("")) - {"hydra"}):
        choices = ", ".join(loader.get_group_options(group, ObjectType.CONFIG))
        lines += textwrap.wrap(f"{group}: {choices}", 80, subsequent_indent="  ") if choices else []
    return "\n".join(lines)


def _run_dir(choose: Callable[[DictConfig], Path], *_: str, _root_: DictConfig) -> str:
    return str(choose(OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])))


def other_folder() -> str:
    """Return the setting that gives a run another folder. The folders of a sweep's runs lie in the sweep's own."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return "sweeps.name=NAME (hydra.sweep.dir=OTHER_FOLDER where that was given)"
    return "hydra.run.dir=FOLDER"


def plain(node: DictConfig) -> dict[str, Any]:
    """Return a section as a plain dict, interpolations resolved."""
    return {str(key): value for key, value in cast(dict[Any, Any], OmegaConf.to_container(node, resolve=True)).items()}
