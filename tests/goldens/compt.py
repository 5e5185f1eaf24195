"""CoMPT against the release's GraphTransformer."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from molsam.chem.compt import ComptFeaturizer
from molsam.data.packed import PackedMolecules
from molsam.models.api import DataSpec
from molsam.models.compt import CoMPT
from tests.goldens import common

FAR = 1e8


def matches(config: dict[str, Any]) -> bool:
    return "distance_matrix_kernel" in config and "n_generator_layers" in config


def build(config: dict[str, Any], **settings: Any) -> CoMPT:
    spec = DataSpec(config["d_atom"] + 1, config["d_edge"], config["n_output"], config["max_length"])
    return CoMPT(
        spec,
        d_model=config["d_model"],
        n_layers=config["N"],
        n_heads=config["h"],
        n_dense=config["N_dense"],
        generator_layers=config["n_generator_layers"],
        distance_kernel=config["distance_matrix_kernel"],
        norm="scale" if config["scale_norm"] else "layer",
        dense_activation=config["dense_output_nonlinearity"],
        leaky_relu_slope=config["leaky_relu_slope"],
        dropout=config["dropout"],
        **settings,
    )


def compare(z: common.Golden, variant: str, dtype: torch.dtype) -> dict[str, float]:
    config = common.load_config(z, variant)
    common.require(config, aggregation_type="gru")
    packed = common.molecules(z, ComptFeaturizer())
    everything = packed.batch(range(len(packed))).to(dtype=dtype)
    largest = common.meta(z).get("Lmax", packed.max_atoms)

    def model(**settings: Any) -> CoMPT:
        return common.load_model(build(config, **settings), z, variant, dtype)

    padded, exact = model(padding="reference", padded_length=largest), model()
    ours = {
        "out/pad_Lmax": padded(everything).logits[0],
        "out/single_pad_Lmax": _one_by_one(padded, packed, dtype),
        "out/single_nopad": _one_by_one(exact, packed, dtype),
    }
    if f"{variant}/out/pad_Lmax_plus10" in z.files:
        longer = model(padding="reference", padded_length=largest + 10)
        ours["out/pad_Lmax_plus10"] = longer(everything).logits[0]
    errors = {"features": _features(z, packed)}
    errors |= {f"outputs/{name}": common.relative_error(v, z[f"{variant}/{name}"]) for name, v in ours.items()}
    errors["outputs/exact, batch"] = common.relative_error(
        exact(everything).logits[0], z[f"{variant}/out/single_nopad"]
    )
    errors["attention"] = _attention(z, f"{variant}/attn/", exact.attention(everything))
    for kind, name in [("gradients", "out/pad_Lmax"), ("gradients/single", "out/single_pad_Lmax")]:
        errors[kind] = common.gradient_error(z, variant, padded, ours[name])
    return errors


def _one_by_one(model: CoMPT, packed: PackedMolecules, dtype: torch.dtype) -> Tensor:
    return torch.cat([model(packed.batch([i]).to(dtype=dtype)).logits[0] for i in range(len(packed))])


def _attention(z: common.Golden, prefix: str, ours: list[list[Tensor]]) -> float:
    """Of the molecules that are stored; a molecule's own atoms, without the padding around them."""
    worst = 0.0
    for name in (name for name in z.files if name.startswith(prefix)):
        _, molecule, layer = name.removeprefix(prefix).split("/")
        own = ours[int(layer.removeprefix("layer"))][int(molecule.removeprefix("mol"))]
        n = own.shape[-1]
        worst = common.max_error(worst, common.relative_error(own, z[name][..., :n, :n]))
    return worst


def _features(z: common.Golden, packed: PackedMolecules) -> float:
    worst = 0.0
    for i in range(len(packed)):
        batch = packed.batch([i])
        n = int(batch.sizes)
        bonds = np.zeros((n, n, batch.edge_table.shape[1]), dtype=np.float32)
        bonds[batch.src, batch.dst] = batch.edges
        assert batch.distances is not None
        distances = batch.distances.view(n, n).numpy()
        expected = {"node": batch.nodes.numpy(), "bond": bonds, "dist": np.where(distances < 0, FAR, distances)}
        for name, value in expected.items():
            golden = z[f"feat/{i}/{name}"].astype(np.float32)
            same = golden.shape == value.shape
            worst = common.max_error(worst, np.abs(golden - value).max() if same else np.inf)
    return worst
