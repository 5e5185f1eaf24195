"""Mistyped settings: one sentence that names the right one."""

from __future__ import annotations

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from molsam.commands.train import explain
from molsam.config.compose import compose
from molsam.errors import ConfigError, counted, nearest
from molsam.report.figures import style
from molsam.wiring import check


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
def test_the_setting_that_was_meant(given: str, right: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py"])
    with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
        compose([given])
    assert f"Did you mean {right}?" in explain(caught.value)


def test_several_values_want_multirun() -> None:
    text = explain(HydraException("Ambiguous value for argument 'seed=0,1'\n1. To use it as a list, ..."))
    assert text == (
        "seed=0,1 are several values; add --multirun to train with one after another, or write seed=[0,1] if it is one list."
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("training.device=gpu", r"training\.device=gpu is not a torch device; use training\.device=cuda"),
        ("+training.lr=1", r"training\.lr is not a setting\. Did you mean base_optimizer\.lr\?"),
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
