"""A search whose validation metric cannot be computed is refused before any trial runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from molsam.config.compose import compose
from molsam.errors import ConfigError
from molsam.wiring import objective


def settings(folder: Path, *more: str) -> Any:
    """Thirty molecules whose validation part has one class only."""
    lines = ["smiles,active,size,part"]
    for n in range(30):
        part = ("train", "valid", "test")[n % 3]
        lines.append(f"{'C' * (n + 1)},{0 if part == 'valid' else n // 3 % 2},{n},{part}")
    (folder / "in.csv").write_text("\n".join(lines) + "\n")
    words = ["dataset=csv", f"dataset.path={folder / 'in.csv'}", "dataset.targets=[active]", "model=gcn"]
    cfg = compose([*words, "split=predefined", "split.column=part", *more])
    OmegaConf.resolve(cfg)
    return cfg


@pytest.mark.parametrize("varied", [["optimizer.rho"], ["model.dropout", "base_optimizer.lr"], ["model"]])
def test_one_class_in_validation_is_no_objective(tmp_path: Path, varied: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"roc_auc is undefined on the validation part of fold 0 .*split=stratified"):
        objective.check(settings(tmp_path), varied)


@pytest.mark.parametrize("varied", [["split.fold"], ["seed"], ["dataset.targets"]])
def test_what_the_search_varies_itself_is_left_to_its_trials(tmp_path: Path, varied: list[str]) -> None:
    objective.check(settings(tmp_path), varied)


def test_every_fold_is_looked_at(tmp_path: Path) -> None:
    """Of random folds with three positives in thirty, some have none to validate on."""
    rare = "smiles,active\n" + "".join(f"{'C' * (n + 1)},{int(n < 3)}\n" for n in range(30))
    words = ["split=random", "split.column=null", "split.folds=8"]
    cfg = settings(tmp_path)
    (tmp_path / "in.csv").write_text(rare)
    own = [f"dataset.path={tmp_path / 'in.csv'}", "dataset=csv", "dataset.targets=[active]", "model=gcn"]
    cfg = compose([*own, words[0], words[2]])
    OmegaConf.resolve(cfg)
    with pytest.raises(ConfigError, match=r"undefined on the validation part of fold \d"):
        objective.check(cfg, ["optimizer.rho"])


def test_another_metric_is_one(tmp_path: Path) -> None:
    objective.check(settings(tmp_path, "dataset.metric=accuracy"), ["optimizer.rho"])
    objective.check(settings(tmp_path, "dataset.targets=[size]"), ["optimizer.rho"])
