"""GCN against dgllife's GCNPredictor.

dgllife's own float32 is up to 4e-5 off its float64 where a molecule sums 300 atoms: torch's BatchNorm and the readout
add them one by one. Ours shifts the rows first and adds the readout in float64, and is good to 1e-5 there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from molsam.chem.dgllife import DgllifeFeaturizer
from molsam.models.api import DataSpec
from molsam.models.gcn import GCN
from tests.goldens import common


def matches(config: dict[str, Any]) -> bool:
    return "gnn_norm" in config and "predictor_hidden_feats" in config


def build(config: dict[str, Any], max_atoms: int) -> GCN:
    return GCN(
        DataSpec(config["node_in"], config["edge_in"], config["n_tasks"], max_atoms),
        hidden_sizes=config["hidden_feats"],
        gnn_norm=config["gnn_norm"],
        residual=config["residual"],
        batch_norm=config["batchnorm"],
        head_size=config["predictor_hidden_feats"],
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
    errors = {
        "features": dgllife_features(z, variant, packed, rows),
        "hidden": common.relative_error(hidden, z[f"{variant}/node_hidden/batch"]),
        "molecule vectors": common.relative_error(model.readout(hidden, batch), z[f"{variant}/molvec/batch"]),
        "outputs": common.relative_error(logits, z[f"{variant}/out/batch"]),
        "outputs/single": common.relative_error(single, z[f"{variant}/out/single"]),
        "gradients": common.gradient_error(z, variant, model, logits),
        "gradients/single": common.gradient_error(z, variant, model, single),
    }
    model.train()
    errors["train/outputs"] = common.relative_error(model(batch).logits[0], z[f"{variant}/train/out_batch"])
    buffers = model.to_reference(dict(model.named_buffers()))
    after = common.arrays(z, f"{variant}/train/buffer_after/")
    errors["train/buffers"] = common.max_error(*(common.relative_error(buffers[k], v) for k, v in after.items()))
    return errors


def dgllife_features(z: common.Golden, variant: str, packed: common.PackedMolecules, rows: list[int]) -> float:
    """Largest difference of nodes, bonds and their ends; `rows` of the file are those packed."""
    names = {"nodes": "h", "edges": "e", "src": "src", "dst": "dst"}
    expected = [{ours: z[f"{variant}/feat/{i}/{theirs}"] for ours, theirs in names.items()} for i in rows]
    return float(np.max([common.feature_error(packed, i, e) for i, e in enumerate(expected)]))
