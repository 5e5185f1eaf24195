"""A run that is killed and resumed ends bit for bit like an uninterrupted one."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from molsam.data.split import Split
from molsam.errors import ConfigError, StorageError
from molsam.optim import GraphSAM
from molsam.training import checkpoint
from molsam.training.interrupt import Interrupted
from molsam.training.loop import Trainer
from tests.integration.test_run import SMALL
from tests.paths import PATIENCE, ROOT
from tests.trust.helpers import (
    MODELS,
    OPTIMIZERS,
    TINY,
    Killed,
    die_after_step,
    fork_train,
    last_weights,
    left_over,
    nth,
    outcome,
    run_train,
    settings,
    train,
)

PAIRS = [(MODELS[i % len(MODELS)], name) for i, name in enumerate(OPTIMIZERS)]
"""Every optimizer, and every model at least once."""
KILL_POINTS = 90


def kill_and_resume(model: str, optimizer: str, step: int, folder: Path, *more: str) -> None:
    cfg = settings(model, f"optimizer={optimizer}", "training.checkpoint_steps=2", *more)
    with pytest.MonkeyPatch.context() as patch:
        weights = last_weights(patch)
        train(cfg, folder / "whole")
    with pytest.MonkeyPatch.context() as patch:
        die_after_step(patch, step)
        with pytest.raises(Killed):
            train(cfg, folder / "killed")
    with pytest.MonkeyPatch.context() as patch:
        again = last_weights(patch)
        train(cfg, folder / "killed")
    assert again
    assert again.items() <= weights.items()
    assert outcome(folder / "killed") == outcome(folder / "whole")
    assert left_over(folder / "killed") == []


@pytest.mark.parametrize(("model", "optimizer"), PAIRS)
def test_every_optimizer_goes_on_to_the_bit(tmp_path: Path, model: str, optimizer: str) -> None:
    kill_and_resume(model, optimizer, 5, tmp_path, "diagnostics=gradients")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "optimizer"), [p for p in itertools.product(MODELS, OPTIMIZERS) if p not in PAIRS])
def test_every_model_with_every_optimizer_goes_on_to_the_bit(tmp_path: Path, model: str, optimizer: str) -> None:
    # Without it plain SGD at its usual rate diverges on CMPNN.
    kill_and_resume(model, optimizer, 5, tmp_path, "diagnostics=gradients", "training.max_grad_norm=1")


def test_accumulation_early_stopping_sharpness_and_probes_go_on_to_the_bit(tmp_path: Path) -> None:
    more = ["training.accumulate=2", "training.patience=2", "training.epochs=6", "base_optimizer.lr=0.3"]
    more += ["diagnostics=sharpness", "diagnostics.sharpness.every=1", "diagnostics.sharpness.molecules=8"]
    more += ["diagnostics.sharpness.points=3", "diagnostics.sharpness.directions=1"]
    kill_and_resume("gcn", "graphsam", 3, tmp_path, *more)
    whole, killed = (
        [
            {k: v for k, v in json.loads(line).items() if k != "seconds"}
            for line in (tmp_path / name / "sharpness.jsonl").read_text().splitlines()
        ]
        for name in ("whole", "killed")
    )
    assert whole == killed
    assert len(whole) > 2


def test_a_kill_after_the_result_leaves_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = settings("gcn", "training.checkpoint_steps=2")
    with monkeypatch.context() as patch:
        patch.setattr("molsam.wiring.run.checkpoint.remove", nth(1, Killed(), checkpoint.remove))
        with pytest.raises(Killed):
            train(cfg, tmp_path)
    assert (tmp_path / "result.json").exists()
    assert left_over(tmp_path)
    train(cfg, tmp_path)
    assert left_over(tmp_path) == []


def test_folds_go_on_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = settings("dmpnn", "split.folds=2", "training.checkpoint_steps=2")
    train(cfg, tmp_path / "whole")
    for step in (4, 5, 3):  # in the first fold, in the first again, then in the second
        with monkeypatch.context() as patch:
            die_after_step(patch, step)
            with pytest.raises(Killed):
                train(cfg, tmp_path / "killed")
    train(cfg, tmp_path / "killed")
    for fold in ("fold0", "fold1"):
        assert outcome(tmp_path / "killed" / fold) == outcome(tmp_path / "whole" / fold)


def test_another_logger_may_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logger changes no number, so a run that began without W&B can continue with it, and the other way."""
    cfg = settings("gcn", "training.checkpoint_steps=2")
    train(cfg, tmp_path / "whole")
    with monkeypatch.context() as patch:
        die_after_step(patch, 5)
        with pytest.raises(Killed):
            train(cfg, tmp_path / "killed")
    cfg.logger.kind, cfg.logger.mode, cfg.logger.project = "wandb", "disabled", "p"
    train(cfg, tmp_path / "killed")
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")


def test_a_checkpoint_of_another_model_is_named_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        die_after_step(patch, 5)
        with pytest.raises(Killed):
            train(settings("gcn", "training.checkpoint_steps=2"), tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(ConfigError, match=r"checkpoint\.safetensors holds a run of other settings .*overwrite=true"):
        train(settings("mpnn"), tmp_path)


def test_a_checkpoint_of_another_version_is_named_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = settings("gcn", "optimizer=graphsam", "training.checkpoint_steps=2")
    with monkeypatch.context() as patch:
        patch.setattr(GraphSAM, "carried", ("anchor",))
        die_after_step(patch, 5)
        with pytest.raises(Killed):
            train(cfg, tmp_path)
    with pytest.raises(StorageError, match=r"checkpoint\.safetensors.*lacks norm.*overwrite=true"):
        train(cfg, tmp_path)


def test_other_data_under_a_checkpoint_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A label, or what RDKit reads, may change while a run is interrupted."""
    path = tmp_path / "data.csv"
    rows = "".join(f"{'C' * (i % 9 + 1)}O,{i / 10}\n" for i in range(30))
    path.write_text(f"smiles,y\n{rows}")
    cfg = settings("gcn", "dataset=csv", f"dataset.path={path}", "training.checkpoint_steps=2")
    with monkeypatch.context() as patch:
        die_after_step(patch, 5)
        with pytest.raises(Killed):
            train(cfg, tmp_path / "run")
    whole = path.read_text()
    path.write_text(whole.replace(",0.7\n", ",0.8\n"))
    with pytest.raises(ConfigError, match=rf"{path} was [0-9a-f]{{16}}, is [0-9a-f]{{16}}\).*overwrite=true"):
        train(cfg, tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()  # the checkpoint knows it too
    with pytest.raises(
        ConfigError, match=rf"checkpoint\.safetensors holds .*was [0-9a-f]{{16}}, is [0-9a-f]{{16}} .{path}"
    ):
        train(cfg, tmp_path / "run")
    path.write_text(whole)
    with monkeypatch.context() as patch:
        patch.setattr(
            "molsam.wiring.run.make_split", lambda *_, **__: Split("x", *map(np.array, ([0, 1], [2], [3])), 0)
        )
        with pytest.raises(ConfigError, match="was made with another split"):
            train(cfg, tmp_path / "run")
    train(cfg, tmp_path / "run")


def test_ctrl_c_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = settings("gcn")
    with monkeypatch.context() as patch:
        patch.setattr("molsam.wiring.run.load_dataset", lambda cfg: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Interrupted, match=r"Stopped by Ctrl-C .* the same command") as caught:
            train(cfg, tmp_path)
    assert caught.value.exit_code == 130
    assert not (tmp_path / "last").exists()
    train(cfg, tmp_path)


@pytest.mark.parametrize("step", [2, 3, 6])
def test_ctrl_c_after_a_step_saves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Steps 3 and 6 are the last of their epochs, whose end is then all that is missing."""
    sharpness = ["diagnostics=sharpness", "diagnostics.sharpness.every=1", "diagnostics.sharpness.molecules=8"]
    cfg = settings("gcn", *sharpness, "diagnostics.sharpness.points=3", "diagnostics.sharpness.directions=1")
    train(cfg, tmp_path / "whole")
    log_step = Trainer.log_step

    def interrupt(self: Trainer) -> None:
        log_step(self)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "log_step", interrupt)
        with pytest.raises(Interrupted, match=rf"Stopped by Ctrl-C after step {step}; .* the same command") as caught:
            train(cfg, tmp_path / "stopped")
    assert caught.value.exit_code == 130
    train(cfg, tmp_path / "stopped")
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")


WRITE, CALL = ("fsync", "replace"), "call"


def kill_points(
    cache: Path, folder: Path, command: list[str], draw: random.Random, count: int
) -> list[tuple[str, int]]:
    """Moments of a run: the last ten writes (predictions, best/, result.json, run.json), then half of them random
    writes and half random calls of any function of molsam."""
    events = {}
    for event in (*WRITE, CALL):
        done = fork_train(*command, f"hydra.run.dir={folder / event}", cache=cache, kill_at=(event, 0))
        assert done.returncode == 0, done.stderr
        events[event] = int(re.findall(r"^events (\d+)$", done.stderr, re.M)[-1])
    points = [(event, events[event] - k) for event in WRITE for k in range(5)][:count]
    while len(points) < count:
        event = draw.choice(WRITE) if len(points) % 2 else CALL
        points.append((event, draw.randrange(1, events[event])))
    return points


def kill_at_points(tmp_path: Path, cache: Path, model: str, count: int, seed: int, *more: str) -> None:
    """The cache is cold in every third run, so that its build is hit too; after each kill the same command must end in
    the bits of the run that was left alone."""
    command = [f"model={model}", *SMALL[model], *TINY, "training.checkpoint_steps=1", *more]
    # In this process: what is imported and cached now, every fork has.
    train(settings(model, *more), tmp_path / "whole")
    points = kill_points(cache, tmp_path, command, random.Random(seed), count)
    whole = outcome(tmp_path / "whole")
    assert all(outcome(tmp_path / event) == whole for event in (*WRITE, CALL))
    for number, point in enumerate(points):
        folder = tmp_path / f"killed{number}"
        own = tmp_path / f"cache{number}" if number % 3 == 0 else cache
        killed = fork_train(*command, f"hydra.run.dir={folder}", cache=own, kill_at=point)
        assert killed.returncode == -signal.SIGKILL, (point, killed.stderr)
        again = fork_train(*command, f"hydra.run.dir={folder}", cache=own)
        assert again.returncode == 0, (point, again.stderr)
        assert outcome(folder) == whole, point
        assert left_over(folder) == [], point


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(KILL_POINTS // 30))
def test_kill_9_at_random_points(tmp_path: Path, cache: Path, seed: int) -> None:
    """Inside every kind of write (each file is fsynced, then renamed) and anywhere between them."""
    model, optimizer = [("dmpnn", "looksam"), ("compt", "graphsam"), ("grover", "esam")][seed]
    kill_at_points(tmp_path, cache, model, 30, seed + 1, "diagnostics=gradients", f"optimizer={optimizer}")


@pytest.mark.slow
def test_kill_9_in_the_parallel_build_of_the_cache(tmp_path: Path) -> None:
    """The processes that featurize end with the killed one, so that the folder is free at once."""
    import psutil

    settings_ = ["model=gcn", *SMALL["gcn"], "dataset=lipophilicity", "training.epochs=1", "training.threads=1"]
    command = [sys.executable, str(ROOT / "train.py"), *settings_, f"hydra.run.dir={tmp_path / 'run'}"]
    env = {**os.environ, "MOLSAM_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    children: list[psutil.Process] = []
    while process.poll() is None and not children:
        children = psutil.Process(process.pid).children()
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert children
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert [child for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    done = run_train(*settings_, f"hydra.run.dir={tmp_path / 'run'}", cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
