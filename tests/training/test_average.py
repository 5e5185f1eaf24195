"""Averages of the weights, the late score and the two seeds, against plain arithmetic on recorded values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from molsam.config.schema import TrainingConfig
from molsam.runs import result
from molsam.training.average import Average
from molsam.training.late import last_epochs, late_score
from molsam.training.loop import Trainer
from tests.integration.test_run import metrics, train
from tests.trust.helpers import Killed, die_after_step, outcome
from tests.trust.helpers import settings as small
from tests.trust.helpers import train as run


def walk(kind: str, steps: int, per_epoch: int, **options: Any) -> tuple[list[Tensor], list[Tensor | None]]:
    """The weights and statistics of a model that is moved at random, and those of its average, after each step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()
    average = Average(model, TrainingConfig(average=kind, epochs=steps // per_epoch, **options))
    seen: list[Tensor] = []
    found: list[Tensor | None] = []

    def flat(module: nn.Module) -> Tensor:
        return torch.cat([t.detach().double().flatten() for t in module.state_dict().values()])

    for step in range(steps):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(5, 2, dtype=torch.float64))
        average.end_step()
        if step % per_epoch == per_epoch - 1:
            average.end_epoch(step // per_epoch)
        seen.append(flat(model))
        found.append(flat(average.current) if average.count else None)
        assert (average.current is model) == (average.count == 0)
    return seen, found


def test_ema_is_a_moving_average_of_every_step() -> None:
    seen, found = walk("ema", 8, 4, average_decay=0.8)
    expected = seen[0]
    for step in range(1, 8):
        expected = 0.8 * expected + 0.2 * seen[step]
        assert found[step] is not None
        torch.testing.assert_close(found[step][:-1], expected[:-1])  # type: ignore[index]  # the last counts batches


def test_swa_is_the_mean_over_the_ends_of_the_last_epochs() -> None:
    seen, found = walk("swa", 24, 3, average_start=0.75)
    ends = [seen[3 * epoch + 2] for epoch in range(8)]
    assert all(found[step] is None for step in range(20))
    for step, count in ((20, 1), (23, 2)):
        assert found[step] is not None
        wanted = torch.stack(ends[6 : 6 + count]).mean(0)
        torch.testing.assert_close(found[step][:-1], wanted[:-1])  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "more"), [("ema", ["optimizer=adam"]), ("swa", ["optimizer=sam", "training.average_start=0.5"])]
)
def test_a_run_keeps_its_best_average_and_resumes_to_the_bit(
    kind: str, more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = small("gcn", f"training.average={kind}", "training.checkpoint_steps=2", "training.epochs=4", *more)
    kept: list[tuple[int, bool]] = []
    whole = Trainer._keep_best

    def keep_best(self: Trainer, value: float) -> None:
        assert self.average is not None
        whole(self, value)
        kept.append((self.best["epoch"], self.evaluated is not self.model))

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_keep_best", keep_best)
        run(cfg, tmp_path / "whole")
    found = result.read(tmp_path / "whole")
    assert found is not None
    assert [averaged for _, averaged in kept] == ([True] * 4 if kind == "ema" else [False, False, True, True])
    assert found["best_epoch"] == kept[-1][0]
    assert kind == "ema" or found["best_epoch"] >= 2
    with monkeypatch.context() as patch:
        die_after_step(patch, 8)
        with pytest.raises(Killed):
            run(cfg, tmp_path / "killed")
    run(cfg, tmp_path / "killed")
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    run(small("gcn", "training.checkpoint_steps=2", "training.epochs=4", *more), tmp_path / "plain")
    assert (
        outcome(tmp_path / "plain")["best/model.safetensors"] != outcome(tmp_path / "whole")["best/model.safetensors"]
    )
    # Training itself goes on from the weights: the losses are those of a run without an average.
    losses = [[line["train/loss"] for line in metrics(tmp_path / name)] for name in ("plain", "whole")]
    assert losses[0] == losses[1]


def test_the_late_score_is_the_mean_over_the_last_fifth() -> None:
    assert list(last_epochs(30)) == [24, 25, 26, 27, 28, 29]
    assert list(last_epochs(12)) == [9, 10, 11]
    assert list(last_epochs(2)) == [0, 1]
    tests = {epoch: float(epoch**2) for epoch in range(24, 30)}
    assert late_score(tests, 30) == sum(tests.values()) / 6
    assert late_score(tests, 20) is None
    assert late_score({0: 1.0, 1: 2.0}, 2) is None


def test_every_run_has_a_late_score_and_testing_changes_nothing(tmp_path: Path) -> None:
    often = train(tmp_path / "often", "training.epochs=4", "training.test_each_epoch=true")
    seldom = train(tmp_path / "seldom", "training.epochs=4")
    tests = [line["test/rmse"] for line in metrics(tmp_path / "often") if line["kind"] == "epoch"]
    assert often["test_late"] == seldom["test_late"] == pytest.approx(sum(tests[1:]) / 3, rel=1e-12)
    assert often["test"] == seldom["test"]
    assert not any("test/rmse" in line for line in metrics(tmp_path / "seldom"))
    assert math.isfinite(often["test_late"])


def test_the_split_may_have_its_own_seed(tmp_path: Path) -> None:
    runs = {
        name: train(tmp_path / name, *overrides)
        for name, overrides in {
            "both 3": ("seed=3",),
            "split 3": ("seed=4", "split.seed=3"),
            "stated": ("seed=3", "split.seed=3"),
            "both 4": ("seed=4",),
        }.items()
    }
    hashes = {name: found["split"]["hash"] for name, found in runs.items()}
    assert hashes["both 3"] == hashes["split 3"] == hashes["stated"] != hashes["both 4"]
    assert runs["stated"]["test"] == runs["both 3"]["test"] != runs["split 3"]["test"]
