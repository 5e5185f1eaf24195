"""Mistyped settings: one sentence that names the right one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra.errors import HydraException
from omegaconf import OmegaConf

from molsam.config.compose import compose, structured
from molsam.config.schema import TrainingConfig
from molsam.config.wording import explain
from molsam.errors import ConfigError, counted, nearest
from molsam.report.figures import style
from molsam.wiring import check
from tests.paths import ROOT


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("lr=0.001", "base_optimizer.lr"),
        ("optimizer.lr=0.1", "base_optimizer.lr"),
        ("training.lr=0.1", "base_optimizer.lr"),
        ("epochs=3", "training.epochs"),
        ("dataset=bpbp", "dataset=bbbp"),
        ("model=gnc", "model=gcn"),
        ("device=cuda", "training.device"),
    ],
)
def test_the_setting_that_was_meant(given: str, right: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"Did you mean {right}?")):
        compose([given])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("training.epochs=many", "training.epochs='many' has the wrong type; expected int."),
        ("training.epochs=null", "training.epochs=None has the wrong type; expected int."),
        ("seed=1.5", "seed=1.5 has the wrong type; expected int."),
        ("name=[1]", "name=[1] has the wrong type; expected str | int | None."),
        ("split.fractions=[0.5,x]", "split.fractions[1]='x' has the wrong type; expected list[float] | None."),
        ("split.fractions=3", "split.fractions=3 has the wrong type; expected list[float] | None."),
        ("++training.threads={a: 1}", "training.threads={'a': 1} has the wrong type; expected int | None."),
        ("training=3", "training=3 names no option of its config group; type one, as model=gcn."),
        (
            "~training.epochs",
            (
                "training.epochs is a setting of every run, so ~training.epochs cannot take it out; "
                "give it a value instead."
            ),
        ),
    ],
)
def test_settings_of_another_type_are_refused_when_composed(given: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["model=gcn", given])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("~seed=7", "seed is a setting of every run, so ~seed cannot take it out; give it a value instead."),
        ("~model=dmpnn", "model is a setting of every run, so ~model cannot take it out; give it a value instead."),
        ("~trainig.epochs", "trainig.epochs is not a setting of this run. Did you mean training.epochs?"),
        ("~outputs", "outputs is not a setting of this run. Did you mean paths.outputs?"),
    ],
)
def test_settings_cannot_be_deleted(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        compose(["model=gcn", given])


def test_a_deleted_setting_that_the_run_folder_needs_is_named() -> None:
    error = "raised while resolving interpolation: Missing key seed. Did you mean: 'sweeps'? full_key: seed"
    assert explain(HydraException(error), list) == (
        "seed is a setting of every run, so ~seed cannot take it out; give it a value instead."
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("training", "epochs: many", "In 'training/own': training.epochs='many' has the wrong type; expected int."),
        ("training", "epoch: 3", "In 'training/own': training.epoch is not a setting of this run. Did you mean "),
        (
            "split",
            "{kind: random, fractions: 0.8}",
            "In 'split/own': split.fractions has the wrong type; expected list",
        ),
        (
            "logger",
            "mode: offline",
            "logger.kind is missing; give it, or choose one of the options of its config group.",
        ),
        ("logger", "[]", "In 'logger/own': "),
    ],
)
def test_files_of_ones_own_are_held_to_the_schema(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "own.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        structured(compose([f"hydra.searchpath=[file://{ROOT},file://{tmp_path}]", f"{name}=own"]))
    assert str(caught.value).startswith(message)
    assert "full_key" not in str(caught.value)


def test_files_of_ones_own_may_hold_less_than_the_schema(tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "own.yaml").write_text("epochs: 3\nmax_grad_norm: 1\n")
    cfg = compose([f"hydra.searchpath=[file://{ROOT},file://{tmp_path}]", "training=own"])
    assert OmegaConf.to_object(cfg.training) == TrainingConfig(epochs=3, max_grad_norm=1.0)


def test_the_file_of_defaults_is_the_schemas() -> None:
    assert OmegaConf.to_object(compose().training) == TrainingConfig()


def test_several_values_want_multirun() -> None:
    text = explain(HydraException("Ambiguous value for argument 'seed=0,1'\n1. To use it as a list, ..."), list)
    assert text == (
        "seed=0,1 are several values; add --multirun to train with one after "
        "another, or write seed=[0,1] if it is one list."
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("training.device=gpu", r"training\.device=gpu is not a torch device; use training\.device=cuda"),
        ("+training.lr=1", r"training\.lr is not a setting of this run\. Did you mean base_optimizer\.lr\?"),
        ("split.convention=deep", r"split\.convention=deep is not known; use deepchem"),
    ],
)
def test_settings_that_do_not_exist(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check.check(compose(["model=gcn", "split=scaffold", given]))


def test_nearest() -> None:
    assert nearest("bpbp", ["bace", "bbbp"]) == "bbbp"
    assert nearest("gnc", ["gcn", "mpnn"]) == "gcn"
    assert nearest("xyz", ["gcn", "mpnn"]) is None
    assert nearest("a", []) is None


def test_numbers_and_articles() -> None:
    assert [counted(n, "molecule") for n in (0, 1, 2)] == ["0 molecules", "1 molecule", "2 molecules"]
    assert [style.a(name) for name in ("adam", "sam", "graphsam")] == ["an Adam", "a SAM", "a GraphSAM"]
