"""The benchmarks count and report correctly; speed is not tested."""

from __future__ import annotations

import subprocess
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from molsam.bench import features, peers, training
from molsam.bench.peak import count_flops, matrix_peak, median, spread
from molsam.bench.process import Process
from molsam.bench.training import PARTS, Bench
from molsam.bench.worker import answer
from molsam.commands import bench as command
from molsam.errors import ConfigError, StorageError
from molsam.training.loop import AHEAD

SMALL = ["dataset.limit=40", "training.batch_size=8"]


def test_products_are_counted_in_both_directions() -> None:
    a, b = torch.randn(3, 5, requires_grad=True), torch.randn(5, 7, requires_grad=True)
    assert count_flops(lambda: (a @ b).sum().backward()) == 3 * 2 * 3 * 5 * 7
    assert matrix_peak(seconds=0.01, size=8) > 0


def test_with_and_without_kernels_are_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Worker:
        def __init__(self, command: object, given: dict[str, object], environment: dict[str, str] | None) -> None:
            self.plain = environment == {"MOLSAM_KERNELS": "torch"}
            assert self.plain or environment is None
            made.append((given["model"], given["dataset"], given["overrides"], self.plain))
            self.asked = list[object]()

        def __enter__(self) -> Worker:
            return self

        def __exit__(self, *_: object) -> None:
            assert self.asked == [0.01] * 3, "the first round warms up"

        def ask(self, line: object) -> None:
            self.asked.append(line)

        def answer(self) -> str:
            return "2.0" if self.plain else "3.0"

    monkeypatch.setattr(training, "Process", Worker)
    (row,) = training.bench_kernels(["gcn"], ["esol"], 2, 0.01, SMALL)
    assert made == [("gcn", "esol", SMALL, False), ("gcn", "esol", SMALL, True)]
    assert (row["graphs_per_s"], row["torch_graphs_per_s"]) == (3, 2)
    assert row["ratio"] == row["lowest_ratio"] == row["highest_ratio"] == 1.5


def test_operations_are_counted_in_a_process_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(training, "_ask", lambda _, overrides, *what: asked.append((overrides, *what)) or 1e6)
    (row,) = training.bench_training(["gcn"], ["esol"], 1, 0.01, SMALL)
    assert asked == [(SMALL, "flops", {"MOLSAM_KERNELS": "torch"}), (SMALL, "memory")]
    assert row["floor_graphs_per_s"] == pytest.approx(row["peak_gflops"] * 1e3)
    assert row["memory_mb"] == 1e6


def test_medians_are_measured_values() -> None:
    assert median([5.0, 1.0, 3.0]) == 3
    assert median([4.0, 1.0, 3.0, 2.0]) == 2
    assert spread([4.0, 1.0, 2.0]) == 1.5


def test_a_bench_trains_on_every_molecule_once_an_epoch() -> None:
    bench = Bench("gcn", "esol", SMALL)
    train = bench.trainer.split.train
    rows = [next(bench.steps)[0].index.tolist() for _ in range(len(train) // 8)]
    assert {len(of_batch) for of_batch in rows} == {8}
    assert sorted(row for of_batch in rows for row in of_batch) == sorted(train[: len(train) // 8 * 8])
    before = bench.trainer.optimizer.passes
    assert bench.step() == 8
    assert bench.trainer.optimizer.passes == before + 1
    assert bench.rate_of_steps(1) > 0
    parts = bench.parts(steps=2)
    assert tuple(parts) == PARTS
    assert min(parts.values()) > 0
    assert answer(bench, "flops") > 1e5
    assert answer(bench, "0.001") > 0
    assert answer(bench, "memory") > 100
    for tracker in bench.trainer.trackers:
        tracker.finish(None)


def test_steps_are_cut_from_the_order_of_the_rows_and_can_begin_anywhere() -> None:
    """As a resume in the middle of an epoch does; a step's micro-batches belong to it."""
    bench = Bench("gcn", "esol", ["dataset.limit=180", "training.batch_size=2", "training.accumulate=2"])
    trainer, order = bench.trainer, bench.trainer.order(0)
    steps = [order[start : start + 4].tolist() for start in range(0, len(order), 4)]
    assert len(steps) == trainer.steps_per_epoch > AHEAD + 1
    for first in (0, 1, AHEAD, AHEAD + 1):
        made = list(trainer.steps(order, first))
        assert [[row for batch in batches for row in batch.index.tolist()] for batches in made] == steps[first:]
        assert all(len(batch) <= 2 for batches in made for batch in batches)
    assert bench.parts(steps=2)["backward"] > 0
    for tracker in trainer.trackers:
        tracker.finish(None)


def test_featurizers_are_timed_beside_parsing() -> None:
    (row,) = features.bench_features(["gcn"], "esol", 1, ["dataset.limit=5"])
    assert list(row) == ["model", "dataset", "molecules_per_s", "packed_per_s", "parsed_per_s", "spread"]
    assert all(row[name] > 0 for name in ("molecules_per_s", "packed_per_s", "parsed_per_s"))


def test_a_worker_answers_line_by_line_and_its_last_words_are_told() -> None:
    echo = "import sys\nprint('ready', flush=True)\nfor line in sys.stdin: print(line.strip() * 2, flush=True)"
    with Process([sys.executable, "-c", echo], {}) as worker:
        worker.ask("ab")
        assert worker.answer() == "abab"
    # What `with` does first; the worker is gone then, and there is nothing to leave.
    broken = Process([sys.executable, "-c", "raise SystemExit('no such model')"], {})
    with pytest.raises(ConfigError, match=r"A benchmark process ended: no such model$"):
        broken.answer()
    broken.__exit__(None, None, None)


def arguments(*words: str) -> Namespace:
    parser = ArgumentParser()
    command.configure(parser)
    return parser.parse_args(words)


def test_the_kind_may_be_left_out(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    seen = []

    def measure(kind: str, args: Namespace) -> command.Rows:
        seen.append((kind, args.overrides))
        return [{"model": "gcn", "graphs_per_s": 12345.6}]

    monkeypatch.setattr(command, "measure", measure)
    assert command.run(arguments("dataset.limit=9", "model.dropout=0")) == 0
    assert command.run(arguments("features", "dataset.limit=9")) == 0
    assert seen == [("training", ["dataset.limit=9", "model.dropout=0"]), ("features", ["dataset.limit=9"])]
    assert "12,346" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="molsam bench speed does not exist; choose one of training, features"):
        command.run(arguments("speed"))


def test_the_peers_environment_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        peers.venv, "create", lambda folder, **_: (folder / "lib/python3/site-packages").mkdir(parents=True)
    )
    calls = []

    def run(given: list[str], **_: object) -> SimpleNamespace:
        calls.append(given)
        return SimpleNamespace(returncode=int(len(calls) == 1), stderr="ERROR: no index\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(StorageError, match=r"cannot be installed in .* \(no index\); run the same command again"):
        peers.environment(tmp_path / "a")
    python = peers.environment(tmp_path / "b")
    assert calls[1][-2:] == list(peers.VERSIONS)
    assert "torch==" in (tmp_path / "b/constraints.txt").read_text(encoding="utf-8")
    assert str(Path(torch.__file__).parents[1]) in next(tmp_path.glob("b/**/borrowed.pth")).read_text(encoding="utf-8")
    assert peers.environment(tmp_path / "b") == python
    assert len(calls) == 2
    with pytest.raises(ConfigError, match="choose from dmpnn, gcn, mpnn"):
        peers.bench_against(["compt"], ["esol"], 1, 1.0, [], tmp_path)


def test_filler_molecules_are_not_counted() -> None:
    bench = Bench("gcn", "esol", [*SMALL, "training.graphs=true"])
    bench.steps = bench.full_steps()
    batches = next(bench.steps)
    assert sum(map(len, batches)) > 8
    assert bench.train_on(batches) == 8
    assert bench.flops_per_graph(1) > 0
