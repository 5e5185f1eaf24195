"""molsam predict and rerun on stored runs."""

from __future__ import annotations

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from molsam.commands import main as cli
from molsam.config.compose import compose
from molsam.data.featurize import featurized
from molsam.runs import result
from molsam.tracking.tables import writer
from molsam.wiring.run import start
from molsam.wiring.trained import Trained

SETTINGS = ["model=dmpnn", "model.hidden_size=8", "training.epochs=2", "training.threads=1", "dataset.limit=60"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        start(compose([*SETTINGS, f"seed={seed}"]), root / f"s{seed}", [])
    start(compose([*SETTINGS, "split.folds=2"]), root / "folds", [])
    return root


PREDICTED = "log_solubility_pred"


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_predictions_equal_those_of_the_test_set(runs: Path, tmp_path: Path) -> None:
    stored = read(runs / "s0" / "test_predictions.csv")
    table = tmp_path / "new.csv"
    table.write_text("smiles\n" + "\n".join(row["smiles"] for row in stored) + "\n")
    assert cli.main(["predict", str(runs / "s0"), str(table), "-o", str(tmp_path / "out.csv")]) == 0
    out = read(tmp_path / "out.csv")
    ours = [float(row["log_solubility_pred"]) for row in out]
    assert ours == pytest.approx([float(row["prediction"]) for row in stored], rel=1e-5)
    assert [row["smiles"] for row in out] == [row["smiles"] for row in stored]


def test_rows_keep_their_order_and_invalid_ones_say_why(runs: Path, tmp_path: Path) -> None:
    table = tmp_path / "new.csv"
    table.write_text("id,smiles\n1,CCO\n2,not a molecule\n3,\n4,C(C)(C)(C)(C)C\n5,[Na+].[Cl-]\n6,CCO\n")
    assert cli.main(["predict", str(runs / "s0"), str(table), "-o", str(tmp_path / "out.csv")]) == 0
    out = read(tmp_path / "out.csv")
    assert [bool(row["error"]) for row in out] == [False, True, True, True, False, False]
    assert [row["log_solubility_pred"] == "" for row in out] == [False, True, True, True, False, False]
    assert float(out[0]["log_solubility_pred"]) == pytest.approx(float(out[5]["log_solubility_pred"]), rel=1e-5)
    assert "valence" in out[3]["error"]


def test_several_runs_make_an_ensemble(runs: Path, tmp_path: Path) -> None:
    table = tmp_path / "new.csv"
    table.write_text("smiles\nCCO\nc1ccccc1\n")
    single = []
    for seed in (0, 1):
        cli.main(["predict", str(runs / f"s{seed}"), str(table), "-o", str(tmp_path / f"{seed}.csv")])
        single.append([float(row["log_solubility_pred"]) for row in read(tmp_path / f"{seed}.csv")])
    cli.main(["predict", str(runs / "s0"), str(runs / "s1"), str(table), "-o", str(tmp_path / "both.csv")])
    both = read(tmp_path / "both.csv")
    assert [float(row["log_solubility_pred"]) for row in both] == pytest.approx(np.mean(single, axis=0))
    assert [float(row["log_solubility_std"]) for row in both] == pytest.approx(np.std(single, axis=0, ddof=1))


def test_a_folder_of_folds_is_an_ensemble(runs: Path, tmp_path: Path) -> None:
    table = tmp_path / "new.csv"
    table.write_text("smiles\nCCO\n")
    assert cli.main(["predict", str(runs / "folds"), str(table), "-o", str(tmp_path / "out.csv")]) == 0
    assert "log_solubility_std" in read(tmp_path / "out.csv")[0]


@pytest.mark.parametrize(
    ("text", "smiles"),
    [
        ("\ufeffid;SMILES\r\n1;CCO\r\n;\r\n3;C1CC\r\n\r\n4;[2H]O\r\n", ["CCO", "", "C1CC", "[2H]O"]),
        ('mol\n"CCO"\n""\n \nC|C\nCCO\n', ["CCO", "", "C|C", "CCO"]),
        ('note,smiles\n"a,\nb",C\n,\n"é","日本"\n', ["C", "", "日本"]),
    ],
)
def test_every_row_of_a_strange_file_has_its_line(runs: Path, tmp_path: Path, text: str, smiles: list[str]) -> None:
    (tmp_path / "new.csv").write_text(text, encoding="utf-8", newline="")
    assert cli.main(["predict", str(runs / "s0"), str(tmp_path / "new.csv"), "-o", str(tmp_path / "out.csv")]) == 0
    out = read(tmp_path / "out.csv")
    column = next(name for name in out[0] if name.lower() in ("smiles", "mol"))
    assert [row[column] for row in out] == smiles
    assert all((row["error"] == "") == (row["log_solubility_pred"] != "") for row in out)
    assert [row["error"] == "" for row in out] == [s in ("CCO", "C", "[2H]O") for s in smiles]


def test_without_a_file_the_table_goes_to_standard_output(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.csv").write_text("smiles\nCCO\nx\n")
    assert cli.main(["predict", str(runs / "s0"), str(tmp_path / "new.csv")]) == 0
    out, err = capsys.readouterr()
    assert [line.split(",")[0] for line in out.splitlines()] == ["smiles", "CCO", "x"]
    assert not err


def test_a_table_comes_back_with_all_that_it_had(runs: Path, tmp_path: Path) -> None:
    text = "id,log_solubility,SMILES,note,error,log_solubility_pred\n"
    text += 'A-1,-0.5,CCO,"a, b",,x\n,,not a molecule,,old,y\nA-3,1e-3,c1ccccc1,=1+1,é,z\n'
    (tmp_path / "in.csv").write_text(text, encoding="utf-8")
    assert cli.main(["predict", str(runs / "s0"), str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv")]) == 0
    given, out = read(tmp_path / "in.csv"), read(tmp_path / "out.csv")
    assert list(out[0]) == [*given[0], "log_solubility_pred_2", "error_2"]
    for before, after in zip(given, out, strict=True):
        assert {key: after[key].removeprefix("'") for key in before} == before
    assert [bool(row["log_solubility_pred_2"]) for row in out] == [True, False, True]
    assert [bool(row["error_2"]) for row in out] == [False, True, False]


def test_a_parquet_file_has_the_same(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("smiles,n\nCCO,1\nx,2\n")
    for name in ("out.csv", "out.parquet"):
        assert cli.main(["predict", str(runs / "s0"), str(tmp_path / "in.csv"), "-o", str(tmp_path / name)]) == 0
    from_text = pd.read_csv(tmp_path / "out.csv", dtype={"n": str}, keep_default_na=False, na_values={PREDICTED: ""})
    found = pd.read_parquet(tmp_path / "out.parquet")
    assert found[PREDICTED].dtype == np.float64
    assert found[PREDICTED].isna().tolist() == [False, True]
    pd.testing.assert_frame_equal(found, from_text, check_dtype=False, rtol=0, atol=0)
    assert cli.main(["predict", str(runs / "s0"), str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.xls")]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv", "out.parquet"]


def test_a_parquet_file_keeps_its_types(runs: Path, tmp_path: Path) -> None:
    """Also those of the first chunk, whatever is missing in it; an index; and columns that have one name."""
    frame = pd.DataFrame(
        {"smiles": ["x", "CCO", "CC"], "n": pd.array([None, 1, 2], dtype="Int64")}, index=["a", "b", "c"]
    )
    frame["kind"], frame["when"] = pd.Categorical([None, "k", "l"]), pd.to_datetime([None, "2020-01-01", "2020-01-02"])
    frame["bits"], frame["w"] = [[1, 2], None, []], np.array([0.5, np.nan, 1], np.float32)
    table = pa.Table.from_pandas(frame).append_column("n", pa.array(["u", "v", None]))
    pq.write_table(table, tmp_path / "in.parquet")
    table = pq.ParquetFile(tmp_path / "in.parquet").read()
    command = ["predict", str(runs / "s0"), str(runs / "s1"), str(tmp_path / "in.parquet"), "--nearest", "-o"]
    assert cli.main([*command, str(tmp_path / "out.parquet")]) == 0
    found = pq.ParquetFile(tmp_path / "out.parquet").read()
    index = table.column_names.index("__index_level_0__")
    assert found.column_names[: table.num_columns + 4] == [
        *table.column_names[:index], "", "n_2", PREDICTED, "log_solubility_std", "nearest_tanimoto",
        "error"]  # fmt: skip
    for place in range(table.num_columns):
        assert found.column(place).equals(table.column(place)), table.column_names[place]
    numbers = found.to_pandas()[[PREDICTED, "log_solubility_std", "nearest_tanimoto"]]
    assert set(numbers.dtypes) == {np.dtype(np.float64)}
    assert numbers.isna().all(1).tolist() == [True, False, False]
    assert cli.main([*command, str(tmp_path / "out.csv")]) == 0
    assert [row[""] for row in read(tmp_path / "out.csv")] == ["a", "b", "c"]


def test_intervals_come_from_the_validation_part(runs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "in.csv").write_text("smiles\nCCO\nx\n")
    command = ["predict", str(runs / "s0"), str(runs / "s1"), str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.csv")]
    assert cli.main([*command, "--interval", "0.5", "--nearest"]) == 0
    good, bad = read(tmp_path / "out.csv")
    errors = []
    for name in ("s0", "s1"):
        valid = read(runs / name / "valid_predictions.csv")
        rows = json.loads((runs / name / "split.json").read_text())["valid"]
        assert [int(row["row"]) for row in valid] == rows
        errors += [abs(float(row["target"]) - float(row["prediction"])) for row in valid]
    expected = np.sort(errors)[math.ceil(0.5 * (len(errors) + 1)) - 1]
    middle = float(good["log_solubility_pred"])
    bounds = [float(good[f"log_solubility_{side}"]) for side in ("lower", "upper")]
    assert bounds == pytest.approx([middle - expected, middle + expected])
    assert bad["log_solubility_lower"] == bad["nearest_tanimoto"] == ""
    assert cli.main([*command, "--interval", "90"]) == 2
    assert "needs" not in caplog.text
    assert cli.main([*command, "--interval", "0.999"]) == 0
    assert "--interval=0.999 needs 999 labels in the validation part; these have fewer" in caplog.text
    assert f"intervals are unbounded: log_solubility ({len(errors)})" in caplog.text
    assert (read(tmp_path / "out.csv")[0])["log_solubility_upper"] == "inf"


def test_the_nearest_training_molecule_is_told(runs: Path, tmp_path: Path) -> None:
    known = (runs / "s0" / "best" / "training.smi").read_text().splitlines()
    sizes = json.loads((runs / "s0" / "split.json").read_text())
    assert len(known) == len(sizes["train"])
    (tmp_path / "in.csv").write_text(f"smiles\n{known[0]}\n[Xe]\n")
    command = ["predict", str(runs / "s0"), str(tmp_path / "in.csv"), "--nearest", "-o", str(tmp_path / "out.csv")]
    assert cli.main(command) == 0
    assert [row["nearest_tanimoto"] for row in read(tmp_path / "out.csv")] == ["1.0", "0.0"]


def test_embed_writes_what_the_head_reads(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("name,smiles\na,CCO\nb,x\nc,c1ccccc1\n")
    command = ["embed", str(runs / "s0"), str(tmp_path / "in.csv"), "--id", "name", "-o", str(tmp_path / "v.parquet")]
    assert cli.main(command) == 0
    frame = pd.read_parquet(tmp_path / "v.parquet")
    assert frame[["row", "id", "smiles"]].to_numpy().tolist() == [[0, "a", "CCO"], [1, "b", "x"], [2, "c", "c1ccccc1"]]
    trained = Trained(runs / "s0")
    vectors = torch.tensor(frame.filter(regex=r"^v\d+$").to_numpy()[[0, 2]], dtype=torch.float32)
    hidden = trained.model.ffn[0](vectors)
    for layer in trained.model.ffn[1:]:
        hidden = layer(torch.relu(hidden))
    values = trained.scaler.inverse(hidden.detach().numpy().astype(np.float64))
    rows = list(featurized(["CCO", "c1ccccc1"], trained.work))
    assert values == pytest.approx(trained.predict(rows)[0], rel=1e-4)
    assert frame["v0"].isna().tolist() == [False, True, False]
    assert cli.main([*command[:-1], str(tmp_path / "v.csv")]) == 0
    cells = [row["v0"] for row in read(tmp_path / "v.csv")]
    assert [bool(cell) for cell in cells] == [True, False, True], "a molecule without a vector has empty cells"


def test_a_table_of_numbers_may_begin_without_one(tmp_path: Path) -> None:
    for name in ("t.parquet", "t.csv", "t.tsv"):
        with writer(tmp_path / name) as out:
            out.write(["v", "n"], [np.array([np.nan]), [1]])
            out.write(["v", "n"], [np.array([0.5]), [2]])
    assert pq.read_table(tmp_path / "t.parquet").to_pydict() == {"v": [None, 0.5], "n": [1, 2]}
    assert (tmp_path / "t.csv").read_text() == "v,n\n,1\n0.5,2\n"
    assert (tmp_path / "t.tsv").read_text() == "v\tn\n\t1\n0.5\t2\n"


@pytest.fixture(scope="module")
def other_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs whose predictions need more than a SMILES, or mean something else."""
    root = tmp_path_factory.mktemp("other")
    rng = np.random.default_rng(0)
    np.save(root / "features.npy", rng.normal(size=(1128, 3)).astype(np.float32))
    common = ["model.hidden_size=8", "training.epochs=1", "training.threads=1"]
    for name, more in {
        "rdkit": ["model=dmpnn", "dataset.limit=40", "dataset.descriptors=rdkit_2d"],
        "file": ["model=dmpnn", "dataset.limit=40", f"dataset.descriptors={root / 'features.npy'}"],
        "classes": ["model=dmpnn", "dataset=csv", f"dataset.path={root / 'classes.csv'}",
                    "dataset.targets=[log_solubility]"],
        "small": ["model=compt", "model.d_model=8", "model.n_layers=1", "dataset.limit=40"],
    }.items():  # fmt: skip
        text = "smiles,log_solubility\n" + "".join(f"{'C' * (i + 1)},{i % 2}\n" for i in range(40))
        (root / "classes.csv").write_text(text)
        start(compose([*(c for c in common if "hidden" not in c or name != "small"), *more]), root / name, [])
    return root


def test_descriptors_are_computed_or_asked_for(
    other_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = read(other_runs / "rdkit" / "test_predictions.csv")
    (tmp_path / "new.csv").write_text("smiles\n" + "\n".join(row["smiles"] for row in stored) + "\n")
    arguments = [str(tmp_path / "new.csv"), "-o", str(tmp_path / "out.csv")]
    assert cli.main(["predict", str(other_runs / "rdkit"), *arguments]) == 0
    ours = [float(row["log_solubility_pred"]) for row in read(tmp_path / "out.csv")]
    assert ours == pytest.approx([float(row["prediction"]) for row in stored], rel=1e-5)

    assert cli.main(["predict", str(other_runs / "file"), *arguments]) == 2
    assert "3 columns; --descriptors is not given" in capsys.readouterr().err
    stored = read(other_runs / "file" / "test_predictions.csv")
    features = np.load(other_runs / "features.npy")[[int(row["row"]) for row in stored]]
    np.save(tmp_path / "new.npy", features)
    given = ["--descriptors", str(tmp_path / "new.npy")]
    assert cli.main(["predict", str(other_runs / "file"), *arguments, *given]) == 0
    ours = [float(row["log_solubility_pred"]) for row in read(tmp_path / "out.csv")]
    assert ours == pytest.approx([float(row["prediction"]) for row in stored], rel=1e-5)
    np.save(tmp_path / "new.npy", features[1:])
    assert cli.main(["predict", str(other_runs / "file"), *arguments, *given]) == 3


def test_values_and_probabilities_make_no_ensemble(
    runs: Path, other_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.csv").write_text("smiles\nCCO\n")
    assert cli.main(["predict", str(runs / "s0"), str(other_runs / "classes"), str(tmp_path / "new.csv")]) == 2
    assert "log_solubility (classification)" in capsys.readouterr().err
    assert cli.main(["predict", str(other_runs / "classes"), str(tmp_path / "new.csv"), "-o", str(tmp_path / "o")]) == 0
    assert 0 < float(read(tmp_path / "o")[0]["log_solubility_prob"]) < 1


def test_a_molecule_too_large_for_the_model_says_so_alone(other_runs: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text(f"smiles\nCCO\n{'C' * 90}\nCCC\n")
    assert cli.main(["predict", str(other_runs / "small"), str(tmp_path / "new.csv"), "-o", str(tmp_path / "o")]) == 0
    out = read(tmp_path / "o")
    assert [bool(row["error"]) for row in out] == [False, True, False]
    assert "90 atoms" in out[1]["error"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["new.csv"], 2, "needs a run folder"),
        (["nowhere", "new.csv"], 5, "holds no finished run"),
        (["s0", "missing.csv"], 3, "missing.csv cannot be read"),
        (["s0", "new.csv", "--smiles", "SMILE"], 3, "no column 'SMILE'"),
        (["s0", "bare.csv"], 3, "bare.csv has no header: its first line contains the molecule 'CCO'"),
        (["s0", "new.csv", "--batch-size", "0"], 2, "--batch-size=0"),
        (["s0", "new.csv", "--device", "gpu"], 2, "--device=gpu is not a torch device; use --device=cuda"),
        (["s0", "new.csv", "--device", "nonsense"], 2, "--device=nonsense cannot be used"),
        (["weights", "new.csv"], 5, ".hydra"),
    ],
)
def test_mistakes_are_one_sentence(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], code: int, message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.csv").write_text("smiles\nCCO\n")
    (tmp_path / "bare.csv").write_text("CCO\nCC\n")
    (tmp_path / "s0").symlink_to(runs / "s0")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "best").symlink_to(runs / "s0" / "best")
    assert cli.main(["predict", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_rerun_agrees_to_the_bit(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rerun", str(runs / "s1"), "-o", str(tmp_path / "again")]) == 0
    assert "agree to the bit" in capsys.readouterr().out
    old, new = result.read(runs / "s1"), result.read(tmp_path / "again")
    assert old is not None
    assert new is not None
    assert old["test"] == new["test"]


CALL = """
import os, sys
from molsam.commands import main
assert "torch" not in sys.modules
sys.modules["torch"] = None  # so that its first import ends the command
try:
    main.main(sys.argv[1:])
except ImportError:
    print(os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize("command", ["predict", "embed"])
def test_waiting_threads_leave_the_cores_to_the_workers(tmp_path: Path, command: str) -> None:
    """What tells OpenMP so is read when torch is loaded, so it must be there before."""
    (tmp_path / "new.csv").write_text("smiles\nCCO\n")
    clean = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    done = subprocess.run(
        [sys.executable, "-c", CALL, command, "run", "new.csv"], cwd=tmp_path, env=clean, capture_output=True, text=True
    )
    assert done.stdout.split() == ["passive"], done.stderr
