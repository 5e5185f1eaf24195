"""Hydra reads exactly the value that was suggested, whatever characters a choice has."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hydra.errors import HydraException
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import distribution_to_json, json_to_distribution

from molsam.config.cells import quote
from molsam.errors import ConfigError
from molsam.sweeping.overrides import parse
from molsam.sweeping.space import in_words, search_space, suggested
from tests.sweeping.conftest import App

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
CHOICES = st.lists(TEXTS | st.integers(-9, 9) | st.booleans() | st.none() | st.floats(-1, 1), min_size=2, max_size=4)


def written(value: Any) -> str:
    if isinstance(value, str):
        return quote(value)
    return "null" if value is None else str(value).lower()


@given(CHOICES)
def test_a_choice_comes_back_as_it_was_given(values: list[Any]) -> None:
    space, _ = search_space([f"key={','.join(map(written, values))}"])
    kept = json_to_distribution(distribution_to_json(space["key"]))
    assert isinstance(kept, optuna.distributions.CategoricalDistribution)
    for choice, value in zip(kept.choices, values, strict=True):
        (override,) = parse(suggested({"key": choice}))
        assert (override.value(), type(override.value())) == (value, type(value))


@pytest.mark.parametrize("text", ["key=choice()", "key=glob(*)", "key=range(0,0)"])
def test_what_cannot_be_searched_is_said(text: str) -> None:
    with pytest.raises((ConfigError, HydraException)):
        search_space([text])


def test_odd_choices_are_searched(app: App) -> None:
    odd = ["a,b", "c=d", "e(f)", "it's", 'say "g"', " h i ", "{j}", "k:l"]
    choices = ",".join(map(quote, odd))
    app.run(
        "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=0", f"+label={choices}", "hydra.sweeper.n_trials=6"
    )
    study = optuna.load_study(study_name="multirun", storage=f"sqlite:///{app.outputs}/multirun/study.db")
    found = [parse([f"label={trial.params['+label']}"])[0].value() for trial in study.trials]
    assert len(app.results("multirun")) == 6
    assert set(map(str, found)) <= set(odd)
    assert len(set(found)) > 2


def test_a_distribution_is_told_to_a_person() -> None:
    space, _ = search_space(
        ["a=interval(0.5, 0.999)", "b=tag(log, interval(0.001, 0.1))", "c=range(1, 6)", "d=x,y", "e=range(0, 10, 5)"]
    )
    found = [in_words(space[name]) for name in "abcde"]
    assert found == ["0.5 to 0.999", "0.001 to 0.1, log", "1 to 5", "x, y", "0 to 5, steps of 5"]
