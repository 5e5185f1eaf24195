"""A folder, fold or checkpoint continues only with its own settings; otherwise the message names the differences."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molsam.config import identity as identities
from molsam.config.compose import compose
from molsam.errors import ConfigError
from molsam.files import write_json
from molsam.runs import result
from molsam.runs.folder import choose
from molsam.wiring import identify
from tests.integration.test_run import SMALL
from tests.trust.helpers import Killed, command, die_after_step, train

BASE = ["model=gcn", *SMALL["gcn"], "training.epochs=1", "training.batch_size=16", "training.threads=1"]


def table(path: Path, rows: int = 30, first: float = 0.0) -> Path:
    lines = "".join(f"{'C' * (i % 9 + 1)}O,{(first if i == 0 else i) / 10}\n" for i in range(rows))
    path.write_text(f"smiles,y\n{lines}")
    return path


def own(path: Path, *more: str) -> Any:
    return compose([*BASE, "dataset=csv", f"dataset.path='{path}'", *more])


def test_a_finished_run_of_an_edited_file_is_refused_and_kept(tmp_path: Path) -> None:
    path = table(tmp_path / "assay.csv")
    train(own(path), tmp_path / "run")
    before = (tmp_path / "run" / "result.json").read_bytes()
    assert json.loads(before)["identity"] == identify.of(own(path)).record()
    table(path, first=9.0)
    with pytest.raises(ConfigError, match=rf"{path} was [0-9a-f]+, is [0-9a-f]+\).*hydra\.run\.dir.*overwrite=true"):
        train(own(path), tmp_path / "run")
    assert (tmp_path / "run" / "result.json").read_bytes() == before
    (tmp_path / "run" / "run.json").unlink()  # a result alone is enough
    with pytest.raises(ConfigError, match=str(path)):
        train(own(path), tmp_path / "run")
    moved = table(tmp_path / "moved.csv")
    train(own(moved), tmp_path / "run")
    assert (tmp_path / "run" / "result.json").read_bytes() == before
    train(own(path, "overwrite=true"), tmp_path / "run")
    assert (tmp_path / "run" / "result.json").read_bytes() != before


def test_a_whole_result_is_believed_before_run_json(tmp_path: Path) -> None:
    path = table(tmp_path / "assay.csv")
    train(own(path), tmp_path / "run")
    status = json.loads((tmp_path / "run" / "run.json").read_text())
    status["identity"]["settings"]["training.epochs"] = 99
    (tmp_path / "run" / "run.json").write_text(json.dumps(status))
    with pytest.raises(ConfigError, match=r"\(training\.epochs was 1, is 2\)"):
        train(own(path, "training.epochs=2"), tmp_path / "run")
    train(own(path), tmp_path / "run")


def test_a_renamed_folder_is_called_by_its_new_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "assay.csv")
    train(own(path), tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "renamed")
    capsys.readouterr()
    train(own(path), tmp_path / "renamed")
    assert f"results: {tmp_path / 'renamed'}" in capsys.readouterr().out


def killed_in_fold(monkeypatch: pytest.MonkeyPatch, cfg: Any, folder: Path, fold: int) -> None:
    from molsam.wiring import run

    whole: Callable[..., Any] = run._fold

    def dies(work: Any, place: Path, number: int) -> Any:
        if number == fold:
            raise Killed
        return whole(work, place, number)

    with monkeypatch.context() as patch:
        patch.setattr(run, "_fold", dies)
        with pytest.raises(Killed):
            train(cfg, folder)


def test_folds_of_two_files_are_never_averaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = table(tmp_path / "assay.csv"), tmp_path / "run"
    cfg = own(path, "split.folds=4")
    killed_in_fold(monkeypatch, cfg, folder, 2)
    kept = {place: place.read_bytes() for place in folder.glob("fold*/result.json")}
    assert len(kept) == 2
    table(path, first=5.0)
    with pytest.raises(ConfigError, match=str(path)):
        train(cfg, folder)
    assert not (folder / "folds.json").exists()
    table(path)
    train(cfg, folder)
    assert all(place.read_bytes() == content for place, content in kept.items())
    summary = json.loads((folder / "folds.json").read_text())
    assert summary["identity"] == identify.of(cfg).record()


def test_a_file_that_changes_while_the_folds_go_on_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from molsam.wiring import run

    path, folder = table(tmp_path / "assay.csv"), tmp_path / "run"
    whole, calls = run.load_dataset, []

    def replaced(cfg: Any) -> Any:
        calls.append(cfg)
        if len(calls) == 2:
            table(path, first=5.0)
        return whole(cfg)

    monkeypatch.setattr(run, "load_dataset", replaced)
    with pytest.raises(ConfigError, match=rf"data changed while .*{path} was .*put back"):
        train(own(path, "split.folds=2"), folder)
    assert result.read(folder / "fold0") is not None
    assert result.read(folder / "fold1") is None


def test_overwrite_leaves_nothing_of_the_old_run_to_be_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, folder = table(tmp_path / "assay.csv"), tmp_path / "run"
    train(own(path, "split.folds=3"), folder)
    table(path, first=5.0)
    killed_in_fold(monkeypatch, own(path, "split.folds=3", "overwrite=true"), folder, 1)
    assert [place.parent.name for place in folder.glob("fold*/result.json")] == ["fold0"]
    assert not list(folder.glob("fold[12]/best/model*"))
    train(own(path, "split.folds=3"), folder)
    hashes = {json.loads(place.read_text())["data"]["hash"] for place in folder.glob("fold*/result.json")}
    assert len(hashes) == 1


def test_another_numerics_version_does_not_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path / "assay.csv")
    cfg = own(path, "training.checkpoint_steps=1", "training.epochs=2")
    with monkeypatch.context() as patch:
        die_after_step(patch, 3)
        with pytest.raises(Killed):
            train(cfg, tmp_path / "run")
    monkeypatch.setattr(identities, "NUMERICS", 2)
    with pytest.raises(ConfigError, match="numerics version was 1, is 2"):
        train(cfg, tmp_path / "run")


def test_what_a_run_did_not_record_is_said(tmp_path: Path) -> None:
    path = table(tmp_path / "assay.csv")
    train(own(path), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"made without training\.test_each_epoch.*overwrite=true"):
        train(own(path, "training.test_each_epoch=true"), tmp_path / "run")


def test_an_older_folder_goes_on_or_is_refused_by_its_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """run.json of before held a hash alone; the data are told by the checkpoint."""
    path, folder = table(tmp_path / "assay.csv"), tmp_path / "2020-01-01" / "gcn-graphsam-csv-s0"
    cfg = own(path, "training.checkpoint_steps=1", "training.epochs=2", f"paths.outputs='{tmp_path}'")
    with monkeypatch.context() as patch:
        die_after_step(patch, 3)
        with pytest.raises(Killed):
            train(cfg, folder)
    write_json(folder / "run.json", {"status": "running", "config_hash": "0123456789abcdef", "pid": 1})
    assert choose(cfg, identify.of) == folder
    other = own(path, "training.checkpoint_steps=1", "training.epochs=3", f"paths.outputs='{tmp_path}'")
    assert choose(other, identify.of) != folder
    with pytest.raises(ConfigError, match=r"training\.epochs was 2, is 3"):
        train(other, folder)
    train(cfg, folder)
    assert result.read(folder) is not None


def test_an_interrupted_run_is_found_by_identity_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path / "assay.csv")
    cfg = own(path, "training.checkpoint_steps=1", "training.epochs=2", f"paths.outputs='{tmp_path / 'out[1]?'}'")
    place = choose(cfg, identify.of)
    with monkeypatch.context() as patch:
        die_after_step(patch, 3)
        with pytest.raises(Killed):
            train(cfg, place)
    assert choose(cfg, identify.of) == place
    shutil.move(path, tmp_path / "elsewhere.csv")
    cfg.dataset.path = str(tmp_path / "elsewhere.csv")
    assert choose(cfg, identify.of) == place
    table(tmp_path / "elsewhere.csv", first=2.0)
    assert choose(cfg, identify.of) != place


def test_a_resume_says_where_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, folder = table(tmp_path / "assay.csv"), tmp_path / "run"
    cfg = own(path, "training.checkpoint_steps=1", "training.epochs=3")
    with monkeypatch.context() as patch:
        die_after_step(patch, 4)
        with pytest.raises(Killed):
            train(cfg, folder)
    assert "continues" not in capsys.readouterr().err
    code, error = command(
        capsys, monkeypatch, f"resume={folder}", f"dataset.path={shutil.move(path, tmp_path / 'b.csv')}"
    )
    assert code == 0, error
    assert "continues at step 3 of 6 (epoch 2)" in error
    code, error = command(capsys, monkeypatch, f"resume={folder}", "training.epochs=9")
    assert code == 2
    assert "training.epochs was 3, is 9" in error


WRONG = [
    (["dataset.targets=[z]"], 3),
    (["dataset.max_atoms=1"], 3),
    (["split.fractions=[0.99,0.005,0.005]"], 3),
    (["training.epochs=0"], 2),
    (["training.loss=bce", "dataset.task=null"], 2),
]


@pytest.mark.parametrize(("wrong", "exit_code"), WRONG)
def test_bad_settings_leave_no_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    wrong: list[str],
    exit_code: int,
) -> None:
    path = table(tmp_path / "assay.csv")
    arguments = [*BASE, "dataset=csv", f"dataset.path={path}", f"paths.outputs={tmp_path / 'out'}"]
    code, error = command(capsys, monkeypatch, *arguments, *wrong)
    assert code == exit_code, error
    assert not list((tmp_path / "out").glob("*/*"))


def test_a_sweep_file_without_multirun_names_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, error = command(capsys, monkeypatch, "sweeps=table3", "sweeps.datasets=[esol,bbbp]")
    assert code == 2
    assert "python train.py --multirun sweeps=table3 'sweeps.datasets=[esol,bbbp]'" in error
    assert not list(tmp_path.glob("outputs/*"))
