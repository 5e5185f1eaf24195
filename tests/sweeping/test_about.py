"""A study is defined by its fixed settings, its space and its direction, and continues only with these."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from molsam.config.identity import Identity
from molsam.errors import ConfigError
from molsam.sweeping.about import about, settle
from molsam.sweeping.context import _directions
from molsam.sweeping.study import SharedStudy
from tests.sweeping.conftest import App

FIXED = Identity({"optimizer.rho": 0.05, "training.epochs": 3}, {"dataset": "1234"}, {"split.fold": 0, "split.seed": 0})
SPACE: dict[str, Any] = {
    "optimizer.rho": FloatDistribution(0.001, 0.1, log=True),
    "+label": CategoricalDistribution("ab"),
}


def wanted(**changes: Any) -> dict[str, Any]:
    parts = {"settings": FIXED.settings, "data": FIXED.data, "split": FIXED.split, "space": SPACE, "way": ("minimize",)}
    parts |= changes
    return about(Identity(parts["settings"], parts["data"], parts["split"]), parts["space"], parts["way"])


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"settings": {**FIXED.settings, "training.epochs": 4}}, "training.epochs was 3, is 4"),
    ({"data": {"dataset": "5678"}}, "was 1234, is 5678"),
    ({"split": {**FIXED.split, "split.fold": 1}}, "split.fold was 0, is 1"),
    ({"way": ("maximize",)}, "the direction was minimize, is maximize"),
    (
        {"space": {**SPACE, "optimizer.rho": FloatDistribution(0.01, 0.1, log=True)}},
        "the space of optimizer.rho was 0.001 to 0.1 (log), is 0.01 to 0.1 (log)",
    ),
    (
        {"space": {**SPACE, "+label": CategoricalDistribution("abc")}},
        "the space of +label was one of a, b, is one of a, b, c",
    ),
    ({"space": {**SPACE, "seed": IntDistribution(0, 3)}}, "the space of seed was not searched, is 0 to 3"),
]


def opened(folder: Path) -> SharedStudy:
    node = {"_target_": "optuna.storages.RDBStorage", "path": str(folder / "study.db")}
    return SharedStudy(node, "s", ("minimize",), None, None, 10.0)


@pytest.mark.parametrize(("changes", "sentence"), CHANGES)
def test_another_search_is_refused_or_begins_anew(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    study = opened(tmp_path)
    settle(study, "s", wanted(), paths={})
    study.study.tell(study.study.ask(), 1.0)
    settle(opened(tmp_path), "s", wanted(), paths={})
    with pytest.raises(ConfigError, match=re.escape(sentence)) as caught:
        settle(opened(tmp_path), "s", wanted(**changes), paths={})
    assert "sweeps.name=NAME" in str(caught.value)
    assert "overwrite=true" in str(caught.value)
    assert len(opened(tmp_path).trials()) == 1
    anew = opened(tmp_path)
    settle(anew, "s", wanted(**changes), paths={}, overwrite=True)
    assert anew.trials() == []
    # The same command goes on: what is begun anew already stays.
    anew.study.tell(anew.study.ask(), 1.0)
    settle(opened(tmp_path), "s", wanted(**changes), paths={}, overwrite=True)
    assert len(opened(tmp_path).trials()) == 1


def test_what_is_searched_is_no_part_of_what_is_fixed() -> None:
    assert wanted(settings={**FIXED.settings, "optimizer.rho": 0.07}) == wanted()


def test_a_study_that_says_nothing_of_itself_is_not_continued(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.study.tell(study.study.ask(), 1.0)
    with pytest.raises(ConfigError, match="its settings were not recorded"):
        settle(study, "s", wanted(), paths={})


SEARCH = (
    "hydra/sweeper/sampler=random",
    "hydra.sweeper.sampler.seed=0",
    "x=interval(0.0,1.0)",
    "hydra.sweeper.n_trials=1",
)


def other_bytes(app: App) -> None:
    (app.folder / "a.csv").write_text("smiles,y\nC,1\nCC,2\n")


@pytest.mark.parametrize(
    ("change", "overrides", "sentence"),
    [
        (None, ("dataset=b",), "b.csv ("),
        (other_bytes, (), "a.csv was"),
    ],
)
def test_the_same_command_with_something_else_is_refused(
    app: App, change: Callable[[App], None] | None, overrides: tuple[str, ...], sentence: str
) -> None:
    app.run(*SEARCH)
    if change:
        change(app)
    assert sentence in app.run(*SEARCH, *overrides, code=2)
    assert len(app.numbers()) == 1
    assert "1 of 1 trials" in app.run(*SEARCH, *overrides, "++sweeps.name=other")
    assert len(app.numbers()) == 2


def test_a_file_is_named_as_it_was_and_as_it_is(app: App) -> None:
    app.run(*SEARCH)
    said = app.run(*SEARCH, "dataset=b", code=2)
    assert re.search(r"/a\.csv \([0-9a-f]{16}\) was read, \S+/b\.csv \([0-9a-f]{16}\) is given", said)
    (app.folder / "a.csv").rename(app.folder / "moved.csv")
    app.run(*SEARCH, "dataset.path=moved.csv")
    assert "moved.csv (" in app.run(*SEARCH, "dataset=b", code=2)


def test_a_folder_belongs_to_one_search(app: App) -> None:
    """Under another name the trials would have the folders of the first search's, and its results were lost."""
    here = f"hydra.sweep.dir={app.outputs}/here"
    app.run(*SEARCH, here)
    results = (app.outputs / "here" / "optimization_results.yaml").read_bytes()
    for change in (["++sweeps.name=o"], ["++sweeps.name=o", "training.epochs=2"], ["hydra.sweeper.study_name=o"]):
        said = app.run(*SEARCH, here, *change, code=2)
        assert "holds another study, multirun; keep both with hydra.sweep.dir=OTHER_FOLDER" in said
    said = app.run(*SEARCH, here, "training.epochs=2", code=2)
    assert "keep both with hydra.sweep.dir=OTHER_FOLDER" in said
    assert "sweeps.name" not in said
    assert len(app.numbers()) == 1
    assert optuna.get_all_study_names(f"sqlite:///{app.outputs}/here/study.db") == ["multirun"]
    assert (app.outputs / "here" / "optimization_results.yaml").read_bytes() == results
    assert "1 of 1 trials" in app.run(*SEARCH, here, "++sweeps.name=other", "training.epochs=2", "overwrite=true")
    assert optuna.get_all_study_names(f"sqlite:///{app.outputs}/here/study.db") == ["other"]
    assert "1 of them done" in app.run(*SEARCH, here, "++sweeps.name=other", "training.epochs=2")


def test_trials_of_another_storage_are_not_mixed_in(app: App) -> None:
    app.run(*SEARCH)
    journal = ("hydra/sweeper/storage=journal", "training.epochs=2")
    said = app.run(*SEARCH, *journal, code=2)
    assert "multirun holds 1 trials of another search (trial-00000); keep them with sweeps.name=NAME" in said
    assert len(app.numbers()) == 1
    assert "1 of 1 trials" in app.run(*SEARCH, *journal, "overwrite=true")
    # A search whose trials are its own goes on, and so does one whose restart was interrupted.
    assert "1 of them done" in app.run(*SEARCH, *journal)


def test_a_server_needs_another_study_too(app: App) -> None:
    server = f"hydra.sweeper.storage=sqlite:///{app.folder}/shared.db"
    app.run(*SEARCH, server)
    changed = (*SEARCH, server, "training.epochs=2")
    assert "keep both with sweeps.name=NAME, or" in app.run(*changed, code=2)
    said = app.run(*changed, f"hydra.sweep.dir={app.outputs}/there", code=2)
    assert "keep both with hydra.sweep.dir=OTHER_FOLDER sweeps.name=NAME, or" in said
    own = ("hydra.sweeper.study_name=s", f"hydra.sweep.dir={app.outputs}/s")
    app.run(*SEARCH, server, *own)
    said = app.run(*changed, *own, code=2)
    assert "keep both with hydra.sweep.dir=OTHER_FOLDER hydra.sweeper.study_name=NAME, or" in said


def test_a_search_and_a_grid_do_not_share_a_study(app: App) -> None:
    """The search would count the grid's cells as its trials."""
    app.run(*SEARCH)
    for more in ((), ("dry_run=true",)):
        assert "holds another study, multirun; keep both with sweeps.name=NAME" in app.run("x=0.1", *more, code=2)
    app.run("x=0.1", "++sweeps.name=grid")
    assert "it is of a grid" in app.run(*SEARCH, "++sweeps.name=grid", code=2)
    assert len(app.numbers()) == 2


def test_a_dry_run_of_a_search_leaves_nothing(app: App) -> None:
    """Else the next search would find a study of other settings."""
    app.run(*SEARCH, "dry_run=true")
    assert not (app.outputs / "multirun" / "study.db").exists()
    app.run(*SEARCH, "training.epochs=2")
    assert "has other settings" in app.run(*SEARCH, "dry_run=true", code=2)
    app.run(*SEARCH, "hydra.sweeper.study_name=other", "dry_run=true", code=2)
    assert {one.study_name for one in optuna.get_all_study_summaries(f"sqlite:///{app.outputs}/multirun/study.db")} == {
        "multirun"
    }


def test_what_overwriting_does_to_a_study_that_matches_is_said(app: App) -> None:
    assert "To start over" not in app.run(*SEARCH, "overwrite=true")
    said = app.run(*SEARCH, "overwrite=true")
    assert "1 of them done" in said
    assert "To start over, remove outputs/multirun or use sweeps.name=NAME" in said
    assert len(app.numbers()) == 1


def test_of_equally_good_trials_the_first_is_named(app: App) -> None:
    said = app.run(*SEARCH[:2], "x=choice(0.1)", "hydra.sweeper.n_trials=3")
    assert said.count("best 0.04 in trial") == 1
    assert "in trial 0: outputs/multirun/trial-00000, and 2 others as good)" in said


def other_choice(app: App) -> None:
    found = yaml.safe_load((app.conf / "dataset" / "a.yaml").read_text())
    app.write("dataset/a", {**found, "limit": 1})


@pytest.mark.parametrize(
    ("search", "change", "overrides", "sentence"),
    [
        (
            ("dataset=a,b",),
            lambda app: (app.folder / "b.csv").write_text("smiles,y\nC,7\n"),
            (),
            "files of dataset=b have changed",
        ),
        (("dataset=a,b",), other_choice, (), "the settings or files of dataset=a have changed"),
        (("dataset.path=a.csv,b.csv",), lambda app: (app.folder / "b.csv").write_text("smiles,y\nN,1\n"), (), "b.csv"),
        ((), None, ("split.folds=2",), "split.folds was 1, is 2"),
    ],
)
def test_what_a_choice_stands_for_and_the_folds_are_of_a_search(
    app: App, search: tuple[str, ...], change: Callable[[App], object] | None, overrides: tuple[str, ...], sentence: str
) -> None:
    """A file that is edited under its name, a group's choice with other settings, an objective over more folds."""
    app.run(*SEARCH, *search)
    assert "1 of 1 trials" in app.run(*SEARCH, *search)
    if change:
        change(app)
    assert sentence in app.run(*SEARCH, *search, *overrides, code=2)
    assert len(app.numbers()) == 1


def test_a_searched_file_that_is_not_there_is_said_before_a_trial_runs(app: App) -> None:
    assert "c.csv cannot be read" in app.run(*SEARCH, "dataset.path=a.csv,c.csv", code=3)
    assert app.numbers() == []


def test_a_search_that_is_begun_anew_leaves_nothing_of_the_old_one(app: App) -> None:
    """Its trials have the old numbers and so the old folders; its direction is the new one."""
    app.run(*SEARCH, "hydra.sweeper.n_trials=3")
    turned = ("hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=2")
    assert "the direction was minimize, is maximize" in app.run(*SEARCH, *turned, code=2)
    assert "the direction was minimize, is maximize" in app.run(
        *SEARCH, *turned, "overwrite=true", "dry_run=true", code=2
    )
    said = app.run(*SEARCH, *turned, "overwrite=true")
    study = optuna.load_study(study_name="multirun", storage=f"sqlite:///{app.outputs}/multirun/study.db")
    assert study.direction.name == "MAXIMIZE"
    assert f"best {max(trial.value for trial in study.trials):.4g}" in said
    assert sorted(path.name for path in (app.outputs / "multirun").glob("trial-*")) == ["trial-00000", "trial-00001"]


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ({"task": "regression", "metric": "r2"}, "maximize"),
        ({"task": "regression", "metric": "mae"}, "minimize"),
        ({"task": "regression", "metric": None}, "minimize"),
        ({"task": "classification", "metric": "brier"}, "minimize"),
        ({"task": "classification", "metric": None}, "maximize"),
        ({"task": None, "metric": "spearman"}, "maximize"),
        ({"task": "multiclass"}, "maximize"),
    ],
)
def test_the_direction_is_that_of_the_metric_that_selects(dataset: dict[str, Any], expected: str) -> None:
    config = OmegaConf.create({"dataset": dataset, "hydra": {"sweeper": {"direction": "auto"}}})
    assert _directions(config, is_grid=False) == (expected,)
