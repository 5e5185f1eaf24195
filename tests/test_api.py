"""The functions for notebooks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import molsam
from molsam.errors import ConfigError, StorageError
from tests.paths import ROOT

SETTINGS = ["training.epochs=2", "training.threads=1", "model.hidden_sizes=[8,8]"]
TABLE = "mol id,Smiles,p IC50\n" + "".join(f"m{n},{'C' * n}O,{n / 3}\n" for n in range(1, 40))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> molsam.Run:
    folder = tmp_path_factory.mktemp("api")
    (folder / "a table, mine.csv").write_text(TABLE)
    return molsam.train("gcn", "adam", path=folder / "a table, mine.csv", smiles="Smiles", targets=["p IC50"],
                        overrides=SETTINGS, folder=folder / "run")  # fmt: skip


def test_a_run_tells_its_result_curves_and_model(run: molsam.Run) -> None:
    assert run.result["metric"] == "rmse"
    assert run.curves["epoch"].tolist() == [0, 1]
    assert {"train/loss", "valid/rmse", "lr"} <= set(run.curves)
    assert not run.model.training
    assert "test rmse" in repr(run)


def test_predictions_and_vectors_are_in_the_order_of_the_molecules(run: molsam.Run) -> None:
    frame = run.predict(["CCO", "no molecule", "CCCO"])
    assert frame["smiles"].tolist() == ["CCO", "no molecule", "CCCO"]
    assert frame["p IC50"].isna().tolist() == [False, True, False]
    assert (frame["error"] != "").tolist() == [False, True, False]
    stored = pd.read_csv(run.folder / "test_predictions.csv")
    again = run.predict(stored["smiles"].tolist())["p IC50"]
    assert again.to_numpy() == pytest.approx(stored["prediction"].to_numpy(), rel=1e-5)
    assert run.embed(["CCO", "C"]).shape == (2, 16)
    with pytest.raises(ConfigError, match="no molecules"):
        run.predict([])


def test_one_text_is_one_molecule_and_nothing_is_none(run: molsam.Run) -> None:
    pd.testing.assert_frame_equal(run.predict("CCO"), run.predict(["CCO"]))
    assert run.embed("CCO").shape == (1, 16)
    frame = run.predict(pd.Series(["CCO", None, float("nan"), 7]))
    assert frame["smiles"].tolist() == ["CCO", "", "", "7"]
    assert (frame["error"] != "").tolist() == [False, True, True, True]


def test_a_finished_run_is_read_in_its_folder(run: molsam.Run) -> None:
    finished = (run.folder / "result.json").stat().st_mtime_ns
    again = molsam.train("gcn", "adam", path=run.folder.parent / "a table, mine.csv", smiles="Smiles", targets="p IC50",
                         overrides=SETTINGS, folder=run.folder)  # fmt: skip
    assert again.result == run.result
    assert (run.folder / "result.json").stat().st_mtime_ns == finished


def test_a_run_is_read_back_and_listed_with_others(run: molsam.Run, tmp_path: Path) -> None:
    assert molsam.load(run.folder).result == run.result
    frame = molsam.results(run.folder.parent)
    assert frame["model"].tolist() == ["gcn"]
    assert frame["score"].tolist() == [run.result["test"]["rmse"]]
    with pytest.raises(StorageError, match="no finished run"):
        molsam.load(tmp_path)


def test_folds_are_an_ensemble(tmp_path: Path) -> None:
    run = molsam.train(
        "gcn", "adam", "esol", overrides=[*SETTINGS, "dataset.limit=60", "split.folds=2"], folder=tmp_path
    )
    assert [one["fold"] for one in run.results] == [0, 1]
    assert run.curves["fold"].tolist() == [0, 0, 1, 1]
    scores = [one["test"]["rmse"] for one in run.results]
    assert scores[0] != scores[1]
    assert run.result["test"]["rmse"] == pytest.approx(np.mean(scores))
    assert run.result["test_per_task"]["log_solubility"] == pytest.approx(np.mean(scores))
    assert run.result["fold"] is None
    frame = run.predict(["CCO"])
    each = [molsam.load(tmp_path / f"fold{fold}").predict(["CCO"])["log_solubility"][0] for fold in (0, 1)]
    assert frame["log_solubility"][0] == pytest.approx(np.mean(each))
    assert frame["log_solubility_std"][0] == pytest.approx(np.std(each, ddof=1))


def test_wrong_settings_raise_molsams_errors() -> None:
    with pytest.raises(ConfigError):
        molsam.train("gcn", overrides=["training.epochs=0"])


TABLE_OF_TWO = pd.DataFrame({"smiles": ["C", "CC"], "y": [1, 2]})


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: molsam.train(path=TABLE_OF_TWO), r'path of type DataFrame is not a path; .* by df\.to_csv\("assay'),
        (lambda: molsam.train(path=123), "path=123 is not a path; give a table as a file"),
        (lambda: molsam.train(folder=1.5), r"folder=1\.5 is not a path"),
        (lambda: molsam.train(config_dir=["a"]), "config_dir of type list is not a path"),
        (
            lambda: molsam.train("gcn", overrides=["+hydra.run.dir=mine"]),
            r"^\+hydra\.run\.dir=mine is a setting of the command line, which has no effect here; give .* with folder=",
        ),
        (lambda: molsam.load(7), "folder=7 is not a path"),
        (lambda: molsam.results(["outputs"]), "folder of type list is not a path"),
        (lambda: molsam.train(path="a.csv", targets=TABLE_OF_TWO), "A DataFrame of 2 dimensions is no list; give one"),
    ],
)
def test_arguments_of_a_wrong_type_are_told(call: Callable[[], object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        call()


def test_a_table_is_no_list_of_molecules(run: molsam.Run) -> None:
    with pytest.raises(ConfigError, match=r'is no list; give one column, as in df\["smiles"\]'):
        run.predict(TABLE_OF_TWO)
    assert run.predict(5)["error"][0]
    assert run.predict(np.str_("CCO"))["smiles"].tolist() == ["CCO"]


def test_importing_molsam_imports_nothing_heavy() -> None:
    code = "import sys, molsam; print(*[m for m in ('torch', 'hydra', 'pandas', 'rdkit') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []


def test_the_notebook_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    cells = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    names: dict[str, object] = {}
    exec(compile(code, "notebook", "exec"), names)  # noqa: S102 - our own page
    assert isinstance(names["run"], molsam.Run)
    assert (tmp_path / "outputs" / "notebook" / "result.json").exists()


def test_a_folder_that_is_not_there_has_no_results(tmp_path: Path) -> None:
    assert len(molsam.results(tmp_path)) == 0
    with pytest.raises(molsam.MolsamError, match="nowhere does not exist; give the folder of runs"):
        molsam.results(tmp_path, tmp_path / "nowhere")
