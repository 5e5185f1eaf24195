"""An offline run, read back by W&B's own tool; and a run that continues when W&B fails."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from molsam.tracking.jsonl import JsonlTracker
from molsam.tracking.wandb import WandbTracker, complete, log_table, mode
from tests.paths import PATIENCE, ROOT

SETTINGS = SimpleNamespace(mode="offline", project="molsam-test", entity=None, tags=["table1"], log_every=5)
CONFIG = {
    "choices": {"model": "gcn", "dataset": "esol", "optimizer": "graphsam"},
    "seed": 4,
    "split": {"fold": 2},
    "training": {"epochs": 2},
}
SECRET = "correct-horse-battery"


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MY_API_KEY", SECRET)
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def result() -> dict[str, Any]:
    return {
        "task": "regression", "metric": "rmse", "best_epoch": 1, "epochs": 2, "graphs_per_s": 310.5, "seconds": 1.0,
        "gradient_passes": 40, "passes_per_step": 2.0, "parameters": 7, "peak_memory_mb": 1.0, "config_hash": "c0ffee",
        "valid": {"rmse": 0.5}, "test": {"rmse": 0.6}, "split": {"hash": "5711"}, "data": {"hash": "da7a"},
        "gradients": {"cos_next_mean": 0.25}, "steps": 20,
    }  # fmt: skip


def train(tracker: Any, first: int, last: int, die: int | None = None) -> Any:
    """What the loop does at steps first + 1 ... last of two epochs of ten steps; the state after step `die`."""
    state: Any = {}
    for step in range(first + 1, last + 1):
        epoch = (step - 1) // 10
        tracker.gradients(
            {"step": step - 1, "epoch": epoch, "eps_norm": float(step), "cos_next": 0.1, "layers": {"a": 1}}
        )
        if step % 5 == 0 or step == 7:
            row = {
                "kind": "step",
                "epoch": epoch,
                "step": step,
                "train/loss": 1 / step,
                "lr": 0.1,
                "rho": 0.05,
                "passes": 2,
            }
            tracker.log(row)
        if step % 10 == 0:
            tracker.log({"kind": "epoch", "epoch": epoch, "step": step, "train/loss": 0.5, "train/loss_clean": 0.4,
                         "valid/loss": 0.6, "valid/rmse": 0.9 - epoch / 10, "graphs_per_s": 300.0,
                         "rho": 0.05})  # fmt: skip
            tracker.sharpness({"epoch": epoch, "step": step, "eigenvalues": [3.0 + epoch, 1.0], "trace": 9.0,
                               "trace_error": None, "phis": [-1, 1], "landscape": [[1, 2]]})  # fmt: skip
        if step == die:
            state = json.loads(json.dumps(tracker.state()))
    return state


def files(folder: Path) -> None:
    (folder / "test_predictions.csv").write_text("row,smiles,task,target,prediction\n0,C,t,1.0,1.5\n1,CC,t,,0.5\n")
    (folder / "result.json").write_text(json.dumps(result()))
    (folder / "gradients.jsonl").write_text('{"cos_next": null}\n{"cos_next": 0.5}\n')


def inspect(run: Path, *options: str) -> str:
    tool = Path(sys.executable).with_name("wandb")
    return subprocess.run([tool, "leet", "inspect", *options, run], capture_output=True, text=True, check=True).stdout


def history(run: Path) -> dict[int, dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    for line in inspect(run, "--json").splitlines():
        record = json.loads(line)
        if record["type"] == "history":
            values, step = record["history"]["item"], int(record["history"]["step"]["num"])
            assert step not in rows, "a step is logged once"
            rows[step] = values
    return rows


@pytest.mark.slow
def test_a_run_is_read_back_by_the_tool(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files(tmp_path)
    tracker = WandbTracker(tmp_path, SETTINGS)
    tracker.start(CONFIG, {})
    train(tracker, 0, 20)
    tracker.finish(result())
    assert not [record for record in caplog.records if record.name.startswith("molsam")]
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (facts,) = (record["run"] for record in map(json.loads, inspect(run, "--json").splitlines()) if "run" in record)
    assert (facts["run_group"], facts["job_type"]) == ("esol/gcn/graphsam", "train")
    assert (facts["display_name"], facts["tags"]) == ("graphsam-s4-f2", ["gcn", "esol", "graphsam", "table1"])
    told = json.loads(inspect(run, "--summary", "--json"))
    assert told["config"] == CONFIG
    assert told["exit_code"] == 0
    summary = told["summary"]
    assert summary["valid/rmse"] == {"min": pytest.approx(0.8)}
    assert summary["result/test_rmse"] == 0.6
    assert summary["result/graphs_per_s"] == 310.5, "the steady state, not the last epoch"
    assert [summary[f"result/{key}_hash"] for key in ("config", "split", "data")] == ["c0ffee", "5711", "da7a"]
    assert summary["result/cos_next_mean"] == 0.25
    rows = history(run)
    assert sorted(rows) == [1, 5, 6, 10, 11, 15, 16, 20], "gradients at their own steps, every fifth; no step 7"
    assert rows[6]["gradients/eps_norm"] == 6
    assert rows[15]["step/train/loss"] == pytest.approx(1 / 15)
    assert rows[10]["valid/rmse"] == pytest.approx(0.9)
    assert rows[10]["train/loss_clean"] == pytest.approx(0.4)
    assert "gradients/layers" not in rows[6]
    measured = {key: value for key, value in rows[20].items() if key.startswith("sharpness/")}
    assert measured == {"sharpness/eigenvalue_1": 4, "sharpness/eigenvalue_2": 1, "sharpness/trace": 9}
    images = {path.name.rsplit("_", 2)[0] for path in run.rglob("*.png")}
    assert images == {"learning_curve", "parity", "gradient_cosines"}
    assert '"result-' in inspect(run, "--json"), "result.json is an artifact"


def test_no_secret_reaches_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", f"storage=postgresql://me:{SECRET}@host/db"])
    tracker = WandbTracker(tmp_path, SETTINGS)
    tracker.start(CONFIG, {})
    tracker.finish(result())
    found = [
        path for path in (tmp_path / "wandb").rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert not found


class Both:
    """The two trackers of a run, as the loop drives them."""

    def __init__(self, folder: Path) -> None:
        self.jsonl, self.wandb = JsonlTracker(folder), WandbTracker(folder, SETTINGS)

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            return [getattr(tracker, name)(*arguments) for tracker in (self.jsonl, self.wandb)]

        return call

    def start(self, config: dict[str, Any], state: Any) -> None:
        for tracker, own in zip((self.jsonl, self.wandb), state or ({}, {}), strict=True):
            tracker.start(config, own)


def test_a_killed_run_goes_on_with_its_id_and_steps(tmp_path: Path) -> None:
    files(tmp_path)
    (tmp_path / "gradients.jsonl").unlink()
    script = (
        "import json, os; from pathlib import Path\n"
        "from tests.tracking.test_wandb import CONFIG, Both, train\n"
        f"folder = Path({str(tmp_path)!r}); run = Both(folder); run.start(CONFIG, None)\n"
        "state = train(run, 0, 17, die=12); run.jsonl.state()\n"
        "(folder / 'state').write_text(json.dumps(state)); os.kill(os.getpid(), 9)\n"
    )
    killed = run_script(script)
    assert killed.returncode == -9, killed.stderr
    state = json.loads((tmp_path / "state").read_text())
    time.sleep(1.1)
    resumed = Both(tmp_path)
    resumed.start(CONFIG, state)
    train(resumed, 12, 20)
    resumed.finish(result())
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert run.name.endswith(state[1]["id"])
    rows = history(run)
    assert sorted(rows) == [1, 5, 6, 10, 11, 15, 16, 20], "as if nothing had happened, each step once"
    assert [rows[step]["epoch"] for step in (5, 10, 15, 20)] == [0, 0, 1, 1]
    assert rows[6]["gradients/eps_norm"] == 6
    assert [rows[step]["sharpness/eigenvalue_1"] for step in (10, 20)] == [3, 4]
    assert len((tmp_path / "sharpness.jsonl").read_text().splitlines()) == 2


def test_a_run_killed_between_its_result_and_its_summary_is_completed_once(tmp_path: Path) -> None:
    files(tmp_path)
    (tmp_path / "gradients.jsonl").unlink()
    outcome = {**result(), "config": CONFIG}
    script = (
        "import os; from pathlib import Path\n"
        "from tests.tracking.test_wandb import CONFIG, Both, train\n"
        f"run = Both(Path({str(tmp_path)!r})); run.start(CONFIG, None)\n"
        "train(run, 0, 20); run.jsonl.state(); os.kill(os.getpid(), 9)\n"
    )
    assert run_script(script).returncode == -9
    (killed,) = (tmp_path / "wandb").glob("offline-run-*")
    # Folders are named by second, and a restart takes longer than one.
    killed = killed.rename(killed.with_name(f"offline-run-20260101_000000-{killed.name.rsplit('-', 1)[1]}"))
    complete(tmp_path, SimpleNamespace(**{**vars(SETTINGS), "mode": "disabled"}), outcome)
    assert list((tmp_path / "wandb").glob("offline-run-*")) == [killed], "disabled: nothing is told"
    complete(tmp_path, SETTINGS, outcome)
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert run.name.rsplit("-", 1)[1] == killed.name.rsplit("-", 1)[1], "the same id"
    told = json.loads(inspect(run, "--summary", "--json"))
    assert (told["exit_code"], told["summary"]["result/test_rmse"]) == (0, 0.6)
    assert sorted(history(run)) == [1, 5, 6, 10, 11, 15, 16, 20]
    before = sorted((tmp_path / "wandb").rglob("*"))
    complete(tmp_path, SETTINGS, outcome)
    assert sorted((tmp_path / "wandb").rglob("*")) == before, "said once"


@pytest.mark.parametrize(
    ("setting", "variable", "outcome"),
    [
        ("offline", "", "offline"), ("offline", "disabled", "disabled"), ("online", "disabled", "disabled"),
        ("online", "Offline", "offline"), ("online", "dryrun", "offline"), ("offline", "online", "offline"),
        ("disabled", "online", "disabled"), ("online", "run", "online"), ("online", "nonsense", "online"),
    ],
)  # fmt: skip
def test_of_the_setting_and_the_variable_the_one_that_sends_less(
    setting: str, variable: str, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", variable)
    assert mode(SimpleNamespace(mode=setting)) == outcome


def test_disabled_by_the_environment_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    files(tmp_path)
    before = set(tmp_path.iterdir())
    tracker = WandbTracker(tmp_path, SETTINGS)
    tracker.start(CONFIG, {})
    train(tracker, 0, 20)
    tracker.finish(result())
    assert log_table(tmp_path, SETTINGS, name="table1", columns=["a"], rows=[[1]]) is None
    assert set(tmp_path.iterdir()) == before
    assert not caplog.records


@pytest.mark.parametrize("tags", [["x" * 64], ["x" * 65], ["é" * 70, "gcn", "", 7], None])
def test_a_tag_never_costs_the_record(tags: list[Any] | None, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = WandbTracker(tmp_path, SimpleNamespace(**{**vars(SETTINGS), "tags": tags}))
    tracker.start(CONFIG, {})
    given = [str(tag) for tag in tags or () if tag]
    assert list(tracker.run.tags) == list(dict.fromkeys(["gcn", "esol", "graphsam", *(tag[:64] for tag in given)]))
    tracker.finish(None)
    warned = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warned) == sum(len(tag) > 64 for tag in given)
    assert all("64 characters" in text for text in warned)


@pytest.mark.parametrize("key", [None, "a" * 40])
def test_online_without_a_key_or_a_network_is_one_warning_and_an_offline_run(
    key: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    if key is not None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        monkeypatch.setenv("WANDB_API_KEY", key)
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
    wandb.teardown()
    tracker = WandbTracker(tmp_path, SimpleNamespace(**{**vars(SETTINGS), "mode": "online"}))
    tracker.start(CONFIG, {})
    tracker.finish(None)
    wandb.teardown()
    (record,) = [record for record in caplog.records if record.name.startswith("molsam")]
    assert record.levelno == logging.WARNING
    assert ("there is no key" if key is None else "127.0.0.1 cannot be reached") in record.getMessage()
    assert "a" * 40 not in record.getMessage()
    assert list((tmp_path / "wandb").glob("offline-run-*"))


def test_a_folder_that_cannot_be_written_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    tracker = WandbTracker(tmp_path / "file", SETTINGS)
    tracker.start(CONFIG, {})
    train(tracker, 0, 20)
    tracker.finish(result())
    assert len([record for record in caplog.records if record.name.startswith("molsam")]) <= 1


def test_a_broken_wandb_is_one_warning_and_costs_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    class Broken:
        def log(self, *_: object, **__: object) -> None:
            calls.append(1)
            raise OSError(28, f"No space left on device, key {SECRET}")

        def finish(self, **_: object) -> None:
            raise AssertionError("nothing is asked of W&B after its failure")

    tracker = WandbTracker(tmp_path, SETTINGS)
    tracker.run = Broken()
    train(tracker, 0, 20)
    tracker.finish(result())
    assert len(calls) == 1
    (record,) = [record for record in caplog.records if record.name.startswith("molsam")]
    assert "No space left" in record.getMessage()
    assert SECRET not in record.getMessage()


def test_a_killed_service_does_not_stop_training(tmp_path: Path) -> None:
    files(tmp_path)
    script = (
        "import os, signal, sys, time; from pathlib import Path; from types import SimpleNamespace\n"
        "from tests.tracking.test_wandb import CONFIG, SETTINGS, train, result, service\n"
        "from molsam.tracking.wandb import WandbTracker\n"
        f"tracker = WandbTracker(Path({str(tmp_path)!r}), SETTINGS)\n"
        "tracker.start(CONFIG, {}); train(tracker, 0, 5)\n"
        "os.kill(service(), signal.SIGKILL); time.sleep(0.3)\n"
        "train(tracker, 5, 20); tracker.finish(result()); print('trained')\n"
    )
    done = run_script(script)
    assert "trained" in done.stdout, done.stderr
    assert done.returncode == 0


def run_script(script: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "WANDB_SERVICE"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def service() -> int:
    """Process id of the W&B service that this process has started."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = path.read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        if rest.split()[1] == str(os.getpid()) and "wandb" in name:
            return int(path.parent.name)
    raise AssertionError("there is no service")


def test_a_sweep_has_a_table(tmp_path: Path) -> None:
    rows = [["graphsam", 0.55, None], ["adam", 0.6, 0.01]]
    assert log_table(tmp_path, SETTINGS, name="table1", columns=["optimizer", "mean", "std"], rows=rows)
    (table,) = (tmp_path / "wandb").rglob("*.table.json")
    assert json.loads(table.read_text()) == {"columns": ["optimizer", "mean", "std"], "data": rows}


def test_a_sweep_without_wandb_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert log_table(tmp_path, SimpleNamespace(), name="table1", columns=["a"], rows=[[1]]) is None
    assert "table1" in caplog.text


def test_each_run_has_an_id_of_its_own_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment says, which all cells and folds of a process share."""
    monkeypatch.setenv("WANDB_RUN_ID", "shared")
    ids: list[str] = []
    for fold in ("fold0", "fold1"):
        tracker = WandbTracker(tmp_path / fold, SETTINGS)
        (tmp_path / fold).mkdir()
        tracker.start(CONFIG, {})
        ids.append(tracker.state()["id"])
        tracker.finish(None)
    assert len({*ids, "shared"}) == 3
    again = WandbTracker(tmp_path / "fold0", SETTINGS)
    again.start(CONFIG, {"id": ids[0]})
    assert again.state() == {"id": ids[0]}
    again.finish(None)
    assert log_table(tmp_path, SETTINGS, name="table", columns=["a"], rows=[[1]]) != "shared"


def test_a_run_killed_before_its_first_checkpoint_keeps_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its id is on the disk before W&B has made anything, at whatever moment the kill came."""

    def dies(**facts: Any) -> None:
        raise KeyboardInterrupt(facts["id"])

    with monkeypatch.context() as patch:
        patch.setattr("wandb.init", dies)
        with pytest.raises(KeyboardInterrupt) as killed:
            WandbTracker(tmp_path, SETTINGS).start(CONFIG, {})
    again = WandbTracker(tmp_path, SETTINGS)
    again.start(CONFIG, {})
    assert again.state() == {"id": str(killed.value)}
    again.finish(None)
