"""CMPNN against the release's MPN and feed-forward head."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from molsam.chem.chemprop import ChempropFeaturizer
from molsam.data.packed import PackedMolecules
from molsam.models.api import DataSpec
from molsam.models.cmpnn import CMPNN
from tests.goldens import common

RELU = "relu"


def matches(config: dict[str, Any]) -> bool:
    return "atom_messages" in config and "ffn_num_layers" in config


def build(config: dict[str, Any], packed: PackedMolecules, **settings: Any) -> CMPNN:
    spec = DataSpec(packed.nodes.shape[1], packed.edge_table.shape[1], config["num_tasks"], packed.max_atoms)
    return CMPNN(
        spec,
        hidden_size=config["hidden_size"],
        depth=config["depth"],
        bias=config["bias"],
        activation=config["activation"],
        ffn_hidden_size=config["ffn_hidden_size"],
        ffn_layers=config["ffn_num_layers"],
        dropout=config["dropout"],
        **settings,
    )


def compare(z: common.Golden, variant: str, dtype: torch.dtype) -> dict[str, float]:
    config = common.load_config(z, variant)
    common.require(config, atom_messages=False, features_only=False, use_input_features=False)
    packed = common.molecules(z, ChempropFeaturizer("v1", "pairs"))
    everything = packed.batch(range(len(packed))).to(dtype=dtype)
    model = common.load_model(build(config, packed, padding="reference"), z, variant, dtype)

    def run(model: CMPNN, *parts: range) -> Tensor:
        return torch.cat([model(packed.batch(part).to(dtype=dtype)).logits[0] for part in parts])

    every = range(len(packed))
    one_by_one = [range(i, i + 1) for i in every]
    vectors = model.molecules(model.encode(everything), everything)
    logits = model(everything).logits[0]
    ours = {
        "logits/batch": logits,
        "logits/single": run(model, *one_by_one),
        "logits/batches_5_rest": run(model, every[:5], every[5:]),
        "molvec/batch": vectors,
        "out/batch": logits.sigmoid() if config["dataset_type"] == "classification" else logits,
    }
    errors = {"features": _features(z, packed)}
    for name, value in ours.items():
        errors[f"outputs/{name}"] = common.relative_error(value, z[f"{variant}/{name}"])
    if config["activation"].lower() == RELU:  # others see the padding's zeros even in a molecule alone
        exact = common.load_model(build(config, packed), z, variant, dtype)
        errors["outputs/exact"] = common.relative_error(run(exact, every), z[f"{variant}/logits/single"])
    errors["gradients"] = common.gradient_error(z, variant, model, logits)
    return errors


def _features(z: common.Golden, packed: PackedMolecules) -> float:
    worst = 0.0
    for i in range(len(packed)):
        bonds, src = z[f"feat/{i}/f_bonds"], z[f"feat/{i}/b2a"]
        dst = src[z[f"feat/{i}/b2revb"]]
        nodes, width = z[f"feat/{i}/f_atoms"], packed.nodes.shape[1]
        expected = {"nodes": nodes, "edges": bonds[:, width:], "src": src, "dst": dst}
        worst = common.max_error(worst, common.feature_error(packed, i, expected))
        worst = common.max_error(worst, np.abs(bonds[:, :width] - nodes[src]).max(initial=0.0))
    return worst
