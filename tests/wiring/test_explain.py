"""Contributions are gradient x input, and find the atoms that matter."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from molsam.commands import main as cli
from molsam.config.compose import compose
from molsam.data.featurize import featurized
from molsam.errors import DataError
from molsam.wiring.explain import apart, explain, picture
from molsam.wiring.run import start
from molsam.wiring.trained import Trained
from tests.paths import ROOT

MODELS = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml") if path.stem != "resnet18")
SMALL = {"gcn": "model.hidden_sizes=[8,8]", "compt": "model.d_model=8", "grover": "model.hidden_size=8"}
SMILES = "CC(=O)Nc1ccc(O)cc1"


@pytest.fixture(scope="module", params=MODELS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model after an epoch."""
    folder = tmp_path_factory.mktemp(request.param)
    size = SMALL.get(request.param, "model.hidden_size=8")
    common = ["training.epochs=1", "training.threads=1", "training.precision=fp64", "dataset.limit=40"]
    start(compose([f"model={request.param}", size, *common]), folder, [])
    return Trained(folder)


def test_contributions_are_the_slope_along_the_features(trained: Trained) -> None:
    """Their sum is the derivative of the output when all features grow in proportion, by central differences."""
    found = explain(trained, SMILES).atoms["log_solubility"]
    (row,) = featurized([SMILES], trained.work)
    batch, nodes, edges = apart(trained.batch([row]))
    step = 1e-5

    def output(scale: float) -> float:
        with torch.no_grad():
            whole = nodes.data.clone(), edges.data.clone()
            # CoMPT's last feature is the atom's position, a whole number that it looks up.
            width = nodes.shape[1] - (type(trained.model).__name__ == "CoMPT")
            nodes.data[:, :width].mul_(scale), edges.data.mul_(scale)
            value = trained.model(replace(batch)).logits.mean().item() * float(trained.scaler.std[0])
            nodes.data.copy_(whole[0]), edges.data.copy_(whole[1])
        return value

    slope = (output(1 + step) - output(1 - step)) / (2 * step)
    assert len(found) == 11
    assert found.sum() == pytest.approx(slope, rel=1e-3, abs=1e-6)
    assert np.ptp(found) > 0


def test_the_prediction_of_atoms_that_are_kept_apart_is_the_same(trained: Trained) -> None:
    (row,) = featurized([SMILES], trained.work)
    batch = trained.batch([row])
    with torch.no_grad():
        both = [trained.model(one).logits for one in (batch, apart(batch)[0])]
    torch.testing.assert_close(*both, rtol=1e-9, atol=1e-9)


def test_the_atoms_that_a_target_counts_are_found(tmp_path: Path) -> None:
    smiles = [line.split(",")[0] for line in (ROOT / "src/molsam/data/embedded/esol.csv").read_text().splitlines()[1:]]
    smiles = [text for text in smiles if "Cl" not in text][:400]
    table = "smiles,oxygens\n" + "".join(f"{text},{text.upper().count('O')}\n" for text in smiles)
    (tmp_path / "count.csv").write_text(table)
    words = ["model=gcn", "optimizer=adam", "dataset=csv", f"dataset.path={tmp_path / 'count.csv'}"]
    start(compose([*words, "training.epochs=30", "training.threads=1"]), tmp_path / "run", [])
    found = explain(Trained(tmp_path / "run"), "OCCCCCCO").atoms["oxygens"]
    assert set(np.argsort(found)[-2:]) == {0, 7}
    with pytest.raises(DataError, match="cannot be explained"):
        explain(Trained(tmp_path / "run"), "no molecule")


def test_a_picture_is_drawn(trained: Trained) -> None:
    drawn = picture(explain(trained, SMILES), "log_solubility")
    assert drawn.lstrip().startswith("<?xml")
    assert "</svg>" in drawn


def test_the_atoms_are_those_that_the_model_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of standardized molecules drops salts and moves hydrogens, so its atoms are others than the SMILES has."""
    words = ["model=gcn", "model.hidden_sizes=[8]", "training.epochs=1", "training.threads=1", "dataset.limit=40"]
    start(compose([*words, "dataset.standardize=full"]), tmp_path / "run", [])
    monkeypatch.chdir(tmp_path)
    for smiles, read in [("Cl.CCN", "CCN"), ("[Na+].CC(=O)[O-]", "CC(=O)O"), ("CC(O)=N", "CC(N)=O")]:
        assert cli.main(["explain", "run", smiles]) == 0
        printed = capsys.readouterr().out.splitlines()
        assert f"as the model reads it: {read}" in printed
        atoms = Counter(line.split()[1] for line in printed if len(line.split()) == 3)
        assert atoms == Counter(re.findall(r"[A-Z]", read))
        assert "<svg" in Path("explained.svg").read_text(encoding="iso-8859-1")


def test_the_class_that_is_explained_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two classes the positive one, in the words of the file."""
    lines = [f"{'C' * (i + 1)}O,{('inactive', 'active')[i % 2]}" for i in range(40)]
    (tmp_path / "assay.csv").write_text("\n".join(["smiles,y", *lines]) + "\n")
    words = ["model=gcn", "model.hidden_sizes=[8]", "training.epochs=1", "training.threads=1"]
    start(
        compose([*words, "dataset=csv", f"dataset.path={tmp_path / 'assay.csv'}", "dataset.targets=[y]"]),
        tmp_path / "run",
        [],
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.csv").write_text("smiles\nCCO\n")
    capsys.readouterr()
    assert cli.main(["predict", "run", "in.csv"]) == 0
    share = float(capsys.readouterr().out.splitlines()[1].split(",")[2])
    assert cli.main(["explain", "run", "CCO"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"y: active, probability {share:.4g}"
