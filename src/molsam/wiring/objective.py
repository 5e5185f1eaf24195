"""Whether a search can have an objective: told before any trial runs."""

from __future__ import annotations

from collections.abc import Iterable

from omegaconf import DictConfig

from molsam.data.split import make_split
from molsam.errors import ConfigError
from molsam.training.judge import Judge
from molsam.wiring.run import load_dataset


def check(cfg: DictConfig, varied: Iterable[str]) -> None:
    """Raise ConfigError if the metric is undefined on the validation part of a fold of these settings.

    Reads the data, which the trials then find in the cache. Says nothing where the search varies what the data or the
    split depend on (`varied`: the keys that it varies).
    """
    if any(key.split(".")[0] in ("dataset", "split", "seed") for key in varied):
        return
    dataset = load_dataset(cfg)
    folds = [cfg.split.fold] if cfg.split.get("fold") is not None else list(range(cfg.split.get("folds", 1)))
    for fold in folds:
        if Judge(dataset, make_split(dataset, cfg.split, seed=cfg.seed, fold=fold)).chooses != dataset.metric:
            raise ConfigError(
                f"{dataset.metric} is undefined on the validation part of fold {fold} (one class only, or too few "
                "labels or none), so a search would have no objective; use split=stratified, a larger validation "
                "part, or another dataset.metric."
            )
