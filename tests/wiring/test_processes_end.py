"""How a run of several processes starts, ends and resumes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from molsam.config.compose import compose
from molsam.config.schema import TrainingConfig
from molsam.errors import ConfigError, ProcessLost
from molsam.runs import result
from molsam.training import checkpoint
from molsam.training.events import RunObserver
from molsam.training.loop import Trainer
from molsam.wiring import check, processes, run
from tests.integration.test_run import SMALL, metrics, same_weights
from tests.paths import PATIENCE

WAITS = """
from threading import Event
from molsam.wiring import follower, processes
processes.join = lambda seat: Event().wait()
follower.main()
"""


class Killer(RunObserver):
    """Kills the other process at a step."""

    def __init__(self, teams: list[processes.Team], step: int) -> None:
        self.teams, self.step = teams, step

    def on_train_batch_end(self, trainer: Trainer) -> None:
        if trainer.step == self.step:
            self.teams[-1].children[0].kill()


@pytest.mark.parametrize("perturb", [pytest.param(name, marks=pytest.mark.slow) for name in ("averaged", "local")])
def test_a_killed_process_ends_the_other_and_the_same_command_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, perturb: str
) -> None:
    teams, began = list[processes.Team](), processes._start

    def watched(team: processes.Team, training: TrainingConfig) -> None:
        teams.append(team)
        began(team, training)

    monkeypatch.setattr(processes, "_start", watched)
    words = ["model=gcn", *SMALL["gcn"], "optimizer=graphsam", "dataset.limit=60", "training.epochs=3"]
    words += [
        "training.batch_size=16",
        "training.devices=2",
        "training.checkpoint_steps=2",
        f"training.perturb={perturb}",
    ]
    run.start(compose(words), tmp_path / "whole", words)
    with pytest.raises(ProcessLost, match="process 1 of 2 was killed by signal 9"):
        run.start(compose(words), tmp_path / "killed", words, Killer(teams, 5))
    assert checkpoint.load(tmp_path / "killed" / "last" / "checkpoint.safetensors")["step"] == 4
    run.start(compose(words), tmp_path / "killed", words)
    assert same_weights(tmp_path / "whole", tmp_path / "killed")
    lines = [
        [{key: value for key, value in line.items() if key not in ("graphs_per_s", "seconds")} for line in metrics(one)]
        for one in (tmp_path / "whole", tmp_path / "killed")
    ]
    assert lines[0] == lines[1]
    outcome = result.read(tmp_path / "whole")
    assert outcome is not None
    assert outcome["config"]["training"]["devices"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def test_a_follower_ends_with_its_leader() -> None:
    seat = json.dumps({"rank": 1, "size": 2, "port": 1})
    command = [sys.executable, "-c", WAITS]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(seat + "\n")
    child.stdin.flush()
    assert child.stdout.readline() == "ready\n"
    child.stdin.close()
    assert child.wait(PATIENCE) == 1
    child.stdout.close()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["training.devices=0"], "training.devices=0 is too small"),
        (["training.perturb=local"], "training.perturb=local is of several processes"),
        (["training.devices=64"], "training.batch_size=32 is shared by training.devices=64"),
        (["training.devices=2", "training.loss=rmse"], "use training.devices=1 or training.loss=mse"),
        (["training.devices=2", "training.device=meta:1"], "is one device"),
    ],
)
def test_what_cannot_be_shared_is_one_sentence(
    words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "check_device", lambda *_: None)
    with pytest.raises(ConfigError, match=sentence):
        check.check(compose(words))


def test_torchrun_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "here", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    cfg = compose([])
    processes.settle(cfg)
    assert cfg.training.devices == 3
    with pytest.raises(ConfigError, match=r"torchrun started 3 processes"):
        processes.settle(compose(["training.devices=2"]))
