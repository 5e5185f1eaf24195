"""However runs are edited, killed and repeated, a number belongs to the settings that made it, and none is lost."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from molsam.config import identity as identities
from molsam.config.compose import compose
from molsam.config.schema import TrainingConfig
from molsam.errors import ConfigError
from molsam.runs import result
from molsam.wiring import run
from tests.trust.helpers import Killed

CONTENTS = [f"smiles,y\nCCO,{value}\nCCN,2\n" for value in range(3)]
EDIT = st.one_of(
    st.tuples(st.just("file"), st.integers(0, 2)),
    st.tuples(st.just("epochs"), st.integers(1, 2)),
    st.tuples(st.just("seed"), st.integers(0, 1)),
    st.tuples(st.just("numerics"), st.integers(1, 2)),
    st.tuples(st.just("split"), st.integers(0, 1)),
    st.tuples(st.just("place"), st.integers(0, 1)),
)
RUN = st.tuples(
    st.just("run"), st.sampled_from("ab"), st.integers(1, 3), st.booleans(), st.one_of(st.none(), st.integers(0, 5))
)
"""folder, folds, overwrite, and after how many events (a fold begun, a fold ended) it is killed"""


class World:
    """What is on the disk, what should be, and a trainer that only notes what it was given."""

    def __init__(self, root: Path) -> None:
        self.root, self.base = root, compose(["model=gcn", "dataset=csv", "dataset.path=x", "dataset.targets=[y]"])
        self.now: dict[str, int] = {"file": 0, "epochs": 1, "seed": 0, "numerics": 1, "split": 0, "place": 0}
        self.owner: dict[str, tuple[Any, ...]] = {}
        self.done: dict[str, set[int]] = {"a": set(), "b": set()}
        self.trained: list[int] = []
        self.events, self.kill = 0, -1

    def made_from(self, fold: int | None = None) -> list[int | None]:
        """All that a number depends on; where the file lies is not of it."""
        return [*(self.now[key] for key in ("file", "epochs", "seed", "numerics", "split")), fold]

    def event(self) -> None:
        self.events += 1
        if self.events - 1 == self.kill:
            raise Killed

    def train(self, work: Any, cfg: Any, identity: Any, folder: Path) -> dict[str, Any]:
        """Stands for training: the score is what it was made from."""
        self.event()
        fold = int(cfg.split.fold)
        outcome = dict.fromkeys(result.REQUIRED) | {
            "name": "n", "fold": fold, "metric": "m", "valid": {"m": fold}, "test": {"m": self.made_from(fold)},
            "config": run.plain(cfg), "identity": identity.record(), "graphs_per_s": 1.0,
        }  # fmt: skip
        result.write(folder, outcome)
        self.trained.append(fold)
        self.event()
        return outcome

    def run(self, name: str, folds: int, overwrite: bool, kill: int | None) -> None:
        cfg, path = self.base.copy(), self.root / f"{self.now['place']}.csv"
        path.write_text(CONTENTS[self.now["file"]])
        cfg.dataset.path, cfg.overwrite, cfg.split.folds = str(path), overwrite, folds
        cfg.training.epochs, cfg.seed = self.now["epochs"], self.now["seed"]
        cfg.split.seed = 10 + self.now["split"]
        key = (*self.made_from(), folds > 1)
        known = self.owner.get(name, key) == key and not overwrite
        before = set(self.done[name]) if known else set()
        self.trained, self.events, self.kill = [], 0, -1 if kill is None else kill
        try:
            run.start(cfg, self.root / name, [])
        except ConfigError as error:
            self.refused(str(error), known, overwrite)
            return
        except Killed:
            pass
        else:
            assert set(range(folds)) <= before | set(self.trained)
            self.check(self.root / name, folds)
        assert self.owner.get(name, key) == key or overwrite, "what does not match is refused"
        assert not before & set(self.trained), "what is there is not made again"
        self.owner[name], self.done[name] = key, before | set(self.trained)

    def refused(self, sentence: str, known: bool, overwrite: bool) -> None:
        """Only what does not match is, with the remedy, and before anything is trained."""
        assert not known
        assert not overwrite
        assert "overwrite=true" in sentence
        assert self.trained == []

    def check(self, folder: Path, folds: int) -> None:
        """Every number in a folder that is finished is of this world."""
        places = [folder] if folds == 1 else [folder / f"fold{fold}" for fold in range(folds)]
        for fold, place in enumerate(places):
            found = result.read(place)
            assert found is not None
            assert found["test"]["m"] == self.made_from(fold)
        if folds > 1:
            summary = json.loads((folder / "folds.json").read_text())
            assert [row["test"] for row in summary["folds"]] == [self.made_from(fold) for fold in range(folds)]


@contextmanager
def stubbed(world: World) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "_train", world.train)
        patch.setattr(run.check, "check", lambda cfg: TrainingConfig())
        for name in ("say", "print_result", "print_folds"):
            patch.setattr(run.console, name, lambda *_: None)
        yield patch


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(history=st.lists(st.one_of(EDIT, RUN, RUN), min_size=2, max_size=9))
def test_a_number_belongs_to_what_made_it(history: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        world = World(Path(root))
        with stubbed(world) as patch:
            for kind, *what in history:
                if kind == "run":
                    world.run(*what)
                    continue
                world.now[kind] = what[0]
                patch.setattr(identities, "NUMERICS", world.now["numerics"])


PARTS = {
    "file": lambda one: [one.settings, one.split, one.numerics],
    "epochs": lambda one: [one.data, one.split, one.numerics],
    "split": lambda one: [one.settings, one.data, one.numerics],
    "numerics": lambda one: [one.settings, one.data, one.split],
}
"""what would be left of an identity without the part that a change is in"""


@pytest.mark.parametrize("part", PARTS)
def test_an_identity_without_one_of_its_parts_is_noticed(part: str, tmp_path: Path) -> None:
    """The test above would fail where equal settings were the same run whatever the file."""
    world = World(tmp_path)
    with stubbed(world) as patch:
        lesser = property(lambda one: identities.digest_of(PARTS[part](one)))
        patch.setattr(identities.Identity, "digest", lesser)
        world.run("a", 1, overwrite=False, kill=None)
        world.now[part] += 1
        patch.setattr(identities, "NUMERICS", world.now["numerics"])
        with pytest.raises(AssertionError):
            world.run("a", 1, overwrite=False, kill=None)
