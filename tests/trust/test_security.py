"""Code in a stranger's configuration, checkpoint or run folder is never run."""

from __future__ import annotations

import gc
import json
import os
import pickle
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from molsam.commands import main as cli
from molsam.config.compose import compose, plain
from molsam.errors import ConfigError, StorageError
from molsam.models.grover.checkpoint import read_checkpoint
from molsam.runs import result
from molsam.runs.folder import stored
from molsam.training import checkpoint
from molsam.wiring.run import start
from tests.paths import ROOT
from tests.trust.helpers import command, settings, train

SECRET = "c0ffee-0123456789"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, made where a key and a token stand in the environment and in its settings."""
    place = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_API_KEY", SECRET)
        patch.setenv("SOME_TOKEN", SECRET[::-1])
        train(settings("gcn", f"name='run {SECRET}'", f"dataset.display='{SECRET[::-1]}'"), place)
    return place


def test_no_secret_is_written(whole: Path) -> None:
    for path in (path for path in whole.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert SECRET.encode() not in content, path
        assert SECRET[::-1].encode() not in content, path


PLACES = ["model", "model.featurizer", "model.hidden_sizes.0", "optimizer", "optimizer.base", "optimizer.base.betas.0"]
PLACES += ["optimizer.rho_schedule", "lr_schedule", "callbacks.mine", "callbacks.mine.atoms", "diagnostics.gradients"]
TARGETS = ["os.system", "subprocess.Popen", "builtins.eval", "molsam.files.os.system", "molsam.files.write_json"]
TARGETS += [
    "molsam.training.checkpoint.os.replace",
    "molsam.training.checkpoint.Path",
    "molsam.commands.main.main",
    "torch.load",
]


@pytest.fixture(scope="module")
def shared_settings() -> str:
    """Resolved settings with observers, as JSON."""
    cfg = settings("gcn", "callbacks=attention", "diagnostics=gradients")
    cfg.callbacks.mine = cfg.callbacks.attention
    return json.dumps(plain(cfg))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("target", TARGETS)
def test_a_target_names_a_class_of_molsam_or_nothing(
    tmp_path: Path, place: str, target: str, shared_settings: str
) -> None:
    plain: Any = json.loads(shared_settings)
    node, *inner = plain, *place.split(".")
    for key in inner[:-1]:
        node = node[int(key)] if isinstance(node, list) else node[key]
    evil = {"_target_": target, "_args_": [str(tmp_path / "proof"), 1]}
    last = int(inner[-1]) if isinstance(node, list) else inner[-1]
    node[last] = evil if place.count(".") or place == "lr_schedule" else {**node[last], **evil}
    with pytest.raises(
        ConfigError,
        match=r"is not allowed; use a class of molsam|is not a class that is defined there|cannot be imported",
    ):
        start(OmegaConf.create(plain), tmp_path / "run", [])
    assert not (tmp_path / "proof").exists()


HYDRA = {
    "callbacks": {"hydra": {"callbacks": {"x": {"_target_": "pathlib.Path.touch", "_args_": ["PROOF"]}}}},
    "logging": {
        "hydra": {
            "job_logging": {
                "handlers": {"x": {"()": "logging.FileHandler.__call__", "filename": "PROOF"}},
                "root": {"handlers": ["x"]},
            }
        }
    },
    "handler": {
        "hydra": {
            "hydra_logging": {
                "handlers": {"x": {"class": "logging.handlers.MemoryHandler", "capacity": 1}},
                "root": {"handlers": ["x"]},
            }
        }
    },
}


@pytest.mark.parametrize("kind", HYDRA)
def test_hydras_own_section_calls_nothing(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = tmp_path / "proof"
    (tmp_path / "experiment").mkdir()
    text = yaml.safe_dump(HYDRA[kind]).replace("PROOF", str(proof))
    (tmp_path / "experiment" / "shared.yaml").write_text(f"# @package _global_\n{text}")
    arguments = ["--config-dir", str(tmp_path), "experiment=shared", "model=gcn", f"hydra.run.dir={tmp_path / 'run'}"]
    with warnings.catch_warnings():
        # Of handlers that Hydra made before it came to the one that is refused.
        warnings.simplefilter("ignore", ResourceWarning)
        code, error = command(capsys, monkeypatch, *arguments)
        gc.collect()
    assert code == 2, error
    assert "whitelist" in error
    assert "Traceback" not in error
    assert not proof.exists()


@pytest.mark.parametrize(
    "text", ["name: !!python/object/apply:os.system [touch PROOF]", "name: [", "a: b: c", "name: \x01"]
)
def test_a_configuration_file_is_plain_yaml(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = tmp_path / "proof"
    (tmp_path / "experiment").mkdir()
    path = tmp_path / "experiment" / "shared.yaml"
    path.write_text(f"# @package _global_\n{text.replace('PROOF', str(proof))}\n")
    code, error = command(capsys, monkeypatch, "--config-dir", str(tmp_path), "experiment=shared", "model=gcn")
    assert code == 2, error
    assert "is not plain YAML" in error
    assert "shared.yaml" in error
    assert len(error.strip().splitlines()) == 1
    assert not proof.exists()


class Bomb:
    """Runs when unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.proof}",)


def test_a_malicious_checkpoint_is_refused_wherever_it_is_given(tmp_path: Path, whole: Path) -> None:
    proof = tmp_path / "proof"
    evil = tmp_path / "evil.pt"
    torch.save({"args": Bomb(proof), "state_dict": {"w": torch.zeros(1)}}, evil)
    with pytest.raises(StorageError, match="is not a safe checkpoint"):
        read_checkpoint(evil)
    plain = tmp_path / "plain.pkl"
    plain.write_bytes(pickle.dumps(Bomb(proof), protocol=2))
    with pytest.raises(StorageError, match=r"model\.pretrained"):
        read_checkpoint(plain)
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "one.csv").write_text("smiles\nCCO\n")
    for content in (evil, plain):
        shutil.copy(content, tmp_path / "run" / "best" / "model.safetensors")
        assert cli.main(["predict", str(tmp_path / "run"), str(tmp_path / "one.csv")]) == 5
    assert not proof.exists()


TREES = [
    [],
    {"weights": {}},
    {"weights": 3, "scaler": {}, "spec": {}, "task": "x", "task_names": []},
    {"spec": {"node_dim": -1, "edge_dim": "a", "n_tasks": 10**30, "max_atoms": None}},
]


@pytest.mark.parametrize("tree", range(len(TREES)))
def test_a_checkpoint_that_is_whole_and_nonsense(
    tmp_path: Path, whole: Path, tree: int, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    good = checkpoint.read(whole / "best" / "model.safetensors")
    nonsense = TREES[tree] if not isinstance(TREES[tree], dict) else {**good, **TREES[tree]}
    checkpoint.save(tmp_path / "run" / "best" / "model.safetensors", nonsense)
    (tmp_path / "one.csv").write_text("smiles\nCCO\n")
    code = cli.main(["predict", str(tmp_path / "run"), str(tmp_path / "one.csv")])
    error = capsys.readouterr().err
    assert code in (2, 5), error
    assert len(error.strip().splitlines()) == 1


RECORDS = {
    "interpolation": ("name: ${oc.env:WANDB_API_KEY}", "interpolation"),
    "alias": ("a: &a [1, 1]\nb: [*a, *a]", "alias"),
    "python": ("a: !!python/object/apply:os.system [touch PROOF]", "damaged"),
    "list": ("- 1\n- 2", "damaged"),
    "binary": ("\x00\x01", "damaged"),
    "cut": ("a: {b: [1, ", "damaged"),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_the_recorded_settings_of_a_stranger(tmp_path: Path, kind: str) -> None:
    text, word = RECORDS[kind]
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(text.replace("PROOF", str(tmp_path / "proof")))
    with pytest.raises(StorageError, match=word) as caught:
        stored(tmp_path)
    assert "config.yaml" in str(caught.value)
    assert not (tmp_path / "proof").exists()


def test_a_strangers_run_folder_runs_nothing(
    tmp_path: Path, whole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / ".hydra" / "config.yaml"
    path.write_text(path.read_text().replace("molsam.models.gcn.GCN", "molsam.files.os.system"))
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    found["config"]["model"]["_target_"] = "molsam.files.os.system"
    found["config"]["resume"] = str(whole)
    del found["checksum"]
    result.write(tmp_path / "run", found)
    (tmp_path / "one.csv").write_text("smiles\nCCO\n")
    for arguments in (["predict", str(tmp_path / "run"), str(tmp_path / "one.csv")], ["rerun", str(tmp_path / "run")]):
        assert cli.main(arguments) == 2
        assert "molsam.files.os.system is not allowed" in capsys.readouterr().err
    (tmp_path / "run" / "result.json").unlink()
    code, error = command(capsys, monkeypatch, f"resume={tmp_path / 'run'}")
    assert code == 2
    assert "molsam.files.os.system is not allowed" in error


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b", "..", "x\n", "<script>alert(1)</script>"])
def test_names_stay_in_their_folder(tmp_path: Path, name: str) -> None:
    from molsam.runs.folder import choose
    from molsam.wiring import identify

    cfg = compose(["model=gcn", f"paths.outputs={tmp_path}"])
    cfg.name = cfg.choices.dataset = name
    place = choose(cfg, identify.of)
    assert place.resolve().is_relative_to(tmp_path.resolve())
    assert len(place.relative_to(tmp_path).parts) == 2
    assert re.fullmatch(r"[\w.=+-]+", place.name)


def test_every_instantiation_names_what_it_allows() -> None:
    for path in (ROOT / "src" / "molsam").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        calls = len(re.findall(r"(?<!import )\binstantiate\(", text))
        assert calls == text.count("_execution_whitelist_="), path
