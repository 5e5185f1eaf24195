"""The W&B report: built without an account, and the message where it cannot be built."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from molsam.errors import ConfigError, StorageError
from molsam.report.dashboard import wandb_report


def stored(optimizer: str, value: float | None, model: str = "compt", dataset: str = "bbbp") -> Any:
    config = {"choices": {"model": model, "dataset": dataset, "optimizer": optimizer}}
    return SimpleNamespace(config=config, summary={} if value is None else {"result/test_roc_auc": value})


def test_the_table_has_ours_beside_the_papers() -> None:
    runs = [
        stored("sam", 0.9),
        stored("sam", 0.96),
        stored("graphsam", None),
        stored("mine|<b>", 0.5),
        SimpleNamespace(config={}, summary={"result/test_rmse": 1}),
    ]
    metrics, table = wandb_report.comparison(runs)
    assert metrics == ["roc_auc"]
    assert table.splitlines()[2:] == [
        "| bbbp | compt | mine  b  | ROC-AUC | 0.500 | 1 | – |",
        "| bbbp | compt | sam | ROC-AUC | 0.930 ± 0.042 | 2 | 0.962 |",
    ]


def test_a_report_is_built_without_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb_workspaces", reason="the extra wandb-workspaces is not installed")
    from wandb_workspaces.reports.v2 import interface

    monkeypatch.setattr(interface, "_get_api", lambda: SimpleNamespace(client=SimpleNamespace(), default_entity="team"))
    report = wandb_report.build("team", "molsam", ["roc_auc"], "| table |")
    grids = [block for block in report.blocks if type(block).__name__ == "PanelGrid"]
    titles = [panel.title for grid in grids for panel in grid.panels]
    for title in ("test ROC-AUC by optimizer", "graphs/s by optimizer", "test ROC-AUC against graphs/s",
                  "training loss", "cos(eps t+1, omega t)", "rho"):  # fmt: skip
        assert title in titles
    assert not any("RMSE" in title for title in titles)
    assert [type(panel).__name__ for panel in grids[0].panels] == ["BarPlot", "BarPlot", "ScatterPlot"]
    assert report.blocks[-1].text == "| table |"
    assert all(runset.groupby == list(wandb_report.GROUPS) for grid in grids for runset in grid.runsets)
    sent = json.dumps(
        [panel._to_model().model_dump(mode="json", by_alias=True) for grid in grids for panel in grid.panels]
    )
    for key in ("result/test_roc_auc", "result/graphs_per_s", "gradients/cos_next", "choices.value.optimizer"):
        assert key in sent


@pytest.mark.parametrize("installed", [True, False])
def test_without_an_account_or_the_extra_it_says_what_it_would_be(
    installed: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import wandb

    if installed:
        pytest.importorskip("wandb_workspaces", reason="the extra wandb-workspaces is not installed")
    else:
        monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    monkeypatch.setattr(wandb, "login", lambda **_: False)
    monkeypatch.setattr(wandb, "Api", lambda: pytest.fail("the network is not asked"))
    assert wandb_report.publish("team/molsam") == 0
    text = capsys.readouterr().out
    for part in (
        "A W&B report for team/molsam",
        "bar: graphs/s by optimizer",
        "gradients/cos_next",
        "the paper's value",
    ):
        assert part in text
    assert ("wandb login" if installed else "pip install 'molsam[wandb-workspaces]'") in text


def test_a_refusal_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb_workspaces", reason="the extra wandb-workspaces is not installed")
    import wandb

    def refuse() -> Any:
        raise OSError("permission denied")

    monkeypatch.setattr(wandb, "login", lambda **_: True)
    monkeypatch.setattr(wandb, "Api", refuse)
    with pytest.raises(StorageError, match=r"did not accept the report of team/molsam \(permission denied"):
        wandb_report.publish("team/molsam")


@pytest.mark.parametrize("target", ["molsam", "a/b/c", "team/", "team/<b>"])
def test_a_name_that_is_none(target: str) -> None:
    with pytest.raises(ConfigError, match="ENTITY/PROJECT"):
        wandb_report.publish(target)
