"""Official GROVER checkpoints load safely, report what was loaded, and are refused where they do not fit."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from molsam.errors import ConfigError, StorageError
from molsam.models.api import DataSpec
from molsam.models.grover.checkpoint import load_pretrained
from molsam.models.grover.model import Grover

SPEC = DataSpec(node_dim=151, edge_dim=14, n_tasks=2, max_atoms=0)
SETTINGS = {"hidden_size": 8, "depth": 3, "n_heads": 2, "n_blocks": 2, "activation": "prelu"}
ARGS = {
    "hidden_size": 8,
    "depth": 3,
    "num_attn_head": 2,
    "num_mt_block": 2,
    "activation": "PReLU",
    "bias": False,
    "dense": False,
    "undirected": False,
    "backbone": "gtrans",
    "save_dir": "model/",
    "features_path": None,
}


def official(path: Path, fine_tuned: bool = False, **changes: Any) -> dict[str, Tensor]:
    """Write a checkpoint in the layout of the official ones; the tensors' names as GroverTask has them."""
    generator = torch.Generator().manual_seed(5)
    tensors: dict[str, Tensor] = {}

    def add(name: str, *shape: int) -> None:
        tensors[name] = torch.randn(*shape, generator=generator)

    for view, width in (("edge", 165), ("node", 151)):
        for b in range(2):
            block = f"grover.encoders.{view}_blocks.{b}"
            for h in range(2):
                for role in "qkv":
                    add(f"{block}.heads.{h}.mpn_{role}.act_func.weight", 1)
                    add(f"{block}.heads.{h}.mpn_{role}.W_h.weight", 8, 8)
            add(f"{block}.act_func.weight", 1)
            add(f"{block}.layernorm.weight", 8)
            add(f"{block}.layernorm.bias", 8)
            add(f"{block}.W_i.weight", 8, width if b == 0 else 8)
            for i in range(3):
                add(f"{block}.attn.linear_layers.{i}.weight", 8, 8)
                add(f"{block}.attn.linear_layers.{i}.bias", 8)
            add(f"{block}.attn.output_linear.weight", 8, 8)
            add(f"{block}.W_o.weight", 8, 16)
            add(f"{block}.sublayer.norm.weight", 8)
            add(f"{block}.sublayer.norm.bias", 8)
    for target, width in (("atom", 151), ("bond", 165)):
        for source in ("atom", "bond"):
            ffn = f"grover.encoders.ffn_{target}_from_{source}"
            add(f"{ffn}.W_1.weight", 32, width + 8)
            add(f"{ffn}.W_1.bias", 32)
            add(f"{ffn}.W_2.weight", 8, 32)
            add(f"{ffn}.W_2.bias", 8)
            add(f"{ffn}.act_func.weight", 1)
            add(f"grover.encoders.{target}_from_{source}_sublayer.norm.weight", 8)
            add(f"grover.encoders.{target}_from_{source}_sublayer.norm.bias", 8)
    add("grover.encoders.act_func_node.weight", 1)
    if fine_tuned:
        add("readout.cached_zero_vector", 8)
        for head in ("mol_atom_from_atom_ffn", "mol_atom_from_bond_ffn"):
            add(f"{head}.1.weight", 8, 8)
            add(f"{head}.1.bias", 8)
            add(f"{head}.2.weight", 1)
            add(f"{head}.4.weight", 3, 8)
            add(f"{head}.4.bias", 3)
    else:
        add("av_task_atom.linear.weight", 20, 8)
    scaler = {"means": np.array([0.5]), "stds": np.array([np.float64(2.0)])} if fine_tuned else None
    args = argparse.Namespace(**(ARGS | changes))
    torch.save({"args": args, "state_dict": tensors, "data_scaler": scaler, "features_scaler": None}, path)
    return tensors


def test_loads_a_pretrained_encoder_and_names_the_rest(tmp_path: Path) -> None:
    tensors = official(tmp_path / "grover.pt")
    model = Grover(SPEC, **SETTINGS)
    before = {k: v.clone() for k, v in model.to_reference(dict(model.named_parameters())).items()}
    report = load_pretrained(model, tmp_path / "grover.pt")
    after = model.to_reference(dict(model.named_parameters()))
    assert set(report.loaded) == {k for k in after if k.startswith("grover.encoders.")}
    assert all(torch.equal(after[k], tensors[k]) for k in report.loaded)
    assert set(report.initial) == after.keys() - set(report.loaded)
    assert all(torch.equal(after[k], before[k]) for k in report.initial)
    assert set(report.ignored) == tensors.keys() - set(report.loaded)
    assert "grover.encoders.node_blocks.1.W_i.weight" in report.ignored
    text = str(report)
    assert f"{len(report.loaded)} pretrained tensors were loaded" in text
    assert all(name in text for name in ("mol_atom_from_atom_ffn.1.weight", "av_task_atom.linear.weight"))


def test_loads_of_a_fine_tuned_model_what_has_the_right_size(tmp_path: Path) -> None:
    tensors = official(tmp_path / "tuned.pt", fine_tuned=True)
    model = Grover(SPEC, **SETTINGS)
    report = load_pretrained(model, tmp_path / "tuned.pt")
    assert torch.equal(model.bond_head.layers[0].weight, tensors["mol_atom_from_bond_ffn.1.weight"])
    assert torch.equal(model.atom_head.act.weight, tensors["mol_atom_from_atom_ffn.2.weight"])
    # The checkpoint has three tasks, the model two.
    last = [f"mol_atom_from_{view}_ffn.4.{leaf}" for view in ("atom", "bond") for leaf in ("weight", "bias")]
    assert report.initial == last
    assert set(last) < set(report.ignored)


def test_turns_the_padding_of_the_reference_on_for_good(tmp_path: Path) -> None:
    official(tmp_path / "grover.pt")
    for padding, expected in ((None, True), ("reference", True), ("exact", False)):
        model = Grover(SPEC, **SETTINGS, padding=padding)
        load_pretrained(model, tmp_path / "grover.pt")
        assert bool(model.reference_padding) is expected
        again = Grover(SPEC, **SETTINGS, padding=padding)
        again.load_state_dict(model.state_dict())
        assert bool(again.reference_padding) is expected


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"hidden_size": 16}, "model.hidden_size is 8 but the checkpoint .* has 16; set model.hidden_size=16"),
        ({"depth": 6}, "model.depth is 3 but the checkpoint .* has 6; set model.depth=6"),
        ({"num_attn_head": 4}, "model.n_heads is 2 but the checkpoint .* has 4"),
        ({"num_mt_block": 1}, "model.n_blocks is 2 but the checkpoint .* has 1"),
        ({"activation": "ReLU"}, "model.activation is prelu .* has ReLU; set model.activation=relu"),
        ({"bias": True}, "model.bias is False but .* set model.bias=true"),
        ({"undirected": True}, "undirected=True"),
        ({"dense": True}, "dense=True"),
    ],
)
def test_refuses_other_settings(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    official(tmp_path / "grover.pt", **changed)
    model = Grover(SPEC, **SETTINGS)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ConfigError, match=says):
        load_pretrained(model, tmp_path / "grover.pt")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_refuses_other_features_and_missing_encoders(tmp_path: Path) -> None:
    official(tmp_path / "grover.pt")
    with pytest.raises(ConfigError, match=r"W_i.weight is \(8, 151\) in the checkpoint, \(8, 133\)"):
        load_pretrained(Grover(SPEC._replace(node_dim=133), **SETTINGS), tmp_path / "grover.pt")
    content = {"args": argparse.Namespace(**ARGS), "state_dict": {}}
    torch.save(content, tmp_path / "empty.pt")
    with pytest.raises(ConfigError, match="is absent in the checkpoint"):
        load_pretrained(Grover(SPEC, **SETTINGS), tmp_path / "empty.pt")


class Malicious:
    """Would make a directory when unpickled without restriction."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.mark,)


@pytest.mark.parametrize("zipped", [True, False])
def test_never_runs_what_a_checkpoint_hides(tmp_path: Path, zipped: bool) -> None:
    mark = tmp_path / "was_run"
    args = argparse.Namespace(**ARGS, hidden=Malicious(mark))
    torch.save({"args": args, "state_dict": {}}, tmp_path / "bad.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(StorageError, match="is not a safe checkpoint"):
        load_pretrained(Grover(SPEC, **SETTINGS), tmp_path / "bad.pt")
    assert not mark.exists()


def test_says_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    model = Grover(SPEC, **SETTINGS)
    with pytest.raises(StorageError, match=r"absent.pt cannot be read"):
        load_pretrained(model, tmp_path / "absent.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    with pytest.raises(StorageError, match=r"text.pt"):
        load_pretrained(model, tmp_path / "text.pt")
    official(tmp_path / "grover.pt")
    whole = (tmp_path / "grover.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match=r"cut.pt cannot be read"):
        load_pretrained(model, tmp_path / "cut.pt")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(StorageError, match="has no args and state_dict"):
        load_pretrained(model, tmp_path / "other.pt")
