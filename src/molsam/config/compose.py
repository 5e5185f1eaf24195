"""Compose settings: the folder of the configuration, Hydra's composition outside the command line."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from molsam.config.command import training


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
