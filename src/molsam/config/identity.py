"""Say which settings can change a result, and hash them."""

from __future__ import annotations

import hashlib
import json

from omegaconf import DictConfig

from molsam.config.compose import plain

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
