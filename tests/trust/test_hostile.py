"""Malformed files and settings give one sentence and an exit code on the real command line."""

from __future__ import annotations

import copy
import gzip
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as rules
from hypothesis import strategies as st
from omegaconf import OmegaConf

from molsam.errors import ConfigError, MolsamError
from molsam.runs import result
from molsam.wiring import check
from tests.integration.test_run import SMALL
from tests.trust.helpers import MODELS, command, settings, train

ROWS = [f"{'C' * (i % 9 + 1)}O,{i * 0.1:.1f},{i % 2}" for i in range(30)]
CSV = "smiles,y,z\n" + "\n".join(ROWS) + "\n"

GOOD: dict[str, bytes] = {
    "BOM": b"\xef\xbb\xbf" + CSV.encode(),
    "CRLF": CSV.replace("\n", "\r\n").encode(),
    "quotes": CSV.replace(",", '","').replace("\n", '"\n"').encode()[:-1].join([b'"', b""]),
    "semicolons": CSV.replace(",", ";").encode(),
    "tabs": CSV.replace(",", "\t").encode(),
    "gzip": gzip.compress(CSV.encode()),
    "blank lines": CSV.replace("\n", "\n\n").encode(),
    "invalid SMILES": CSV.replace("CO,", "C(O,", 3).encode(),
    "a formula": CSV.replace("CO,", "=1+1,", 1).encode(),
    "missing labels": CSV.replace("CO,0.1,", "CO,,").encode(),
}
BAD: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 3, "is empty"),
    "header only": (b"smiles,y,z\n", 3, "has a header but no rows"),
    "one row": (b"smiles,y,z\nCCO,1,0\n", 3, "part of the random split is empty"),
    "no such column": (CSV.replace("smiles", "SMILE").encode(), 3, "has no column 'smiles'"),
    "duplicate column": (CSV.replace("y,z", "y,y").encode(), 3, "has 2 columns named 'y'"),
    "text label": (CSV.replace(",0.1,", ",high,").encode(), 3, "line 3), column 'y': 'high' is not a number"),
    "infinite label": (CSV.replace(",0.1,", ",inf,").encode(), 3, "line 3), column 'y': 'inf' is not a finite number"),
    "huge label": (
        CSV.replace(",0.1,", ",1e30,").encode(),
        3,
        "line 3), column 'y': '1e30' is not a finite number below",
    ),
    "formula label": (CSV.replace(",0.1,", ",=A1,").encode(), 3, "line 3), column 'y': '=A1' is not a number"),
    "no label": (
        "\n".join(r if i == 0 else f"{r.split(',')[0]},," for i, r in enumerate(CSV.split())).encode(),
        3,
        "no molecule has a label",
    ),
    "no molecule": (CSV.replace("C", "Q").encode(), 3, "No row has a valid molecule"),
    "Latin-1": (CSV.replace("CO,", "C\xb5,", 1).encode("latin-1"), 3, "is not UTF-8 text (line 2"),
    "NUL": (CSV.replace("CO,", "C\0,", 1).encode(), 3, "contains NUL characters"),
    "cut gzip": (gzip.compress(CSV.encode())[:-9], 3, "is a damaged gzip file"),
    "ragged": (CSV.replace(",0.1,", ",0.1,,").encode(), 3, "line 3: 4 cells where the header has 3"),
    "a long line": (b"smiles,y,z\n" + b"C" * 2_000_000 + b",1,1\n", 3, "line 2: field larger"),
}


def run_csv(folder: Path, content: bytes, *more: str) -> tuple[Any, ...]:
    (folder / "data.csv").write_bytes(content)
    data = [
        "model=gcn",
        "dataset=csv",
        f"dataset.path={folder / 'data.csv'}",
        "dataset.targets=[y]",
        "training.threads=1",
    ]
    return (*data, *SMALL["gcn"], "training.epochs=1", f"hydra.run.dir={folder / 'run'}", *more)


@pytest.fixture(scope="module")
def own_file() -> Any:
    """The settings of a run on data.csv of the working directory."""
    data = ["dataset=csv", "dataset.path=data.csv", "dataset.targets=[y]", "training.epochs=1", "dataset.limit=null"]
    return settings("gcn", *data)


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_used(
    tmp_path: Path, name: str, own_file: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    content, code, message = BAD[name]
    (tmp_path / "data.csv").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MolsamError) as caught:
        train(own_file, tmp_path / "run")
    error = str(caught.value)
    assert message in error
    assert caught.value.exit_code == code
    assert "\n" not in error
    assert "data.csv" in error or "split" in error
    assert result.read(tmp_path / "run") is None
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("name", GOOD)
def test_a_file_that_only_looks_odd(tmp_path: Path, name: str, own_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.csv").write_bytes(GOOD[name])
    monkeypatch.chdir(tmp_path)
    train(own_file, tmp_path / "run")
    found = result.read(tmp_path / "run")
    assert found is not None
    invalid = {"invalid SMILES": 3, "a formula": 1}.get(name, 0)
    assert sum(found["split"]["sizes"]) == 30 - invalid
    assert math.isfinite(found["test"]["rmse"])


def test_a_bad_file_and_a_good_one_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, expected, message = BAD["text label"]
    code, error = command(capsys, monkeypatch, *run_csv(tmp_path, content))
    assert code == expected
    assert message in error
    assert len(error.strip().splitlines()) == 1
    code, error = command(capsys, monkeypatch, *run_csv(tmp_path, GOOD["gzip"]))
    assert code == 0, error


INPUTS = {
    "a folder": ("gcn", "dataset.path", ".", 3, "it is not a file"),
    "a device": ("gcn", "dataset.path", "/dev/null", 3, "it is not a file"),
    "no file": ("gcn", "dataset.path", "no/such/file.csv", 3, "No such file"),
    "no folder": ("gcn", "dataset.root", "no/such", 3, "is not a folder"),
    "no descriptors": ("gcn", "dataset.descriptors", "rdkit_3d", 3, "No such file"),
    "no checkpoint": ("grover", "model.pretrained", "/nope", 5, "No such file"),
    "a checkpoint of another model": ("gcn", "model.pretrained", "/dev/null", 5, "it is not a file"),
    "a long name": ("grover", "model.pretrained", "n" * 300, 5, "File name too long"),
}


NAMED = {"init_from", "dataset.valid_path", "dataset.test_path", *(key for _, key, _, _, _ in INPUTS.values())}


@pytest.mark.parametrize("kind", INPUTS)
def test_an_input_that_is_not_there_is_refused_before_anything_is_read(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, key, value, code, reason = INPUTS[kind]
    monkeypatch.setattr("molsam.wiring.run.load_dataset", lambda cfg: pytest.fail("data were read"))
    cfg = settings(model)
    OmegaConf.update(cfg, key, value, force_add=True)
    with pytest.raises(MolsamError) as caught:
        train(cfg, tmp_path / "run")
    assert str(caught.value).startswith(f"{key}={value} ")
    assert reason in str(caught.value)
    assert caught.value.exit_code == code
    assert not (tmp_path / "run").exists()


def test_only_grover_has_checkpoints_to_start_from(tmp_path: Path) -> None:
    cfg = settings("gcn")
    (tmp_path / "grover.pt").write_bytes(b"")
    OmegaConf.update(cfg, "model.pretrained", str(tmp_path / "grover.pt"), force_add=True)
    with pytest.raises(ConfigError, match=r"model\.pretrained=.*does not fit this model.*use model=grover"):
        check.check(cfg)


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_a_sweep_launches_nothing_without_its_inputs(
    tmp_path: Path, sampler: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    search = [] if sampler == "grid" else ["hydra/sweeper/sampler=tpe"]
    swept = "seed=0,1" if sampler == "grid" else "optimizer.rho=interval(0.01,0.1)"
    arguments = ["--multirun", "model=grover", "model.pretrained=/nope", swept, f"paths.outputs={tmp_path}", *search]
    code, error = command(capsys, monkeypatch, *arguments)
    assert code == 5
    assert "model.pretrained=/nope cannot be read (No such file or directory)" in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.rglob("run.json")) == []


FIT = {
    "a metric after the task is known": (
        ["dataset.metric=roc_auc"],
        2,
        "dataset.metric=roc_auc does not fit a regression",
    ),
    "a loss after the task is known": (["training.loss=bce"], 2, "training.loss=bce does not fit a regression"),
    "classes that are none": (["dataset.task=classification"], 3, "too many for classes"),
    "a device": (["training.device=cuda"], 2, "training.device=cuda cannot be used"),
    "threads": (["training.threads=1000000"], 2, "training.threads=1000000 is too large"),
    "folds": (["split.folds=1000000000"], 2, "split.folds=1000000000 must be"),
    "a misspelt section key": (["+dataset.on_invlid=error"], 2, "Did you mean dataset.on_invalid?"),
    "a misspelt top key": (["+sed=1"], 2, "Did you mean seed?"),
    "targets": (["dataset.targets=3"], 3, "has no column '3'"),
    "a switch that is a word": (["optimizer.same_noise=abc"], 2, "optimizer.same_noise='abc' has the wrong type"),
    "not a number": (["lr_schedule.final=nan"], 2, "lr_schedule.final"),
}


@pytest.mark.parametrize("name", FIT)
def test_what_does_not_fit(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more, code, message = FIT[name]
    found, error = command(capsys, monkeypatch, *run_csv(tmp_path, CSV.encode(), *more))
    assert message in error
    assert found == code
    assert len([line for line in error.splitlines() if not line.startswith("note:")]) == 1


def test_one_class_in_the_test_part_is_no_score(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "smiles,y\n" + "\n".join(f"{'C' * (i % 9 + 1)}O,{int(i == 3)}" for i in range(30))
    code, error = command(capsys, monkeypatch, *run_csv(tmp_path, text.encode()))
    assert code == 0, error
    found = result.read(tmp_path / "run")
    assert found is not None
    assert found["test"]["roc_auc"] is None
    assert found["tasks_skipped"] == 1


def test_a_constant_target_and_a_last_batch_of_one(tmp_path: Path) -> None:
    text = "smiles,y\n" + "\n".join(f"{'C' * (i % 9 + 1)}O,2.5" for i in range(11))
    (tmp_path / "data.csv").write_text(text)
    for model in MODELS:
        cfg = settings(
            model, "dataset=csv", f"dataset.path={tmp_path / 'data.csv'}", "training.batch_size=7", "optimizer=sam"
        )
        train(cfg, tmp_path / model)
        found = result.read(tmp_path / model)
        assert found is not None
        assert found["split"]["sizes"] == [8, 1, 2], "a batch of 7 and a batch of 1"
        assert math.isfinite(found["test"]["rmse"])


def test_steps_that_are_not_finite_are_told_or_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = run_csv(
        tmp_path, CSV.encode(), "base_optimizer.lr=1e30", "lr_schedule=constant", "training.batch_size=8"
    )
    code, error = command(capsys, monkeypatch, *arguments)
    assert code == 4
    for words in ("Step 1 (epoch 1)", "Molecules of the batch: C", "Last good checkpoint: none yet", "nonfinite=skip"):
        assert words in error
    code, error = command(capsys, monkeypatch, *arguments, "training.nonfinite=skip", "overwrite=true")
    assert code == 0
    assert "2 of 3 steps were skipped" in error
    found = result.read(tmp_path / "run")
    assert found is not None
    assert found["steps_skipped"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_molecules_of_two_thousand_atoms(tmp_path: Path, model: str) -> None:
    (tmp_path / "data.csv").write_text(
        CSV.replace("smiles,y,z\n", f"smiles,y,z\n{'C' * 2000},1.0,1\n{'C1CCCCC1' * 333},2.0,0\n")
    )
    cfg = settings(
        model, "dataset=csv", f"dataset.path={tmp_path / 'data.csv'}", "dataset.targets=[y]", "training.epochs=1"
    )
    train(cfg, tmp_path / "run")
    found = result.read(tmp_path / "run")
    assert found is not None
    assert sum(found["split"]["sizes"]) == 30


VALUES: list[Any] = [
    -1,
    0,
    1.5,
    10**12,
    math.nan,
    math.inf,
    True,
    "",
    "abc",
    "-3",
    None,
    [],
    ["a", 1],
    {"a": 1},
    "\u00e9\0x",
    "../x",
]


def leaves(node: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(node, dict):
        return []
    return [path for key in node for path in [(*prefix, key), *leaves(node[key], (*prefix, key))]]


def check_with(plain: dict[str, Any], path: tuple[Any, ...], value: Any) -> None:
    """Preflight takes the value, or refuses it in one sentence."""
    changed = copy.deepcopy(plain)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    try:
        check.check(OmegaConf.create(changed))
    except MolsamError as error:
        assert "\n" not in str(error)  # noqa: PT017
        # An input that is not there has the exit code of data or files.
        assert isinstance(error, ConfigError) or ".".join(map(str, path)) in NAMED  # noqa: PT017
        assert any(str(key) in str(error) for key in path), error  # noqa: PT017


def resolved(*more: str) -> Any:
    cfg = settings("gcn", "diagnostics=gradients", *more)
    OmegaConf.resolve(cfg)
    return OmegaConf.to_container(cfg)


ANY = st.one_of(
    st.sampled_from(VALUES), st.integers(), st.floats(), st.text(max_size=8), st.lists(st.integers(), max_size=3)
)


@pytest.mark.slow
@rules(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_value_at_any_place(data: st.DataObject) -> None:
    plain = resolved()
    check_with(plain, data.draw(st.sampled_from(leaves(plain))), data.draw(ANY))


FUZZED, FUZZ_CASES = ("graphsam", "rst", "looksam"), 1200


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", FUZZED)
def test_many_thousand_settings(optimizer: str) -> None:
    plain = resolved(f"optimizer={optimizer}")
    places = st.sampled_from(leaves(plain))
    check = rules(max_examples=FUZZ_CASES, deadline=None, suppress_health_check=list(HealthCheck))
    check(given(places, ANY)(lambda path, value: check_with(plain, path, value)))()
