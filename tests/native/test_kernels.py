"""The C files: the same numbers as torch alone, with any number of threads, and torch where they cannot be had."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from molsam.chem.arrays import Featurizer
from molsam.chem.chemprop import ChempropFeaturizer
from molsam.chem.compt import ComptFeaturizer
from molsam.chem.dgllife import DgllifeFeaturizer
from molsam.chem.grover import GroverFeaturizer
from molsam.chem.molecule import parse
from molsam.data.packed import pack
from molsam.models.api import DataSpec, MoleculeModel
from molsam.models.cmpnn import CMPNN
from molsam.models.compt import CoMPT
from molsam.models.gcn import GCN
from molsam.models.grover.model import Grover
from molsam.models.mpnn import MPNN
from molsam.native import build as library
from molsam.native import kernels

SMILES = ["C", "CC(=O)Oc1ccccc1C(=O)O", "[Na+].[Cl-]", "C1CC2CC1C2", "CC(=O)[O-].[Na+]", "C" * 30, "FS(F)(F)(F)(F)F"]
CMPNN_FEATURES = ChempropFeaturizer(atoms="v1", bond_order="pairs")
MODELS: dict[str, tuple[Featurizer, Callable[..., MoleculeModel], dict[str, object]]] = {
    "compt": (ComptFeaturizer(), CoMPT, {"d_model": 48, "n_layers": 2, "n_heads": 3, "norm": "layer"}),
    "compt, exp": (ComptFeaturizer(), CoMPT, {"d_model": 16, "n_layers": 1, "distance_kernel": "exp"}),
    "cmpnn": (CMPNN_FEATURES, CMPNN, {"hidden_size": 20, "ffn_hidden_size": 8}),
    "cmpnn, padded": (CMPNN_FEATURES, CMPNN, {"hidden_size": 70, "ffn_hidden_size": 8, "padding": "reference"}),
    "mpnn": (DgllifeFeaturizer(), MPNN, {"hidden_size": 32, "edge_hidden_size": 8, "steps": 2}),
    "gcn": (DgllifeFeaturizer(), GCN, {"hidden_sizes": [20, 70]}),
    "grover": (GroverFeaturizer(), Grover, {"hidden_size": 100}),
    "grover, narrow": (
        GroverFeaturizer(),
        Grover,
        {"hidden_size": 6, "n_heads": 3, "activation": "leakyrelu", "bias": True},
    ),
}


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def again() -> Iterator[None]:
    """The library is looked for anew, in this test and after it."""
    library.compiled.cache_clear()
    yield
    library.compiled.cache_clear()


def _gradients(name: str, dtype: torch.dtype, smiles: list[str]) -> list[Tensor]:
    """Logits and gradients of a training pass."""
    featurizer, make, settings = MODELS[name]
    molecules = [featurizer(parse(s)) for s in smiles]
    packed = pack(molecules)
    torch.manual_seed(0)
    model = make(DataSpec(packed.nodes.shape[1], packed.edge_table.shape[1], 2, packed.max_atoms), **settings).to(dtype)
    torch.manual_seed(1)
    logits = model.train()(packed.batch(range(len(packed))).to(dtype=dtype)).logits
    parameters = list(model.parameters())
    grads = torch.autograd.grad(logits.square().sum(), parameters, allow_unused=True)
    return [logits.detach(), *(torch.zeros_like(p) if g is None else g for g, p in zip(grads, parameters, strict=True))]


@pytest.mark.parametrize("n_threads", [1, 2, 5, 14])
@pytest.mark.parametrize("name", MODELS)
def test_equals_torch_alone(name: str, n_threads: int) -> None:
    if kernels.in_use() != "compiled":
        pytest.skip("no C compiler")
    for smiles in (SMILES, ["C"], ["[Na+].[Cl-]", "CC"]):
        with kernels.torch_only():
            expected = _gradients(name, torch.float64, smiles)
        torch.set_num_threads(n_threads)
        found = _gradients(name, torch.float64, smiles)
        torch.testing.assert_close(
            found, expected, rtol=1e-10, atol=1e-10 * max(float(g.abs().max()) for g in expected)
        )
        torch.testing.assert_close(_gradients(name, torch.float64, smiles), found, rtol=0, atol=0)
        largest = max(float(g.abs().max()) for g in expected[1:])
        for a, b in zip(_gradients(name, torch.float32, smiles), expected, strict=True):
            assert float((a - b).abs().max()) < 1e-4 * max(float(b.abs().max()), 0.01 * largest)


def test_without_a_compiler_torch_computes(
    monkeypatch: pytest.MonkeyPatch, again: None, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert kernels.in_use() == "torch"
    assert not kernels.available(torch.empty(1))
    assert "gcc" in caplog.text
    assert _gradients("compt", torch.float32, SMILES)[0].isfinite().all()


def test_a_compiler_that_fails_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, again: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = tmp_path / "gcc"
    compiler.write_text("#!/bin/sh\necho no such flag >&2\nexit 1\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("MOLSAM_CACHE", str(tmp_path))
    assert kernels.in_use() == "torch"
    assert "no such flag" in caplog.text
    assert not list((tmp_path / "kernels").glob("*"))


def test_compiled_once(monkeypatch: pytest.MonkeyPatch, again: None, tmp_path: Path) -> None:
    monkeypatch.setenv("MOLSAM_CACHE", str(tmp_path))
    if kernels.in_use() != "compiled":
        pytest.skip("no C compiler")
    library.compiled.cache_clear()
    monkeypatch.setattr(library, "_compile", lambda *_: pytest.fail("compiled again"))
    assert kernels.in_use() == "compiled"
    assert [path.suffix for path in (tmp_path / "kernels").iterdir()] == [".so"]


def test_the_variable_and_the_switch_turn_them_off(monkeypatch: pytest.MonkeyPatch, again: None) -> None:
    with kernels.torch_only():
        assert not kernels.available(torch.empty(1))
    monkeypatch.setenv("MOLSAM_KERNELS", "torch")
    library.compiled.cache_clear()
    assert kernels.in_use() == "torch"


def test_only_for_plain_numbers_of_the_cpu() -> None:
    assert kernels.available(torch.empty(1)) == (kernels.in_use() == "compiled")
    assert not kernels.available(torch.empty(1, dtype=torch.bfloat16))
    assert not kernels.available(torch.empty(1, device="meta"))
    with torch.autocast("cpu"):
        assert not kernels.available(torch.empty(1))
