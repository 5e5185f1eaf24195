"""init_from, training.freeze and training.encoder_lr: a run's initial weights, and which of them it trains."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from molsam.config.compose import compose
from molsam.data.split import make_split
from molsam.errors import ConfigError, MolsamError, StorageError
from molsam.training.loop import Trainer
from molsam.wiring import check, identify
from molsam.wiring.run import load_dataset, make_trainer, start
from tests.batteries.optimizers import NAMES

SMALL = {
    "gcn": ["model.hidden_sizes=[8]"],
    "mpnn": ["model.hidden_size=8"],
    "dmpnn": ["model.hidden_size=8"],
    "cmpnn": ["model.hidden_size=8"],
    "compt": ["model.d_model=8", "model.n_heads=2"],
    "grover": ["model.hidden_size=8", "model.n_heads=2"],
}
DATA = ["dataset=freesolv", "dataset.limit=30", "training.epochs=1", "training.batch_size=8", "training.threads=1"]


def settings(model: str, *more: str) -> Any:
    cfg = compose([*DATA, f"model={model}", *SMALL[model], *more])
    OmegaConf.resolve(cfg)
    return cfg


def trainer_of(model: str, folder: Path, *more: str) -> Trainer:
    cfg = settings(model, *more)
    training, dataset = check.check(cfg), load_dataset(cfg)
    cfg.split.fold = 0
    folder.mkdir(exist_ok=True)
    made: Trainer = make_trainer(cfg, training, dataset, make_split(dataset, cfg.split, seed=cfg.seed, fold=0), folder)
    made.trackers, made.callbacks = [], []
    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of GCN."""
    folder = tmp_path_factory.mktemp("run") / "gcn"
    start(settings("gcn"), folder, [])
    return folder


@pytest.mark.parametrize("model", SMALL)
def test_a_run_begins_with_the_predictions_of_the_other_one(model: str, tmp_path: Path) -> None:
    """To the bit; frozen, it then moves its head alone, and its encoder computes as in evaluation."""
    start(settings(model), tmp_path / "a", [])
    stored = np.loadtxt(tmp_path / "a" / "test_predictions.csv", delimiter=",", skiprows=1, usecols=4, ndmin=1)
    begun = trainer_of(
        model, tmp_path / "b", f"init_from={tmp_path / 'a'}", "split.seed=0", "seed=7", "training.freeze=encoder"
    )
    assert np.array_equal(begun.predict(begun.split.test)[0][:, 0], stored)
    heads = begun.model.heads
    before = {name: value.clone() for name, value in begun.model.state_dict().items()}
    modes: set[tuple[bool, bool]] = set()
    head = begun.model.get_submodule(sorted(heads)[0])
    begun.model.register_forward_pre_hook(lambda module, _: modes.add((module.training, head.training)) or None)
    begun.fit()
    moved = {name for name, value in begun.model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert {name.split(".")[0] for name in moved} <= heads
    assert modes == {(False, True), (False, False)}


QUICK = ("sam", "graphsam", "esam")
EVERY = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]


@pytest.mark.parametrize("optimizer", EVERY)
def test_no_optimizer_displaces_a_frozen_encoder(optimizer: str, run: Path, tmp_path: Path) -> None:
    frozen = trainer_of("gcn", tmp_path, f"init_from={run}", "training.freeze=encoder", f"optimizer={optimizer}")
    names = {id(p): name for name, p in frozen.model.named_parameters()}
    assert {names[id(p)].split(".")[0] for p in frozen.optimizer.parameters()} == {"head"}
    before = {name: value.clone() for name, value in frozen.model.state_dict().items() if not name.startswith("head")}
    seen = []

    def look(module: torch.nn.Module, _: Any) -> None:
        state = module.state_dict()
        seen.append(all(torch.equal(state[name], value) for name, value in before.items()))

    frozen.model.register_forward_pre_hook(look)
    frozen.fit()
    assert len(seen) >= 3
    assert all(seen)


@pytest.mark.parametrize("optimizer", EVERY)
def test_the_learning_rate_of_the_head_for_the_encoder_changes_nothing(optimizer: str, tmp_path: Path) -> None:
    """To the bit: norms are over both groups. The release displaces the first group alone, unless told otherwise."""
    choice = [f"optimizer={optimizer}", *([f"base_optimizer={optimizer}"] if optimizer in ("adamw", "sgd") else [])]
    choice += ["optimizer.first_group_only=false"] if optimizer == "graphsam_release" else []
    plain = trainer_of("gcn", tmp_path / "a", *choice)
    alike = trainer_of("gcn", tmp_path / "b", *choice, f"training.encoder_lr={plain.optimizer.param_groups[0]['lr']}")
    assert len(alike.optimizer.param_groups) == 2
    plain.fit()
    alike.fit()
    for a, b in zip(plain.model.state_dict().values(), alike.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_encoder_has_its_own_learning_rate(tmp_path: Path) -> None:
    """Of 0, it stays; the schedule moves both."""
    still = trainer_of("gcn", tmp_path, "training.encoder_lr=0", "optimizer=sam")
    before = {name: value.clone() for name, value in still.model.named_parameters()}
    still.fit()
    moved = {name for name, value in still.model.named_parameters() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in moved} == {"head"}
    both = trainer_of("gcn", tmp_path, "training.encoder_lr=1e-4", "base_optimizer.lr=1e-2")
    both.fit()
    encoder, head = (group["lr"] for group in both.optimizer.param_groups)
    assert 0 < encoder < 1e-4
    assert head == pytest.approx(100 * encoder)


def test_the_head_is_new_for_other_tasks_and_that_is_told(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = tmp_path / "in.csv"
    table.write_text("smiles,other\n" + "\n".join(f"{'C' * n}O,{n}" for n in range(1, 21)) + "\n")
    own = ["dataset=csv", f"dataset.path={table}", "dataset.targets=[other]", "dataset.limit=null"]
    with caplog.at_level(logging.INFO, "molsam"):
        begun = trainer_of("gcn", tmp_path / "b", f"init_from={run}", *own)
    fresh = trainer_of("gcn", tmp_path / "c", *own).model.state_dict()
    given = trainer_of("gcn", tmp_path / "d", f"init_from={run}").model.state_dict()
    for name, value in begun.model.state_dict().items():
        assert torch.equal(value, (fresh if name.startswith("head") else given)[name])
    assert "new because tasks or descriptors differ: head.1.weight" in caplog.text
    assert begun.scaler.mean != pytest.approx(trainer_of("gcn", tmp_path / "e").scaler.mean)


def test_test_molecules_that_were_trained_on_are_told(
    run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer_of("gcn", tmp_path / "a", f"init_from={run}")
    assert "too good" not in caplog.text
    trainer_of("gcn", tmp_path / "b", f"init_from={run}", "split.seed=5")
    assert "of the test part were training molecules of" in caplog.text


def test_rows_for_places_that_both_have_are_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """CoMPT has a row for each place in the largest molecule of its data."""
    start(settings("compt", "dataset.max_atoms=8"), tmp_path / "a", [])
    with caplog.at_level(logging.INFO, "molsam"):
        larger = trainer_of("compt", tmp_path / "b", f"init_from={tmp_path / 'a'}")
    assert "rows of positions.weight" in caplog.text
    small = trainer_of("compt", tmp_path / "c", f"init_from={tmp_path / 'a'}", "dataset.max_atoms=8").model
    rows = small.get_parameter("positions.weight")
    assert torch.equal(larger.model.get_parameter("positions.weight")[: len(rows)], rows)


def test_what_cannot_be_begun_with_is_refused_in_one_sentence(run: Path, tmp_path: Path) -> None:
    start(settings("gcn", "split.folds=2"), tmp_path / "folds", [])
    cases: list[tuple[list[str], str, type[MolsamError]]] = [
        (["gcn", f"init_from={tmp_path / 'nothing'}"], "holds no finished run", StorageError),
        (["gcn", f"init_from={tmp_path / 'folds'}"], "holds 2 folds; name one of them", ConfigError),
        (["dmpnn", f"init_from={run}"], r"another model \(GCN, not DMPNN\)", ConfigError),
        (
            ["gcn", f"init_from={run}", "model.hidden_sizes=[9]"],
            r"layers.0.conv.weight has the size \(8, ",
            ConfigError,
        ),
        (["gcn", "training.freeze=encoder"], "nothing has trained; add init_from", ConfigError),
        (["gcn", f"init_from={run}", "training.freeze=head"], "is not a choice", ConfigError),
        (["gcn", f"init_from={run}", "training.freeze=encoder", "training.encoder_lr=1"], "leave one of", ConfigError),
    ]
    for (model, *more), sentence, kind in cases:
        with pytest.raises(kind, match=sentence):
            trainer_of(model, tmp_path / "b", *more)
    trainer_of("gcn", tmp_path / "b", f"init_from={tmp_path / 'folds' / 'fold1'}")


def test_the_weights_are_part_of_the_identity_and_their_place_is_not(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "moved")
    start(settings("gcn", "seed=1"), tmp_path / "other", [])
    none, here, moved, other = (
        identify.of(settings("gcn", *more))
        for more in ([], [f"init_from={run}"], [f"init_from={tmp_path / 'moved'}"], [f"init_from={tmp_path / 'other'}"])
    )
    assert here == moved
    assert len({none.digest, here.digest, other.digest}) == 3
