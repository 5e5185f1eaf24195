"""An identity contains everything that can change a number, and nothing else."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from molsam.config import identity as identities
from molsam.config.compose import compose, structured
from molsam.config.identity import Identity, differences, identity, is_recorded, lacks, mismatch, stored
from molsam.report.stored import scan
from molsam.wiring import identify
from tests.paths import ROOT


@functools.cache
def of(*overrides: str) -> Identity:
    return identify.of(compose(["model=gcn", *overrides]))


NEUTRAL = [
    "paths.outputs=x", "paths.cache=y", "logger=wandb", "training.threads=1", "training.log_every=3",
    "training.checkpoint_steps=2", "training.eval_batch_size=7", "training.test_each_epoch=true", "name=mine",
    "dataset.root=${hydra:runtime.cwd}", "optimizer.base._target_=torch.optim.Adam", "optimizer.base.fused=false",
    "overwrite=true", "smoke=true", "optimizer.base.weight_decay=0", "+split.seed=null", "+split.seed=0",
    "split.fold=0",
]  # fmt: skip
DIFFERENT = [
    "seed=1", "training.epochs=2", "optimizer.rho=0.1", "split.fold=1", "dataset.limit=9", "model.dropout=0.1",
    "training.device=cuda", "base_optimizer.lr=0.1", "rho_schedule.gamma=0.1", "split.fractions=[0.7,0.2,0.1]",
    "diagnostics=gradients", "dataset.duplicates=drop", "+split.seed=1", "model.residual=false", "dataset=freesolv",
]  # fmt: skip


@pytest.mark.parametrize("override", NEUTRAL)
def test_what_cannot_change_a_number_is_no_part_of_it(override: str) -> None:
    assert of(override) == of()
    assert differences(of(), of(override)) == []


def test_whatever_can_change_a_number_is_part_of_it_and_named() -> None:
    assert len({of(), *map(of, DIFFERENT)}) == len(DIFFERENT) + 1
    for override in DIFFERENT:
        named = " ".join(differences(of(), of(override)))
        key = override.lstrip("+").split("=")[0].removeprefix("base_optimizer.").removeprefix("rho_schedule.")
        assert key.removeprefix("optimizer.") in named


def csv(tmp_path: Path, name: str, content: bytes) -> str:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content)
    return str(path)


def test_a_file_is_its_bytes_wherever_it_lies(tmp_path: Path) -> None:
    first = csv(tmp_path, "a.csv", b"smiles,y\nCCO,1\nCCN,2\n")
    moved = csv(tmp_path, "b/c d.csv", b"smiles,y\nCCO,1\nCCN,2\n")
    edited = csv(tmp_path, "e.csv", b"smiles,y\nCCO,1\nCCN,3\n")
    a, b, c = (of("dataset=csv", f"dataset.path='{path}'", "dataset.targets=[y]") for path in (first, moved, edited))
    assert a == b != c
    sentence = mismatch("run", a, c)
    assert edited in sentence
    assert a.data["dataset"] in sentence
    assert c.data["dataset"] in sentence
    assert "overwrite=true" in sentence
    assert "name=" in sentence


@pytest.mark.parametrize("setting", ["dataset.descriptors", "model.pretrained"])
def test_other_files_count_by_their_bytes_too(tmp_path: Path, setting: str) -> None:
    model = ["model=grover"] if setting.startswith("model") else []
    paths = [csv(tmp_path, name, content) for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2"))]
    a, b, c = (identify.of(compose([*model, f"{setting}={path}"])) for path in paths)
    assert a == b != c
    assert paths[2] in " ".join(differences(a, c))


def test_the_time_of_a_file_is_not_trusted(tmp_path: Path) -> None:
    import os

    path = Path(csv(tmp_path, "a.csv", b"smiles,y\nCCO,1\n"))
    cfg = compose(["model=gcn", "dataset=csv", f"dataset.path={path}"])
    before, times = identify.of(cfg), path.stat()
    path.write_bytes(b"smiles,y\nCCO,2\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert identify.of(cfg) != before


def test_a_split_that_was_revised_has_a_version_of_its_own() -> None:
    def version(*words: str) -> int:
        return identity(compose(["dataset=csv", "dataset.path=x.csv", *words]), {"dataset": "a"}).numerics

    assert version() == version("split=files") == version("dataset.duplicates=merge") == 1
    assert version("split=files", "dataset.duplicates=group") == 1
    assert version("split=files", "dataset.duplicates=drop") == 2
    assert version("split=time", "split.column=t") == 2
    assert version("split=time", "split.column=t", "dataset.duplicates=merge") == 3


def test_a_class_that_was_revised_has_a_version_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    others, before = identity(compose(["model=gcn", "optimizer=sam"]), {}), identity(compose(["model=gcn"]), {})
    monkeypatch.setitem(identities.REVISED, "GraphSAM", 1)
    assert identity(compose(["model=gcn", "optimizer=sam"]), {}) == others
    assert identity(compose(["model=gcn"]), {}) != before


def test_another_numerics_version_is_another_identity() -> None:
    cfg, data = compose(["model=gcn"]), dict(of().data)
    newer = identity(cfg, data, numerics=2)
    assert newer != of()
    assert differences(of(), newer) == ["molsam's numerics version was 1, is 2"]


@functools.cache
def results() -> list[dict[str, Any]]:
    runs, damaged = scan([ROOT / "results"])
    assert not damaged
    return list({tuple(run.result["config"]["choices"].values()): run.result for run in runs}.values())


@pytest.mark.parametrize("outcome", results(), ids=lambda o: o["name"])
def test_today_s_settings_have_the_identity_of_stored_results(outcome: dict[str, Any]) -> None:
    """Else they would be trained again. A new setting whose default is what was done before is named in ADDED."""
    old = stored(outcome)
    chosen = [f"{key}={value}" for key, value in outcome["config"]["choices"].items()]
    epochs, rho = outcome["config"]["training"]["epochs"], outcome["config"]["optimizer"].get("rho")
    settings = [f"training.epochs={epochs}", f"seed={outcome['seed']}", f"split.fold={outcome['fold']}"]
    settings += [f"rho_schedule.gamma={gamma}" for gamma in [old.settings.get("optimizer.rho_schedule.gamma")] if gamma]
    settings += [f"optimizer.rho={rho}"] if rho else []
    settings += [f"optimizer.beta={beta}" for beta in [old.settings.get("optimizer.beta")] if beta]
    new = identity(compose([*chosen, *settings]), old.data)
    assert differences(old, new) == []
    assert new == old


def test_the_schema_changes_no_recorded_identity() -> None:
    """Whole numbers become floats, and settings that were not known then get their defaults."""
    for outcome in results():
        typed = structured(OmegaConf.create(outcome["config"]))
        old = identity(outcome["config"], {}, outcome["fold"])
        assert differences(old, identity(typed, {}, outcome["fold"])) == []


def test_a_result_of_before_is_told_by_its_file_hash() -> None:
    outcome = dict(results()[0])
    outcome.pop("identity", None)
    assert not is_recorded(outcome)
    assert stored(outcome).data["dataset"] == outcome["data"]["hash"]
    with_file = {
        **outcome,
        "config": {**outcome["config"], "dataset": {**outcome["config"]["dataset"], "descriptors": "x"}},
    }
    wanted = identity(with_file["config"], {**stored(outcome).data, "descriptors": "ab"}, outcome["fold"])
    assert stored(with_file) != wanted
    assert "was not recorded" in mismatch("run", stored(with_file), wanted)


def test_a_record_that_holds_less_than_is_wanted() -> None:
    plain, more = compose(["model=gcn"]), compose(["model=gcn", "training.test_each_epoch=true"])
    assert lacks({"training": {}}, more) == ["training.test_each_epoch"]
    assert lacks({"training": {"test_each_epoch": True}}, plain) == []
    named = compose(["model=gcn", "dataset=csv", "dataset.id=name"])
    assert lacks({"dataset": {"id": None}}, named) == lacks({"dataset": {"id": "other"}}, named) == ["dataset.id"]
    assert lacks({"dataset": {"id": "name"}}, named) == lacks({"dataset": {"id": "name"}}, plain) == []


def test_an_added_setting_is_told_by_the_value_that_it_stands_for() -> None:
    """Its neutral value is left out of the identity, but it is what was typed."""
    found = differences(of("training.devices=2"), of("training.devices=1"))
    assert found == ["training.devices was 2, is 1"]
