"""Settings that jobs share equal those that Hydra composes for each job."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import hydra
import pytest
import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from molsam.config.compose import compose
from molsam.sweeping.compose import Composer, _named, resolve
from molsam.sweeping.local import completed

FILES: dict[str, Any] = {
    "config": {
        "defaults": ["_self_", {"kind": "a"}],
        "seed": 0,
        "scale": 1.0,
        "twice": "${scale}",
        "base": {"lr": 0.1, "deep": {"w": 1}},
        "inner": {"base": "${base}", "own": 3, "list": [1, 2]},
        "chosen": "${hydra:runtime.choices.kind}",
        "size": "${oc.select:kind.size,9}",
        "steps": "${table.${seed}.${kind.name}}",
        "table": {0: {"a": 1, "b": 2}, 7: {"a": 3, "b": 4, "other": 5}},
        "free": {"text": "x", "none": None},
    },
    "kind/a": {"size": 1, "name": "a"},
    "kind/b": {"name": "b", "seen": "${seed}"},
}

VALUES: dict[str, list[str]] = {
    "kind": ["a", "b"],
    "seed": ["0", "7"],
    "scale": ["2", "0.5"],
    "base.lr": ["1e-3", "null"],
    "base": ["{lr:5}"],
    "inner.own": ["true", "word", "'a,b'"],
    "inner.list": ["[3]", "[]"],
    "free.text": ["'${seed}'", "plain"],
    "++free.new": ["1"],
    "+added": ["2"],
    "~free.none": [""],
    "kind.name": ["other"],
    "table.7.b": ["40"],
}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ConfigLoader, DictConfig]]:
    folder = tmp_path_factory.mktemp("conf")
    for name, content in FILES.items():
        path = folder / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False))
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(folder)):
        held = GlobalHydra.instance().hydra
        assert held is not None
        master = held.compose_config("config", [], run_mode=RunMode.MULTIRUN, with_log_configuration=False)
        yield held.config_loader, master


def texts(keys: st.SearchStrategy[list[str]]) -> st.SearchStrategy[list[str]]:
    def one(key: str) -> st.SearchStrategy[str]:
        return st.sampled_from(VALUES[key]).map(lambda value: f"{key}={value}" if value else key)

    return keys.flatmap(lambda names: st.tuples(*map(one, names)).map(list))


JOBS = st.lists(texts(st.lists(st.sampled_from(sorted(VALUES)), unique=True, max_size=5)), min_size=1, max_size=3)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(JOBS)
def test_any_jobs_have_the_settings_that_hydra_gives_each(
    context: tuple[ConfigLoader, DictConfig], jobs: list[list[str]]
) -> None:
    loader, master = context
    common = ["inner.own=4"] if not any(o.startswith("inner.own") for job in jobs for o in job) else []
    composer = Composer(loader, master, common)
    for own in jobs:
        try:
            whole = loader.load_sweep_config(master, [*common, *own])
            wanted = resolve(task(whole), whole)
        except Exception as error:
            with pytest.raises(type(error)):
                composer.settings(own)
            continue
        found = composer.settings(own)
        assert found.values == wanted
        made = completed(copy.deepcopy(found.base), found.changes, found.overrides)
        assert OmegaConf.to_container(task(made)) == OmegaConf.to_container(task(whole))
        assert made.hydra.overrides.task == whole.hydra.overrides.task
        assert made.hydra.runtime.choices == whole.hydra.runtime.choices


def test_jobs_that_differ_in_values_are_composed_once(
    context: tuple[ConfigLoader, DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    loader, master = context
    composer = Composer(loader, master, [])
    calls: list[list[str]] = []
    load = loader.load_sweep_config
    monkeypatch.setattr(loader, "load_sweep_config", lambda m, o: calls.append(o) or load(m, o))
    resolved: list[DictConfig] = []
    monkeypatch.setattr("molsam.sweeping.compose.resolve", lambda t, h: resolved.append(t) or resolve(t, h))
    jobs = [[f"kind={k}", f"free.text={n}", f"base.lr={n % 2}"] for k in "ab" for n in range(50)]
    found = [composer.settings(own) for own in jobs]
    assert len(calls) == 2
    # Once for each kind, and once more for each value that an interpolation names.
    assert len(resolved) == 2 * (1 + 2)
    assert [one.values["free"]["text"] for one in found] == [*range(50)] * 2
    assert [one.values["inner"]["base"]["lr"] for one in found] == [0, 1] * 50


def task(config: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])


@pytest.mark.parametrize("model", ["gcn", "grover", "compt"])
def test_values_of_molsams_own_settings_are_put_in_without_resolving_everything_again(model: str) -> None:
    """One interpolation that cannot be read, in any file of conf/, would make planning five times slower."""
    named = _named(compose([f"model={model}", "dataset=esol", "optimizer=graphsam"]))
    assert named is not None
    swept = {"seed", "split.fold", "optimizer.rho", "training.epochs", "training.batch_size", "base_optimizer.betas"}
    assert not named & swept
