"""However searches are edited and killed, a study has the trials of one search only, and loses none."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import optuna
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from molsam.config.identity import Identity
from molsam.errors import ConfigError
from molsam.sweeping.about import about, settle
from molsam.sweeping.study import SharedStudy

SPACES: list[dict[str, BaseDistribution]] = [
    {"optimizer.rho": FloatDistribution(0.001, 0.1, log=True)},
    {"optimizer.rho": FloatDistribution(0.001, 0.1)},
    {"optimizer.rho": FloatDistribution(0.001, 0.2, log=True)},
    {"optimizer.rho": CategoricalDistribution([0.001, 0.1])},
    {"optimizer.rho": FloatDistribution(0.001, 0.1, log=True), "seed": CategoricalDistribution([0, 1])},
]
EDITS = {"space": len(SPACES), "direction": 2, "epochs": 2, "file": 2, "fold": 2, "numerics": 2}
EDIT = st.one_of(*(st.tuples(st.just(key), st.integers(0, count - 1)) for key, count in EDITS.items()))
SEARCH = st.tuples(
    st.just("search"), st.sampled_from("ab"), st.integers(1, 3), st.booleans(), st.one_of(st.none(), st.integers(0, 2))
)
"""its name, how many trials, overwrite, and after how many trials it is killed"""


class Searches:
    """Two studies on the disk, and what is in them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = dict.fromkeys(EDITS, 0)
        self.owner: dict[str, str] = {}
        self.made: dict[str, int] = {"a": 0, "b": 0}

    def study(self, name: str) -> SharedStudy:
        storage = {"_target_": "optuna.storages.JournalStorage", "path": str(self.root / name)}
        return SharedStudy(storage, name, (self.direction,), None, None, 10.0)

    @property
    def direction(self) -> str:
        return ("minimize", "maximize")[self.now["direction"]]

    def wanted(self) -> dict[str, Any]:
        now = self.now
        split = {"split.fold": now["fold"]}
        one = Identity({"training.epochs": now["epochs"]}, {"dataset": str(now["file"])}, split, now["numerics"])
        return about(one, SPACES[now["space"]], (self.direction,))

    def search(self, name: str, trials: int, overwrite: bool, kill: int | None) -> None:
        key = json.dumps(self.now)
        known = self.owner.get(name, key) == key
        try:
            study = self.study(name)
            settle(study, name, self.wanted(), paths={}, overwrite=overwrite)
        except ConfigError:
            assert not known
            assert not overwrite
            return
        assert known or overwrite, "trials of another search are not gone on with"
        before = self.made[name] if known else 0
        assert len(study.trials()) == before, "what is there is kept, and nothing else"
        for _ in range(min(trials - before, trials if kill is None else kill)):
            trial = study.study.ask(SPACES[self.now["space"]])
            trial.set_user_attr("key", key)
            study.study.tell(trial, 1.0)
        found = self.study(name)
        assert {trial.user_attrs["key"] for trial in found.trials()} <= {key}
        assert found.study.direction.name.lower() == self.direction
        self.owner[name], self.made[name] = key, len(found.trials())


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(history=st.lists(st.one_of(EDIT, SEARCH, SEARCH), min_size=2, max_size=9))
def test_a_study_is_of_one_search(history: list[tuple[Any, ...]]) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as root:
        searches = Searches(Path(root))
        for kind, *what in history:
            if kind == "search":
                searches.search(*what)
            else:
                searches.now[kind] = what[0]
