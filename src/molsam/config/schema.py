"""Schemas of the sections that every run shares. Hydra checks names and types against them when it composes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class TrainingConfig:
    """Schema of conf/training."""

    epochs: int = 30
    batch_size: int = 32
    eval_batch_size: int = 256
    loss: str = "auto"
    max_grad_norm: float | None = None
    patience: int | None = None
    average: str | None = None
    average_decay: float = 0.99
    average_start: float = 0.75
    accumulate: int = 1
    drop_last: bool = False
    nonfinite: str = "raise"
    test_each_epoch: bool = False
    class_weight: Any = None
    freeze: str | None = None
    encoder_lr: float | None = None
    precision: str = "fp32"
    device: str = "cpu"
    devices: int = 1
    perturb: str = "averaged"
    deterministic: bool = False
    compile: bool = False
    graphs: bool = False
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
    balanced: bool | None = None
    column: str | None = None
    valid: float | None = None
    stratify: bool | None = None
    convention: str | None = None
    cutoff: float | None = None
    seed: int | None = None


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
    smiles: Any = None
    targets: Any = None
    root: str | None = None
    on_invalid: str | None = None
    duplicates: str | None = None
    conflicts: str | None = None
    id: Any = None
    weights: Any = None
    positive: Any = None
    censored: str | None = None
    standardize: str | None = None
    valid_path: str | None = None
    test_path: str | None = None
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
    augment: bool | None = None
    nodes: str | None = None
    edges: str | None = None


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

    choices: ChoicesConfig
    dataset: DatasetConfig
    model: Any
    split: SplitConfig
    base_optimizer: Any
    rho_schedule: Any
    optimizer: Any
    lr_schedule: Any
    training: TrainingConfig
    diagnostics: DiagnosticsConfig
    callbacks: Any
    logger: LoggerConfig
    paths: PathsConfig
    sweeps: Any = None
    seed: int = 0
    name: str | int | None = None
    resume: str | None = None
    init_from: str | None = None
    overwrite: bool = False
    smoke: bool = False
    dry_run: bool = False
    pictures: bool | None = None


# key -> (smallest allowed value, or the allowed values)
TRAINING_LIMITS: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 1,
    "eval_batch_size": 1,
    "average": ("ema", "swa"),
    "average_decay": 0,
    "average_start": 0,
    "accumulate": 1,
    "patience": 1,
    "threads": 1,
    "devices": 1,
    "perturb": ("averaged", "local"),
    "log_every": 1,
    "checkpoint_steps": 1,
    "checkpoint_minutes": 0,
    "max_grad_norm": 1e-12,
    "loss": ("auto", "release", "mse", "rmse", "mae", "huber", "bce", "cross_entropy"),
    "nonfinite": ("raise", "skip"),
    "freeze": ("encoder",),
    "encoder_lr": 0,
    "precision": ("fp32", "bf16", "fp64"),
}
