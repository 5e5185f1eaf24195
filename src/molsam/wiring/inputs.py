"""The files and folders that settings name as input: looked for before anything else is read or launched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from molsam.chem.descriptors import NAMES
from molsam.errors import ConfigError, DataError, MolsamError, StorageError
from molsam.runs import result

CSV = "give the path of a CSV, Parquet, SDF or .smi file"
FILES: tuple[tuple[str, type[MolsamError], str], ...] = (
    ("dataset.path", DataError, CSV),
    ("dataset.valid_path", DataError, CSV),
    ("dataset.test_path", DataError, CSV),
    ("dataset.descriptors", DataError, "give rdkit_2d, rdkit_2d_normalized, or an .npy or .npz file"),
    ("model.pretrained", StorageError, "give the path of an official GROVER checkpoint"),
)
"""Setting, the error if its file cannot be read, and the remedy."""
WEIGHTS = Path("best") / "model.safetensors"
"""Where a finished run keeps its best weights."""


def check(cfg: DictConfig | Mapping[str, Any]) -> None:
    """Raise DataError or StorageError, naming setting, value and remedy, for an input that is not there."""
    for name, error, remedy in FILES:
        value = _value(cfg, name)
        if value is None or (name == "dataset.descriptors" and value in NAMES):
            continue
        if reason := _unreadable(value):
            raise error(f"{name}={value!s} cannot be read ({reason}); {remedy}.")
    if cfg.get("init_from") is not None:
        start_weights(cfg.get("init_from"))
    elif _value(cfg, "training.freeze") is not None and _value(cfg, "model.pretrained") is None:
        raise ConfigError(
            f"training.freeze={_value(cfg, 'training.freeze')} would keep weights that nothing has trained; add "
            "init_from=FOLDER, a finished run to start from."
        )
    if _value(cfg, "training.freeze") is not None and _value(cfg, "training.encoder_lr") is not None:
        raise ConfigError("training.encoder_lr has no effect with training.freeze=encoder; leave one of them out.")
    root = _value(cfg, "dataset.root")
    if isinstance(root, str) and not os.path.isdir(Path(root).expanduser()):
        raise DataError(f"dataset.root={root} is not a folder; name the one that holds the file.")
    if _value(cfg, "model.pretrained") is not None and not str(_value(cfg, "model._target_")).endswith(".Grover"):
        raise ConfigError(
            f"model.pretrained={_value(cfg, 'model.pretrained')} does not fit this model, which has no official "
            "checkpoints; use model=grover, or leave it out."
        )


def start_weights(folder: Any) -> Path:
    """Return the weights of the finished run that init_from names; StorageError or ConfigError if there are none."""
    place = Path(str(folder)).expanduser()
    if (outcome := result.read(place)) is not None:
        place = result.origin(place, outcome)
    if (place / WEIGHTS).is_file():
        return place / WEIGHTS
    folds = sorted(path.parents[1] for path in place.glob(f"fold*/{WEIGHTS.as_posix()}"))
    if folds:
        raise ConfigError(
            f"init_from={folder} holds {len(folds)} folds; name one of them, such as init_from={folds[0]}."
        )
    raise StorageError(
        f"init_from={folder} holds no finished run ({place / WEIGHTS} is missing); give the folder of one."
    )


def _value(cfg: DictConfig | Mapping[str, Any], name: str) -> Any:
    """Return a setting, None if it or its section is missing (`check.check` reports that)."""
    section, _, key = name.partition(".")
    node = cfg.get(section)
    if isinstance(node, DictConfig):
        return OmegaConf.select(node, key, throw_on_missing=False)
    return node.get(key) if isinstance(node, Mapping) else None


def _unreadable(value: Any) -> str:
    """Return why a path cannot be read as a file; empty if it can."""
    try:
        path = Path(value).expanduser()
        if path.exists() and not path.is_file():
            return "it is not a file"
        with open(path, "rb"):
            return ""
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        return str(getattr(error, "strerror", None) or error)
