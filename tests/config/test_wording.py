"""What is suggested for a setting that does not exist."""

from __future__ import annotations

import pytest

from molsam.config.compose import compose
from molsam.errors import ConfigError

MEANT = {
    "lr": "base_optimizer.lr", "learning_rate": "base_optimizer.lr", "optimizer.lr": "base_optimizer.lr",
    "training.lr": "base_optimizer.lr", "training.learning_rate": "base_optimizer.lr",
    "training.bs": "training.batch_size", "n_epochs": "training.epochs", "wd": "base_optimizer.weight_decay",
    "device": "training.device", "gpu": "training.device", "num_folds": "split.folds",
    "dataset.target_columns": "dataset.targets", "dataset.target": "dataset.targets",
}  # fmt: skip


@pytest.mark.parametrize("key", MEANT)
def test_the_setting_that_is_meant_is_named(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{key} is not a setting of this run\. Did you mean {MEANT[key]}\?"):
        compose(["dataset=csv", "optimizer=graphsam", f"{key}=1"])


def test_a_file_in_place_of_a_dataset_is_recognized() -> None:
    with pytest.raises(
        ConfigError, match=r"^dataset=mine\.csv does not exist\. For a file of your own use dataset=csv "
    ):
        compose(["dataset=mine.csv"])
