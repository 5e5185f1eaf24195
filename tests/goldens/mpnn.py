"""MPNN against dgllife's MPNNPredictor."""

from __future__ import annotations

from typing import Any

import torch

from molsam.chem.dgllife import DgllifeFeaturizer
from molsam.models.api import DataSpec
from molsam.models.mpnn import MPNN
from tests.goldens import common
from tests.goldens.gcn import dgllife_features


def matches(config: dict[str, Any]) -> bool:
    return "num_step_set2set" in config


def build(config: dict[str, Any], max_atoms: int) -> MPNN:
    return MPNN(
        DataSpec(config["node_in"], config["edge_in"], config["n_tasks"], max_atoms),
        hidden_size=config["node_out_feats"],
        edge_hidden_size=config["edge_hidden_feats"],
        steps=config["num_step_message_passing"],
        set2set_steps=config["num_step_set2set"],
        set2set_layers=config["num_layer_set2set"],
    )


def compare(z: common.Golden, variant: str, dtype: torch.dtype) -> dict[str, float]:
    config = common.load_config(z, variant)
    rows = z[f"{variant}/valid_index"].tolist()
    packed = common.molecules(z, DgllifeFeaturizer(config["featurizer"], self_loop=config["self_loop"]), rows)
    model = common.load_model(build(config, packed.max_atoms), z, variant, dtype)
    batch = packed.batch(range(len(rows))).to(dtype=dtype)
    hidden = model.encode(batch)
    logits = model(batch).logits[0]
    single = torch.cat([model(packed.batch([i]).to(dtype=dtype)).logits[0] for i in range(len(rows))])
    return {
        "features": dgllife_features(z, variant, packed, rows),
        "hidden": common.relative_error(hidden, z[f"{variant}/node_hidden/batch"]),
        "molecule vectors": common.relative_error(model.readout(hidden, batch), z[f"{variant}/molvec/batch"]),
        "outputs": common.relative_error(logits, z[f"{variant}/out/batch"]),
        "outputs/single": common.relative_error(single, z[f"{variant}/out/single"]),
        "gradients": common.gradient_error(z, variant, model, logits),
        "gradients/single": common.gradient_error(z, variant, model, single),
    }
