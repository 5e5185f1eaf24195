"""Searches: suggestions, pruning, and resuming with the remaining trials."""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections import Counter
from statistics import median
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from omegaconf import OmegaConf
from optuna.trial import TrialState

from molsam.sweeping.trial import Trial
from tests.sweeping.conftest import App

SEARCH = ("hydra/sweeper/sampler=tpe", "hydra.sweeper.sampler.seed=3", "x=interval(0.0,1.0)")


def study(app: App) -> optuna.Study:
    return optuna.load_study(study_name="multirun", storage=f"sqlite:///{app.outputs}/multirun/study.db")


def test_finds_the_minimum_and_resumes_by_what_remains(app: App) -> None:
    app.run(*SEARCH, "hydra.sweeper.n_trials=4")
    first = [trial.params["x"] for trial in study(app).trials]
    assert len(set(first)) == 4
    out = app.run(*SEARCH, "hydra.sweeper.n_trials=7")
    found = study(app).trials
    assert [trial.params["x"] for trial in found[:4]] == first
    assert len(found) == len({trial.params["x"] for trial in found}) == 7
    assert all(trial.value == pytest.approx((trial.params["x"] - 0.3) ** 2) for trial in found)
    best = OmegaConf.load(app.outputs / "multirun" / "optimization_results.yaml")
    assert best["best"][0]["params"]["x"] == min((t.params["x"] for t in found), key=lambda x: (x - 0.3) ** 2)
    assert f"7 of 7 trials (best {min(t.value for t in found):.4g} in trial {study(app).best_trial.number}: " in out
    app.run(*SEARCH, "hydra.sweeper.n_trials=7")
    assert sum(app.events("start").values()) == 7
    assert app.numbers() == list(range(7))
    plots = {path.name for path in (app.outputs / "multirun" / "plots").glob("*.html")}
    assert plots >= {"optimization_history.html", "param_importances.html", "parallel_coordinate.html", "contour.html"}


def test_hopeless_trials_are_recorded_as_pruned(app: App) -> None:
    # The objective after each epoch is known; a threshold decides each trial's fate.
    pruner = ("++hydra.sweeper.pruner={_target_: optuna.pruners.ThresholdPruner, upper: 0.8}",)
    app.run(*SEARCH, "hydra.sweeper.n_trials=8", "training.epochs=4", *pruner)
    for trial in study(app).trials:
        # Reported: (x - 0.3)^2 + 1 / (epoch + 1), so epoch 0 always lies above 0.8.
        assert trial.state == TrialState.PRUNED
        assert list(trial.intermediate_values) == [0]
    app.run(*SEARCH, "hydra.sweeper.n_trials=8", "training.epochs=4", *pruner)
    assert sum(app.events("start").values()) == 8


def test_the_median_pruner_ends_just_those_that_are_worse(app: App) -> None:
    pruner = [f"hydra.sweeper.pruner.{key}" for key in ("n_startup_trials=1", "n_warmup_steps=0")]
    sampler = ("hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0", "x=interval(0.0,1.0)")
    app.run(*sampler, "hydra/sweeper/pruner=median", *pruner, "hydra.sweeper.n_trials=8", "training.epochs=2")
    complete: list[float] = []
    for trial in study(app).trials:
        first = trial.intermediate_values[0]
        hopeless = bool(complete) and first > median(complete)
        assert trial.state == (TrialState.PRUNED if hopeless else TrialState.COMPLETE)
        assert len(trial.intermediate_values) == (1 if hopeless else 2)
        complete += [] if hopeless else [first]
    assert 1 < len(complete) < 8


@pytest.mark.slow
def test_hyperband_halves_each_bracket(app: App) -> None:
    """At steps 1, 2, 4 (bracket b begins with 2^b) a trial goes on if it is in the better half of those that came."""
    pruner = [f"hydra.sweeper.pruner.{key}" for key in ("reduction_factor=2", "max_resource=8")]
    sampler = ("hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=1", "x=interval(0.0,1.0)")
    app.run(*sampler, "hydra/sweeper/pruner=hyperband", *pruner, "hydra.sweeper.n_trials=24", "training.epochs=8")
    came: dict[tuple[int, int], list[float]] = {}
    states: Counter[TrialState] = Counter()
    for trial in study(app).trials:
        states[trial.state] += 1
        # Brackets share the trials 8 : 6 : 4 : 4, by the checksum of their names.
        bracket = int(np.searchsorted([8, 14, 18, 22], zlib.crc32(f"multirun_{trial.number}".encode()) % 22, "right"))
        last = 7
        for step in [1, 2, 4][bracket:]:
            values = came.setdefault((bracket, step), [])
            values.append(trial.intermediate_values[step])
            if values[-1] not in sorted(values)[: max(len(values) // 2, 1)]:
                last = step
                break
        assert (trial.last_step, trial.state.name) == (last, "COMPLETE" if last == 7 else "PRUNED")
    assert min(states[TrialState.PRUNED], states[TrialState.COMPLETE]) > 3


def test_wilcoxon_ends_a_trial_at_the_fold_that_shows_it(app: App) -> None:
    """A worse trial is worse in every fold, by chance once in 2^n of n folds: that is below 0.1 from the fourth on."""
    sampler = ("hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0", "x=interval(0.0,1.0)")
    app.run(*sampler, "hydra/sweeper/pruner=wilcoxon", "hydra.sweeper.n_trials=8", "split.folds=6")
    best = float("inf")
    for trial in study(app).trials:
        distance = (trial.params["x"] - 0.3) ** 2
        assert trial.state == (TrialState.COMPLETE if distance < best else TrialState.PRUNED)
        assert list(trial.intermediate_values) == list(range(6 if distance < best else 4))
        best = min(best, distance)


@pytest.mark.parametrize(("folds", "reported"), [(1, [0, 1]), (2, [0, 1, 2, 3])])
def test_no_trial_is_pruned_at_its_very_end(folds: int, reported: list[int]) -> None:
    """A pruner that gives up everything is heeded at each step but the last."""
    running = optuna.create_study(pruner=optuna.pruners.ThresholdPruner(upper=-1.0)).ask()
    trial = Trial(running.study, running.study._storage, running._trial_id, running.number, running.study.pruner)
    pruned = []
    for fold in range(folds):
        trial.on_fold_start(fold, folds)
        for epoch in range(2):
            settings = SimpleNamespace(epochs=2)
            try:
                trial.on_train_epoch_end(
                    SimpleNamespace(stop=False, epoch=epoch, metric="rmse", settings=settings), {"valid/rmse": 1.0}
                )
            except optuna.TrialPruned:
                pruned.append(2 * fold + epoch)
    assert pruned == reported[:-1]
    assert list(running.study.trials[0].intermediate_values) == reported


def test_a_killed_trial_runs_again_with_the_same_parameters_and_what_it_left(app: App) -> None:
    arguments = (*SEARCH, "hydra.sweeper.n_trials=3", "paths.work=1.5")
    sweep = app.start(*arguments)
    while app.log.read_text().count("start") < 2:
        time.sleep(0.02)
    os.killpg(sweep.pid, signal.SIGKILL)
    sweep.wait()
    (app.outputs / "multirun" / "trial-00001" / "note").write_text("trial-00001")
    app.run(*SEARCH, "hydra.sweeper.n_trials=3", "paths.work=0.0")
    trials = study(app).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[2].params == trials[1].params
    assert trials[2].user_attrs["continues"] == 1
    assert app.numbers() == [0, 1, 2, 3]
    # What the interrupted trial left goes on under the number of the trial that takes its place.
    assert app.results("multirun") == {"trial-00000", "trial-00002", "trial-00003"}
    assert not (app.outputs / "multirun" / "trial-00001").exists()
    assert (app.outputs / "multirun" / "trial-00002" / "note").read_text() == "trial-00001"
    assert len({trial.params["x"] for trial in trials}) == 3


def test_failed_trials_are_reported_and_others_take_their_place(app: App) -> None:
    arguments = (
        "hydra/sweeper/sampler=random",
        "hydra.sweeper.sampler.seed=0",
        "seed=choice(0,1)",
        "hydra.sweeper.n_trials=6",
    )
    out = app.run(*arguments, "paths.mode=fail-1", code=1)
    states = Counter(trial.state.name for trial in study(app).trials)
    assert set(states) == {"COMPLETE", "FAIL"}
    assert sum(states.values()) == 6
    assert f"{states['FAIL']} of 6 trials of multirun failed" in out
    app.run(*arguments, "paths.mode=run")
    assert sum(t.state == TrialState.COMPLETE for t in study(app).trials) == 6


@pytest.mark.slow
def test_two_searches_share_one_study(app: App) -> None:
    arguments = (*SEARCH, "hydra.sweeper.n_trials=8", "paths.work=0.2")
    sweeps = [app.start(*arguments), app.start(*arguments)]
    app.join(*sweeps)
    complete = [trial for trial in study(app).trials if trial.state == TrialState.COMPLETE]
    assert len(complete) == sum(app.events("start").values()) == 8
    assert len({trial.params["x"] for trial in complete}) == 8
