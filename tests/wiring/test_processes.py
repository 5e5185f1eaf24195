"""Two processes that train one run give the same result as one, except for rounding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from molsam.config.compose import compose
from molsam.config.schema import TrainingConfig
from molsam.training import checkpoint
from molsam.training.loop import Trainer
from molsam.wiring import check, processes, run
from tests.integration.test_run import SMALL, metrics
from tests.paths import ROOT
from tests.training.test_checkpoint import same

OPTIMIZERS = sorted(path.stem for path in (ROOT / "conf" / "optimizer").glob("*.yaml"))
QUICK = ("adam", "sam", "graphsam", "looksam", "esam")
SETTINGS = ["training.batch_size=16", "training.epochs=2", "training.threads=1", "training.precision=fp64"]
CONSTANT = {"grover": ["model.dynamic_depth=none"]}
"""Nothing may be left to chance: each process draws its own noise."""
ODD = 54
"""Molecules, of which 43 train: the last batch of 11 is shared unequally."""
ONE_LEFT = 42
"""Of which 33 train: one is left for the last batch, and a process has none."""


@pytest.fixture(scope="module")
def team(cache: Path) -> Iterator[processes.Team]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOLSAM_CACHE", str(cache))
        with processes.lead(TrainingConfig(devices=2, threads=1)) as found:
            yield found
    assert [child.returncode for child in found.children] == [0]


def settings(molecules: int, *more: str) -> Any:
    return compose([f"dataset.limit={molecules}", "split.fold=0", *SETTINGS, *more])


def both(team: processes.Team, folder: Path, cfg: Any) -> tuple[Trainer, Trainer]:
    """The run by one process, and by two."""
    dataset, split = run.load_data(cfg)
    assert len(split.train) % 16 in (11, 1)
    training = check.training_config(cfg)
    for name in ("alone", "together"):
        (folder / name).mkdir()
    alone = run.make_trainer(cfg, training, dataset, split, folder / "alone")
    alone.fit()
    team.begin(cfg, run.hashes(dataset, split))
    together = run.make_trainer(cfg, training, dataset, split, folder / "together", together=team.together)
    together.fit()
    for tracker in [*alone.trackers, *together.trackers]:
        tracker.finish(None)
    return alone, together


def assert_alike(one: Trainer, other: Trainer, tolerance: float) -> None:
    assert one.optimizer.passes == other.optimizer.passes
    for name, tensor in one.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], tensor, rtol=tolerance, atol=tolerance, msg=name)
    assert metrics(one.folder)[-1]["train/loss"] == pytest.approx(
        metrics(other.folder)[-1]["train/loss"], rel=tolerance
    )
    assert metrics(one.folder)[-1]["valid/rmse"] == pytest.approx(
        metrics(other.folder)[-1]["valid/rmse"], rel=tolerance
    )


@pytest.mark.parametrize(
    "optimizer", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in OPTIMIZERS]
)
def test_two_processes_equal_one_with_every_optimizer(team: processes.Team, tmp_path: Path, optimizer: str) -> None:
    cfg = settings(ODD, "model=gcn", *SMALL["gcn"][:2], f"optimizer={optimizer}")
    assert_alike(*both(team, tmp_path, cfg), 1e-7)


@pytest.mark.parametrize("more", [["optimizer=graphsam"], ["optimizer=esam", "optimizer.gamma=0.4"]])
def test_a_process_without_a_molecule_takes_part(team: processes.Team, tmp_path: Path, more: list[str]) -> None:
    """Nor is a molecule of another process missed when some are selected by their losses."""
    cfg = settings(ONE_LEFT, "model=gcn", *SMALL["gcn"][:2], *more)
    assert_alike(*both(team, tmp_path, cfg), 1e-7)


@pytest.mark.parametrize(
    "model",
    [name if name == "cmpnn" else pytest.param(name, marks=pytest.mark.slow) for name in SMALL if name != "gcn"],
)
def test_two_processes_equal_one_with_every_model(team: processes.Team, tmp_path: Path, model: str) -> None:
    more = [*SMALL[model][:-1], *CONSTANT.get(model, ()), "optimizer=graphsam", "training.accumulate=2"]
    assert_alike(*both(team, tmp_path, settings(ODD, f"model={model}", *more)), 1e-7)


def test_missing_labels_and_weights_count_over_the_whole_batch(team: processes.Team, tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    rows = [f"{'C' * (1 + n % 7)}O,{n % 5},{'' if n % 3 else n % 4},{1 + n % 2}" for n in range(ODD)]
    file.write_text("smiles,a,b,w\n" + "\n".join(rows) + "\n")
    own = [
        "dataset=csv",
        f"dataset.path={file}",
        "dataset.targets=[a,b]",
        "dataset.weights=w",
        "dataset.task=regression",
    ]
    cfg = compose([*own, "split.fold=0", *SETTINGS, "model=dmpnn", "model.hidden_size=8", "optimizer=sam"])
    assert_alike(*both(team, tmp_path, cfg), 1e-7)


@pytest.mark.parametrize(
    "optimizer",
    ["sam", "graphsam", *(pytest.param(name, marks=pytest.mark.slow) for name in ("aesam", "fsam", "adam"))],
)
def test_perturbed_by_its_own_part_every_process_takes_the_same_step(
    team: processes.Team, tmp_path: Path, optimizer: str
) -> None:
    more = ["training.devices=2", "training.perturb=local", "training.checkpoint_steps=5"]
    cfg = settings(ONE_LEFT, "model=gcn", *SMALL["gcn"][:2], f"optimizer={optimizer}", *more)
    training = check.training_config(cfg)
    dataset, split = run.load_data(cfg)
    team.begin(cfg, run.hashes(dataset, split))
    team.together.local = True
    try:
        one = run.make_trainer(cfg, training, dataset, split, tmp_path, together=team.together)
        one.fit()
    finally:
        team.together.local = False
    one.trackers[0].finish(None)
    saved = checkpoint.load(one.checkpoint_path)
    assert saved["step"] == 5
    assert same(saved["optimizer"]["base"], saved["others"][0]["optimizer"]["base"])
    if optimizer in ("graphsam", "fsam"):
        assert not same(saved["optimizer"]["memory"], saved["others"][0]["optimizer"]["memory"])


def test_local_perturbation_is_the_mean_of_what_each_part_gives(team: processes.Team, tmp_path: Path) -> None:
    """SAM's m-sharpness: omega is the mean of the parts' gradients, each at its own displaced weights."""
    more = ["optimizer=sam", "model.hidden_size=8", "training.epochs=1", "training.batch_size=20", "dataset.limit=25"]
    more += ["base_optimizer=sgd", "base_optimizer.momentum=0", "base_optimizer.lr=0.1", "lr_schedule=constant"]
    cfg = compose(["model=dmpnn", "split.fold=0", "training.precision=fp64", "training.devices=2", *more])
    training = check.training_config(cfg)
    dataset, split = run.load_data(cfg)
    start = run.make_trainer(cfg, training, dataset, split, tmp_path)
    weights = {name: value.clone() for name, value in start.model.state_dict().items()}
    order, omegas = start.order(0), []
    for part in (order[:10], order[10:]):
        start.closure.batches = [start.batch(part)]
        omegas.append(start.optimizer.gradients(start.closure).omega)
    cfg.training.perturb = "local"
    team.begin(cfg, run.hashes(dataset, split))
    team.together.local = True
    try:
        one = run.make_trainer(cfg, check.training_config(cfg), dataset, split, tmp_path, together=team.together)
        one.fit()
    finally:
        team.together.local = False
    one.trackers[0].finish(None)
    for name, parameter in start.model.named_parameters():
        expected = weights[name] - 0.1 * (omegas[0][parameter] + omegas[1][parameter]) / 2
        torch.testing.assert_close(one.model.state_dict()[name], expected, rtol=1e-9, atol=1e-12)
