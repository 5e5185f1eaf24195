"""Suggestions depend only on seed, number and history."""

from __future__ import annotations

import optuna
from omegaconf import OmegaConf

from molsam.sweeping.space import make_sampler


def points(sizes: list[int], seed: int | None, target: str = "TPESampler") -> list[float]:
    """Values suggested by a study that is loaded anew after each of `sizes` trials."""
    storage = optuna.storages.InMemoryStorage()
    found = []
    for size in sizes:
        sampler = make_sampler(OmegaConf.create({"_target_": f"optuna.samplers.{target}", "seed": seed}))
        study = optuna.create_study(study_name="s", storage=storage, sampler=sampler, load_if_exists=True)
        for _ in range(size):
            trial = study.ask()
            found.append(trial.suggest_float("x", 0, 1))
            study.tell(trial, (found[-1] - 0.3) ** 2)
    return found


def test_a_resumed_study_repeats_nothing() -> None:
    for target in ("RandomSampler", "TPESampler"):
        found = points([3, 3, 3], 0, target)
        assert len(set(found)) == 9


def test_an_interrupted_study_suggests_what_it_would_have() -> None:
    for target in ("RandomSampler", "TPESampler"):
        assert points([15], 1, target) == points([4, 1, 8, 2], 1, target)


def test_the_seed_matters() -> None:
    assert points([3], 0) != points([3], 1)
    assert points([3], None) != points([3], None)


def test_a_sequence_keeps_its_own_order() -> None:
    assert len(set(points([3, 3], 0, "QMCSampler"))) == 6
