"""Schemas of the sections that every run shares, and the folder that holds the configuration."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

# Settings that cannot change a result: where files go, what is logged, how far a run may be interrupted.
NEUTRAL = ("paths", "logger", "resume", "overwrite", "name", "smoke", "dry_run", "sweeps", "hydra", "debug")
NEUTRAL_TRAINING = (
    "threads",
    "log_every",
    "checkpoint_minutes",
    "checkpoint_steps",
    "eval_batch_size",
    "test_each_epoch",
)


@dataclass
class TrainingConfig:
    """Schema of conf/training."""

    epochs: int = 30
    batch_size: int = 32
    eval_batch_size: int = 256
    loss: str = "auto"
    max_grad_norm: float | None = None
    patience: int | None = None
    accumulate: int = 1
    drop_last: bool = False
    nonfinite: str = "raise"
    test_each_epoch: bool = False
    precision: str = "fp32"
    device: str = "cpu"
    threads: int | None = None
    log_every: int = 10
    checkpoint_minutes: float = 1.0
    checkpoint_steps: int | None = None


@dataclass
class PathsConfig:
    """Schema of conf/paths."""

    outputs: str = "outputs"
    cache: str | None = None


@dataclass
class SplitConfig:
    """Schema of conf/split; molsam.data.split says what fits together."""

    kind: str
    folds: int = 1
    fold: int | None = None
    fractions: list[float] | None = None
    balanced: bool = False
    column: str | None = None
    valid: float | None = None


@dataclass
class LoggerConfig:
    """Schema of conf/logger."""

    kind: str
    mode: str = "offline"
    project: str = "molsam"
    entity: str | None = None
    tags: list[str] | None = None
    log_every: int = 10


@dataclass
class DatasetConfig:
    """Schema of conf/dataset; molsam.data.settings checks the values."""

    display: str
    task: str | None = None
    metric: str | None = None
    path: str | None = None
    smiles: str | None = None
    targets: Any = None
    root: str | None = None
    on_invalid: str = "drop"
    duplicates: str = "keep"
    max_atoms: int | None = None
    limit: int | None = None
    descriptors: str | None = None
    published: Any = None
    url: str | None = None
    sha256: str | None = None
    embedded: str | None = None
    layouts: list[Any] | None = None
    reader: str | None = None
    classes: int | None = None
    augment: bool = False


@dataclass
class ChoicesConfig:
    """Schema of the names that were chosen."""

    model: str | None
    dataset: str | None
    optimizer: str | None
    base_optimizer: str | None
    rho_schedule: str | None
    lr_schedule: str | None


@dataclass
class DiagnosticsConfig:
    """Schema of conf/diagnostics."""

    gradients: Any = None
    sharpness: Any = None


@dataclass
class RunConfig:
    """Schema of conf/config.yaml, without Hydra's own section."""

    choices: Any
    dataset: Any
    model: Any
    split: Any
    base_optimizer: Any
    rho_schedule: Any
    optimizer: Any
    lr_schedule: Any
    training: Any
    diagnostics: Any
    callbacks: Any
    logger: Any
    paths: Any
    sweeps: Any = None
    seed: int = 0
    name: str | int | None = None
    resume: str | None = None
    overwrite: bool = False
    smoke: bool = False
    dry_run: bool = False


# key -> (smallest allowed value, or the allowed values)
TRAINING_LIMITS: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 1,
    "eval_batch_size": 1,
    "accumulate": 1,
    "patience": 1,
    "threads": 1,
    "log_every": 1,
    "checkpoint_steps": 1,
    "checkpoint_minutes": 0,
    "max_grad_norm": 1e-12,
    "loss": ("auto", "mse", "rmse", "mae", "bce", "cross_entropy"),
    "nonfinite": ("raise", "skip"),
    "precision": ("fp32", "bf16", "fp64"),
}


def conf_dir() -> Path:
    """The folder of the configuration: beside the sources, or inside an installed package."""
    package = Path(__file__).resolve().parent
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


def register_resolvers() -> None:
    """Make ${molsam.run_dir:} known to Hydra."""
    OmegaConf.register_resolver("molsam.run_dir", _run_dir, replace=True)


def _run_dir(*_: str, _root_: DictConfig) -> str:
    from molsam.folder import choose

    return str(choose(OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])))


def plain(node: DictConfig) -> dict[str, Any]:
    """A section as a plain dict, interpolations resolved."""
    return {str(key): value for key, value in cast(dict[Any, Any], OmegaConf.to_container(node, resolve=True)).items()}


def without_secrets(value: Any) -> Any:
    """A tree of plain values in which the values of secret environment variables are starred out."""
    if isinstance(value, dict):
        return {key: without_secrets(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_secrets(item) for item in value]
    if isinstance(value, str):
        for secret in _secrets():
            value = value.replace(secret, "***")
    return value


def _secrets() -> list[str]:
    names = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL")
    return [value for name, value in os.environ.items() if names.search(name.upper()) and len(value) >= 8]


def config_hash(cfg: DictConfig) -> str:
    """Hex digest of every setting that can change a result."""
    kept = {key: value for key, value in plain(cfg).items() if key not in NEUTRAL}
    kept["training"] = {k: v for k, v in kept.get("training", {}).items() if k not in NEUTRAL_TRAINING}
    dataset = kept.get("dataset", {})
    kept["dataset"] = {k: v for k, v in dataset.items() if k not in ("root", "display", "published")}
    split = kept.get("split", {})
    if split.get("fold") is None and split.get("folds") == 1:
        split["fold"] = 0  # the only one
    if split.get("kind") != "kfold":
        kept["split"] = {key: value for key, value in split.items() if key != "folds"}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), default=str)
    # The same steps, up to rounding: what was trained with torch's Adam, as base_optimizer=adam once was, stays valid.
    text = text.replace('"molsam.optim.adam.Adam', '"torch.optim.Adam')
    return hashlib.sha256(text.encode()).hexdigest()[:16]
