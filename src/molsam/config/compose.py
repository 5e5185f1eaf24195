"""Compose settings: the folder of the configuration, Hydra's composition outside the command line."""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import DictConfig, OmegaConf

from molsam.config.command import training
from molsam.errors import ConfigError


def conf_dir() -> Path:
    """The folder of the configuration: beside the sources, or inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    source = package.parents[1] / "conf"
    return source if (source / "config.yaml").is_file() else package / "conf"


def set_project_root() -> None:
    """Make sweeps/ a config group from any working directory (read by conf/config.yaml)."""
    os.environ.setdefault("PROJECT_ROOT", str(conf_dir().parent))


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """The settings of a run, as the command line composes them."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    set_project_root()
    register_resolvers()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir())):
        cfg = hydra.compose("config", overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(cfg)
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])


def datasets() -> dict[str, dict[str, Any]]:
    """The section of every dataset of the configuration, by name, with what it inherits."""
    names = sorted(path.stem for path in (conf_dir() / "dataset").glob("*.yaml"))
    return {name: copy.deepcopy(_dataset(name)) for name in names}


@functools.cache
def _dataset(name: str) -> dict[str, Any]:
    cfg = _file(f"dataset/{name}")
    return {str(key): value for key, value in cast(dict[Any, Any], OmegaConf.to_container(cfg.dataset)).items()}


def _file(name: str) -> DictConfig:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir())):
        return hydra.compose(name)


def sweep_section(name: str) -> tuple[dict[str, Any], int]:
    """The `sweeps:` section of a sweep file, with what it inherits, and its number of trials were it a search.

    Raises ConfigError if the file makes no settings.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        section, trials = _sweep(os.environ.get("PROJECT_ROOT", ""), name)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        reason = " ".join(f"{error} {error.__cause__ or ''}".split())
        raise ConfigError(f"sweeps={name} cannot be read ({reason}); mend the file.") from error
    return copy.deepcopy(section), trials


@functools.cache
def _sweep(root: str, name: str) -> tuple[dict[str, Any], int]:
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    set_project_root()
    register_resolvers()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_dir())):
        cfg = hydra.compose("config", overrides=[f"sweeps={name}"], return_hydra_config=True)
    section = OmegaConf.to_container(cfg.get("sweeps") or OmegaConf.create(), resolve=False)
    return {str(key): value for key, value in cast(dict[Any, Any], section).items()}, int(cfg.hydra.sweeper.n_trials)


def register_resolvers(run_dir: Callable[[DictConfig], Path] | None = None) -> None:
    """Make ${molsam.command:} known to Hydra, and ${molsam.run_dir:} where a run may start, by what chooses its folder."""
    OmegaConf.register_resolver("molsam.command", training, replace=True)
    if run_dir is not None:
        OmegaConf.register_resolver("molsam.run_dir", functools.partial(_run_dir, run_dir), replace=True)


def _run_dir(choose: Callable[[DictConfig], Path], *_: str, _root_: DictConfig) -> str:
    return str(choose(OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])))


def plain(node: DictConfig) -> dict[str, Any]:
    """A section as a plain dict, interpolations resolved."""
    return {str(key): value for key, value in cast(dict[Any, Any], OmegaConf.to_container(node, resolve=True)).items()}
