"""Full disks, damaged files and second processes: the message names file and remedy, and no finished work is lost."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from molsam.errors import MolsamError, StorageError
from molsam.runs import folder as folders
from molsam.runs import result
from molsam.tracking.jsonl import JsonlTracker
from molsam.training import checkpoint
from molsam.wiring import identify
from tests.trust.helpers import Killed, command, die_after_step, left_over, outcome, run_train, settings, train


def full() -> OSError:
    """What the system says."""
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    place = tmp_path_factory.mktemp("whole")
    train(settings("gcn"), place)
    return place


def refuse(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the disk be full for files of this name: their first byte is not written."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if name in os.path.basename(os.readlink(f"/proc/self/fd/{fd}")):
            raise full()
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)


WRITES = (
    "split.json",
    "test_predictions.csv",
    "model.new",
    "result.json",
    "run.json",
    "config.yaml",
    "overrides.yaml",
)


@pytest.mark.parametrize("name", WRITES)
def test_a_full_disk_at_each_write(tmp_path: Path, whole: Path, name: str) -> None:
    cfg = settings("gcn", "training.checkpoint_steps=2")
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, name)
        with pytest.raises(StorageError, match=rf"{name} cannot be written \(No space left.*free some space") as caught:
            train(cfg, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert result.read(tmp_path / "run") is None
    train(cfg, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(whole)
    assert left_over(tmp_path / "run") == []


def test_a_full_disk_at_a_checkpoint_does_not_end_the_run(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refuse(monkeypatch, "checkpoint.new")
    train(settings("gcn", "training.checkpoint_steps=2"), tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(whole)
    assert "checkpoint.new cannot be written (No space left" in capfd.readouterr().err


class Choked(io.RawIOBase):
    """A file on a full disk."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        raise full()


@pytest.mark.parametrize("name", ["metrics", "gradients"])
def test_a_full_disk_at_a_line_of_the_log(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = settings("gcn", "training.checkpoint_steps=2", "diagnostics=gradients")
    train(cfg, tmp_path / "whole")
    real = JsonlTracker._write

    def write(self: JsonlTracker, key: str, record: dict[str, Any]) -> None:
        if key == name and record["step"] > 3 and not isinstance(getattr(self.files[key], "raw", None), Choked):
            self.files[key].close()
            self.files[key] = io.BufferedWriter(Choked())  # type: ignore[assignment]
        real(self, key, record)

    with monkeypatch.context() as patch:
        patch.setattr(JsonlTracker, "_write", write)
        patch.setattr("os.fsync", lambda fd: None)
        with pytest.raises(StorageError, match=rf"{name}\.jsonl cannot be written \(No space left.*same command again"):
            train(cfg, tmp_path / "run")
    train(cfg, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_full_disk_at_run_log_is_one_line_and_no_end(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from molsam.runs import log as runlog

    monkeypatch.setattr(runlog._LogFile, "flush", lambda self: (_ for _ in ()).throw(full()))
    cfg = settings("gcn", "training.nonfinite=skip")
    train(cfg, tmp_path / "run")
    import logging

    with runlog.RunLog(tmp_path):
        logging.getLogger("molsam").info("one")
        logging.getLogger("molsam").info("two")
    shown = capfd.readouterr().err
    assert shown.count("run.log cannot be written (No space left") == 1
    assert "Traceback" not in shown
    assert outcome(tmp_path / "run") == outcome(whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 kB."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this user or container may not mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


TAKEN = (0, 30_000, 50_000, 60_000)


@pytest.mark.parametrize("taken", TAKEN)
def test_a_real_disk_that_is_full(
    tmp_path: Path, small_disk: Path, taken: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (small_disk / "other").write_bytes(bytes(taken))
    cfg = settings(
        "gcn", "training.checkpoint_steps=1", "model.hidden_sizes=[64]", "model.residual=true", "model.batch_norm=true"
    )
    with pytest.raises(StorageError, match=r"No space left on device.*free some space"):
        train(cfg, small_disk / "run")
    assert result.read(small_disk / "run") is None


def bits(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << (place % 8)
    path.write_bytes(content)


def cut(path: Path, place: int) -> None:
    path.write_bytes(path.read_bytes()[: place % path.stat().st_size])


@pytest.mark.parametrize("harm", [bits, cut])
@pytest.mark.parametrize("place", [0, 40, 333, 1111, 2222])
def test_a_damaged_result_is_named_and_never_used(tmp_path: Path, whole: Path, harm: Any, place: int) -> None:
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / "result.json"
    value = json.loads(path.read_text())
    harm(path, place)
    try:
        assert result.read(tmp_path / "run") == value, "a flip that says nothing: a blank for a line end"
    except StorageError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "remove it and run the same command again" in str(error)  # noqa: PT017
        with pytest.raises(StorageError, match=r"result\.json is damaged"):
            train(settings("gcn"), tmp_path / "run")


def test_without_its_damaged_result_a_run_is_made_again(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    for name in ("result.json", "run.json"):
        bits(tmp_path / "run" / name, 5)
    with pytest.raises(StorageError, match=r"result\.json is damaged"):
        train(settings("gcn"), tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    train(settings("gcn"), tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(whole)


@pytest.mark.parametrize("harm", [bits, cut])
@pytest.mark.parametrize("both", [False, True])
def test_a_damaged_checkpoint_costs_steps_and_nothing_else(
    tmp_path: Path, whole: Path, harm: Any, both: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    cfg = settings("gcn", "training.checkpoint_steps=2")
    with pytest.MonkeyPatch.context() as patch:
        die_after_step(patch, 5)
        with pytest.raises(Killed):
            train(cfg, tmp_path / "run")
    newest = tmp_path / "run" / "last" / "checkpoint.safetensors"
    for path in [newest, checkpoint.previous(newest)][: 1 + both]:
        assert path.exists()
        harm(path, 3000)
    train(cfg, tmp_path / "run")
    assert outcome(tmp_path / "run") == outcome(whole)
    assert f"{newest} is damaged" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["metrics.jsonl", "split.json", "run.json", ".hydra/config.yaml", "run.log", ".lock"])
@pytest.mark.parametrize("harm", [bits, cut])
def test_damage_to_the_other_files_of_an_interrupted_run(tmp_path: Path, whole: Path, name: str, harm: Any) -> None:
    """They are written anew; only a log that is shorter than the checkpoint says is refused, by name."""
    cfg = settings("gcn", "training.checkpoint_steps=2")
    with pytest.MonkeyPatch.context() as patch:
        die_after_step(patch, 5)
        with pytest.raises(Killed):
            train(cfg, tmp_path / "run")
    path = tmp_path / "run" / name
    if path.stat().st_size:
        harm(path, 3)
    if (name, harm) == ("metrics.jsonl", cut):
        with pytest.raises(StorageError, match=r"metrics\.jsonl is shorter than at the checkpoint.*overwrite=true"):
            train(cfg, tmp_path / "run")
        cfg.overwrite = True
    train(cfg, tmp_path / "run")
    found, expected = outcome(tmp_path / "run"), outcome(whole)
    if name == "metrics.jsonl" and harm is bits:
        pytest.skip("a flipped bit in a log line is the log's: lines carry no checksum; the metrics are in result.json")
    assert found == expected


def test_a_folder_holds_one_process(tmp_path: Path) -> None:
    cfg = settings("gcn")
    with (
        folders.RunFolder(tmp_path, cfg, [], identify.of(cfg)),
        pytest.raises(StorageError, match=r"Another process is training in .*hydra\.run\.dir=FOLDER"),
    ):
        train(cfg, tmp_path)
    train(cfg, tmp_path)


def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folders.fcntl, "flock", flock)
    train(settings("gcn"), tmp_path)
    assert "cannot be locked" in caplog.text
    assert result.read(tmp_path) is not None


def test_an_output_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    places = [tmp_path / "file", tmp_path / "file" / "run", Path("/proc/nowhere"), tmp_path / ("n" * 300)]
    for place in places:
        code, error = command(capsys, monkeypatch, "model=gcn", "debug=fast", f"hydra.run.dir={place}")
        assert code == 5, error
        assert str(place)[:60] in error
        assert "Traceback" not in error
        assert "choose another folder" in error


def test_a_folder_that_is_read_only(tmp_path: Path) -> None:
    """A bind mount, because the superuser may write where the permissions forbid it."""
    place = tmp_path / "run"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("this user or container may not mount a tmpfs")
    try:
        with pytest.raises(
            StorageError, match=r"run cannot be written \(Read-only file system\); choose another folder"
        ):
            train(settings("gcn"), place)
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_clock_that_goes_backwards(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, start = time.time, time.time()
    monkeypatch.setattr(time, "time", lambda: start - 50 * (real() - start) - 86_400 * 365)
    train(settings("gcn", "training.checkpoint_minutes=0"), tmp_path)
    assert outcome(tmp_path) == outcome(whole)


@pytest.mark.slow
def test_two_processes_started_together(tmp_path: Path) -> None:
    """Of two equal commands in one folder one trains and the other says so."""
    from concurrent.futures import ThreadPoolExecutor

    arguments = ["model=gcn", "dataset.limit=200", "training.epochs=40", f"hydra.run.dir={tmp_path / 'run'}"]
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: run_train(*arguments, cache=tmp_path / "cache"), range(2))
    assert sorted([first.returncode, second.returncode]) in ([0, 0], [0, 5])
    for done in (first, second):
        assert done.returncode == 0 or "Another process is training in" in done.stderr
    assert result.read(tmp_path / "run") is not None


def test_every_error_has_a_documented_exit_code() -> None:
    from molsam import errors
    from molsam.training.interrupt import Interrupted

    assert errors.__doc__ is not None
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MolsamError)]
    for kind in kinds:
        assert f"{kind.exit_code} " in errors.__doc__
    assert {Interrupted(2, "").exit_code, Interrupted(15, "").exit_code} == {130, 143}
