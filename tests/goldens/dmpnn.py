"""DMPNN against chemprop's BondMessagePassing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molsam.chem.chemprop import ChempropFeaturizer
from molsam.data.batch import MoleculeBatch
from molsam.models.api import DataSpec
from molsam.models.dmpnn import DMPNN
from tests.goldens import common

V1_WIDTH = 133


def matches(config: dict[str, Any]) -> bool:
    return "d_h" in config and "ffn_layers" in config


def build(config: dict[str, Any], node_dim: int, edge_dim: int, max_atoms: int) -> DMPNN:
    return DMPNN(
        DataSpec(node_dim, edge_dim, config["n_tasks"], max_atoms, config["X_d"]),
        hidden_size=config["d_h"],
        depth=config["depth"],
        bias=config["bias"],
        undirected=config["undirected"],
        activation=config["activation"],
        aggregation=config["agg"],
        batch_norm=config["batch_norm"],
        ffn_hidden_size=config["ffn_hidden"],
        ffn_layers=config["ffn_layers"],
    )


def compare(z: common.Golden, variant: str, dtype: torch.dtype) -> dict[str, float]:
    config = common.load_config(z, variant)
    atoms = "v1" if z["feat/0/V"].shape[1] == V1_WIDTH else "v2"
    packed = common.molecules(z, ChempropFeaturizer(atoms=atoms))
    model = build(config, packed.nodes.shape[1], packed.edge_table.shape[1], packed.max_atoms)
    model = common.load_model(model, z, variant, dtype)
    descriptors = torch.from_numpy(z[f"{variant}/X_d"]).to(dtype) if config["X_d"] else None

    def batch(rows: Sequence[int]) -> MoleculeBatch:
        own = None if descriptors is None else descriptors[list(rows)]
        return replace(packed.batch(rows).to(dtype=dtype), descriptors=own)

    everything = batch(range(len(packed)))
    hidden = model.encode(everything)
    logits = model(everything).logits[0]
    single = torch.cat([model(batch([i])).logits[0] for i in range(len(packed))])
    expected = {name: z[f"{variant}/{name}"] for name in ("logits/batch", "logits/single", "fingerprint/batch")}
    errors = {
        "features": _features(z, packed),
        "hidden": common.relative_error(hidden, z[f"{variant}/atom_hidden/batch"]),
        "molecule vectors": common.relative_error(model.aggregate(hidden, everything), expected["fingerprint/batch"]),
        "outputs": common.relative_error(logits, expected["logits/batch"]),
        "outputs/single": common.relative_error(single, expected["logits/single"]),
        "gradients": common.gradient_error(z, variant, model, logits),
        "gradients/single": common.gradient_error(z, variant, model, single),
    }
    if config["batch_norm"]:
        errors |= _train(z, variant, model, model.train()(everything).logits[0])
    return errors


def _train(z: common.Golden, variant: str, model: DMPNN, logits: Tensor) -> dict[str, float]:
    """Logits with batch statistics, and the running statistics after one such pass."""
    names = ("running_mean", "running_var")
    buffers = [common.relative_error(getattr(model.batch_norm, n), z[f"{variant}/train/bn_{n}_after"]) for n in names]
    return {
        "train/outputs": common.relative_error(logits, z[f"{variant}/train/logits"]),
        "train/buffers": common.max_error(*buffers),
    }


def _features(z: common.Golden, packed: common.PackedMolecules) -> float:
    """Largest difference of the atoms (both versions), bonds and their ends."""
    worst = []
    for i in range(len(packed)):
        src, dst = z[f"feat/{i}/edge_index"]
        expected = {"nodes": z[f"feat/{i}/V"], "edges": z[f"feat/{i}/E"], "src": src, "dst": dst}
        worst.append(common.feature_error(packed, i, expected))
    if "feat_v2default/0/V" in z.files:
        other = common.molecules(z, ChempropFeaturizer(atoms="v2"))
        worst += [common.feature_error(other, i, {"nodes": z[f"feat_v2default/{i}/V"]}) for i in range(len(other))]
    return float(np.max(worst))
