"""A run from its settings to result.json: repetition, resuming, folds and output files."""

from __future__ import annotations

import csv
import gc
import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score, root_mean_squared_error

from molsam.config.compose import compose
from molsam.errors import ConfigError
from molsam.runs import result
from molsam.training import checkpoint
from molsam.training.loop import Trainer
from molsam.wiring.run import start
from tests.forked import Forked, train_py
from tests.paths import PATIENCE

TINY = ["dataset.limit=60", "training.epochs=2", "training.batch_size=16", "training.threads=1"]
SMALL = {
    "gcn": ["model.hidden_sizes=[8,8]", "model.head_size=8", "model.dropout=0.2"],
    "compt": ["model.d_model=16", "model.n_layers=1", "model.n_heads=2", "model.dropout=0.1"],
    "grover": ["model.hidden_size=8", "model.n_heads=2", "model.dropout=0.1"],
    "mpnn": ["model.hidden_size=8", "model.edge_hidden_size=8", "model.dropout=0.1"],
    "dmpnn": ["model.hidden_size=8", "model.dropout=0.2"],
    "cmpnn": ["model.hidden_size=8", "model.dropout=0.2"],
}


def train(folder: Path, *overrides: str, model: str = "gcn") -> dict[str, Any]:
    cfg = compose([f"model={model}", *SMALL[model], *TINY, *overrides])
    start(cfg, folder, list(overrides))
    found = result.read(folder)
    assert found is not None
    return found


def weights(folder: Path) -> dict[str, Any]:
    return checkpoint.read(folder / "best" / "model.safetensors")["weights"]


def same_weights(a: Path, b: Path) -> bool:
    left, right = weights(a), weights(b)
    return left.keys() == right.keys() and all(bool((left[k] == right[k]).all()) for k in left)


def predictions(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "test_predictions.csv").read_text().splitlines()))


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


METRICS = ("valid", "test", "test_per_task", "best_epoch", "gradient_passes", "steps", "split", "data", "gradients")


def test_the_same_seed_repeats_to_the_bit_and_another_differs(tmp_path: Path) -> None:
    first, second = train(tmp_path / "a", "seed=3"), train(tmp_path / "b", "seed=3")
    other = train(tmp_path / "c", "seed=4")
    assert [first[key] for key in METRICS] == [second[key] for key in METRICS]
    assert same_weights(tmp_path / "a", tmp_path / "b")
    assert not same_weights(tmp_path / "a", tmp_path / "c")
    assert first["split"]["hash"] != other["split"]["hash"]


def test_test_metrics_equal_scikit_learns_on_the_stored_predictions(tmp_path: Path) -> None:
    regression = train(tmp_path / "r")
    rows = predictions(tmp_path / "r")
    y, p = ([float(row[key]) for row in rows] for key in ("target", "prediction"))
    assert regression["test"]["rmse"] == pytest.approx(root_mean_squared_error(y, p), rel=1e-12)
    classification = train(tmp_path / "c", "dataset=huuskonen", "dataset.limit=200")
    rows = predictions(tmp_path / "c")
    aucs = []
    for task in ("low", "high"):
        own = [row for row in rows if row["task"] == task]
        labels = [float(r["target"]) for r in own]
        if len(set(labels)) == 2:
            aucs.append(roc_auc_score(labels, [float(r["prediction"]) for r in own]))
    assert aucs
    assert classification["test"]["roc_auc"] == pytest.approx(np.mean(aucs))
    split = json.loads((tmp_path / "r" / "split.json").read_text())
    assert len(split["test"]) == len({row["row"] for row in predictions(tmp_path / "r")})
    assert not set(split["train"]) & (set(split["valid"]) | set(split["test"]))


def test_passes_are_counted(tmp_path: Path) -> None:
    steps = 2 * 3  # 48 training molecules in batches of 16, twice
    assert train(tmp_path / "adam", "optimizer=adam")["gradient_passes"] == steps
    assert train(tmp_path / "sam", "optimizer=sam")["gradient_passes"] == 2 * steps
    assert train(tmp_path / "graphsam", "optimizer=graphsam")["gradient_passes"] == steps + 2


def test_the_best_epoch_is_chosen_on_validation_and_its_weights_are_kept(tmp_path: Path) -> None:
    outcome = train(tmp_path, "training.epochs=6")
    lines = metrics(tmp_path)
    epochs = [line for line in lines if line["kind"] == "epoch"]
    values = [line["valid/rmse"] for line in epochs]
    assert len(values) == 6
    assert outcome["best_epoch"] == int(np.argmin(values))
    assert outcome["valid"]["rmse"] == min(values)


def test_early_stopping_counts_epochs_without_improvement(tmp_path: Path) -> None:
    outcome = train(tmp_path, "training.epochs=60", "training.patience=2", "base_optimizer.lr=0.1")
    assert outcome["epochs"] == outcome["best_epoch"] + 3 < 60


def test_folds_train_one_after_another_and_are_summarised(tmp_path: Path) -> None:
    cfg = compose(["model=gcn", *SMALL["gcn"], *TINY, "split.folds=3"])
    value = start(cfg, tmp_path, [])
    summary = json.loads((tmp_path / "folds.json").read_text())
    results = [result.read(tmp_path / f"fold{k}") for k in range(3)]
    tests = [r["test"]["rmse"] for r in results if r]
    assert summary["test"]["mean"] == pytest.approx(np.mean(tests))
    assert summary["test"]["std"] == pytest.approx(np.std(tests, ddof=1))
    assert value == pytest.approx(np.mean([r["valid"]["rmse"] for r in results if r]))
    assert len({r["split"]["hash"] for r in results if r}) == 3
    single = train(tmp_path / "single", "split.folds=1", "split.fold=1")
    assert results[1] is not None
    assert single["test"] == results[1]["test"]
    assert single["config_hash"] == results[1]["config_hash"]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    train(tmp_path)
    before = (tmp_path / "result.json").read_bytes()
    train(tmp_path)
    assert (tmp_path / "result.json").read_bytes() == before


def run_and_kill(arguments: list[str], folder: Path) -> int:
    """Kill -9 again and again, each time a little after a new checkpoint, until the run gets through."""
    kills = 0
    marker = folder / "last" / "checkpoint.safetensors"
    out = folder.with_suffix(".out")
    while True:
        seen = marker.stat().st_mtime_ns if marker.exists() else 0
        process = Forked(train_py, arguments, folder.parent, out)
        while process.poll() is None:
            if kills < 2 and marker.exists() and marker.stat().st_mtime_ns != seen:
                time.sleep(0.05)
                process.kill()
                kills += 1
                break
            time.sleep(0.01)
        code = process.wait()
        if code == 0:
            return kills
        assert code == -signal.SIGKILL, out.read_text()


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [
        ("gcn", "graphsam"),
        pytest.param("compt", "sam", marks=pytest.mark.slow),
        pytest.param("grover", "aesam", marks=pytest.mark.slow),
    ],
)
def test_kill_9_and_the_same_command_end_in_the_same_bits(tmp_path: Path, model: str, optimizer: str) -> None:
    settings = [*SMALL[model], *TINY, f"model={model}", f"optimizer={optimizer}", "diagnostics=gradients"]
    settings += ["dataset.limit=120", "training.epochs=4", "training.checkpoint_steps=2"]
    reference = compose(settings)
    start(reference, tmp_path / "whole", settings)
    folder = tmp_path / "killed"
    kills = run_and_kill([*settings, f"hydra.run.dir={folder}"], folder)
    assert kills >= 2
    whole, killed = result.read(tmp_path / "whole"), result.read(folder)
    assert whole is not None
    assert killed is not None
    assert {key: whole[key] for key in METRICS} == {key: killed[key] for key in METRICS}
    assert same_weights(tmp_path / "whole", folder)
    assert (tmp_path / "whole" / "gradients.jsonl").read_bytes() == (folder / "gradients.jsonl").read_bytes()
    drop = {"graphs_per_s", "seconds"}
    lines = [
        [{k: v for k, v in line.items() if k not in drop} for line in metrics(f)] for f in (tmp_path / "whole", folder)
    ]
    assert lines[0] == lines[1]


def test_sigterm_saves_a_checkpoint_and_exits_with_143(tmp_path: Path, cache: Path) -> None:
    settings = [*SMALL["gcn"], *TINY, "model=gcn", "training.epochs=2000", "training.patience=null"]
    words = [*settings, f"hydra.run.dir={tmp_path / 'run'}"]
    process = Forked(train_py, words, tmp_path, tmp_path / "out", MOLSAM_CACHE=str(cache))
    log = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_size):
        time.sleep(0.05)
    process.terminate()
    code = process.wait(PATIENCE)
    error = (tmp_path / "out").read_text()
    assert code == 143, error
    assert "a checkpoint was saved" in error
    assert "Traceback" not in error
    assert checkpoint.load(tmp_path / "run" / "last" / "checkpoint.safetensors")["step"] > 0
    assert result.read(tmp_path / "run") is None


def test_garbage_is_looked_for_only_among_what_training_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen, train_epoch = [], Trainer._train_epoch

    def watched(self: Trainer, interrupts: Any) -> None:
        frozen.append(gc.get_freeze_count())
        train_epoch(self, interrupts)

    monkeypatch.setattr(Trainer, "_train_epoch", watched)
    train(tmp_path)
    assert min(frozen) > 10_000
    assert gc.get_freeze_count() == 0


def test_esam_selects_the_molecules_whose_loss_rises_most(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", "optimizer=esam")
    half = train(tmp_path / "half", "optimizer=esam", "optimizer.gamma=0.5")
    assert whole["gradient_passes"] == half["gradient_passes"] == 2 * half["steps"]
    assert not same_weights(tmp_path / "whole", tmp_path / "half")
    with pytest.raises(ConfigError, match=r"training\.accumulate=1"):
        train(tmp_path / "no", "optimizer=esam", "optimizer.gamma=0.5", "training.accumulate=2")


def test_rows_and_ids_are_the_files(tmp_path: Path) -> None:
    """Bad rows, blank lines and quoted line breaks do not move a row: each is found again in the file by its number."""
    lines = ["name,smiles,y"]
    for n in range(60):
        lines += {0: ["", f'"b,{n}",not a molecule,1'], 1: [f'"two\nlines {n}",{"C" * (n + 1)},{n}']}.get(
            n % 7, [f"m{n},{'C' * (n + 1)}O,{n / 2}"]
        )
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    words = ["dataset=csv", f"dataset.path={tmp_path / 't.csv'}", "dataset.id=name", "dataset.targets=[y]"]
    train(tmp_path / "run", *words, "model=gcn", "dataset.limit=null")
    table = pd.read_csv(tmp_path / "t.csv")
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    found = [pd.read_csv(tmp_path / "run" / f"{part}_predictions.csv") for part in ("valid", "test")]
    for part, frame in zip(("valid", "test"), found, strict=True):
        assert frame["row"].tolist() == split[part]
        assert frame["id"].tolist() == split["ids"][part] == table["name"][split[part]].tolist()
        assert frame["smiles"].tolist() == table["smiles"][split[part]].tolist()
        assert frame["target"].tolist() == table["y"][split[part]].tolist()
    good = table.index[table["smiles"] != "not a molecule"].tolist()
    assert sorted(split["train"] + split["valid"] + split["test"]) == good
