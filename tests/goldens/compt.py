"""CoMPT against the release's GraphTransformer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from torch import Tensor

from molsam.chem.compt import ComptFeaturizer
from molsam.data.packed import PackedMolecules
from molsam.models.api import DataSpec
from molsam.models.compt import CoMPT
from tests.goldens import common

FAR = 1e8
Runner = Callable[..., Tensor]


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


def compare(z: NpzFile, variant: str, dtype: torch.dtype) -> dict[str, float]:
    config = common.load_config(z, variant)
    packed = common.molecules(z, ComptFeaturizer())
    everything = packed.batch(range(len(packed))).to(dtype=dtype)
    largest = packed.max_atoms

    def model(**settings: Any) -> CoMPT:
        return common.load_model(build(config, **settings), z, variant, dtype)

    padded = model(padding="reference", padded_length=largest)
    logits = padded(everything).logits[0]
    gradients = padded.to_reference(common.squared_gradients(padded, logits))
    exact = model()
    errors = {
        "features": _features(z, packed),
        "outputs": common.relative_error(logits, z[f"{variant}/out/pad_Lmax"]),
        "outputs/exact": common.relative_error(exact(everything).logits[0], z[f"{variant}/out/single_nopad"]),
        "outputs/exact, single": common.relative_error(
            _one_by_one(exact, packed, dtype), z[f"{variant}/out/single_nopad"]
        ),
        "outputs/padded, single": common.relative_error(
            _one_by_one(padded, packed, dtype), z[f"{variant}/out/single_pad_Lmax"]
        ),
        "attention": _attention(z, f"{variant}/attn/nopad/", exact.attention(everything)),
        "gradients": common.relative_errors(gradients, common.arrays(z, f"{variant}/grad/")),
    }
    if f"{variant}/out/pad_Lmax_plus10" in z.files:
        longer = model(padding="reference", padded_length=largest + 10)
        errors["outputs/10 more"] = common.relative_error(
            longer(everything).logits[0], z[f"{variant}/out/pad_Lmax_plus10"]
        )
    return errors


def _one_by_one(model: CoMPT, packed: PackedMolecules, dtype: torch.dtype) -> Tensor:
    return torch.cat([model(packed.batch([i]).to(dtype=dtype)).logits[0] for i in range(len(packed))])


def _attention(z: NpzFile, prefix: str, ours: list[list[Tensor]]) -> float:
    worst = 0.0
    for name, value in common.arrays(z, prefix).items():
        molecule, layer = name.split("/")
        own = ours[int(layer.removeprefix("layer"))][int(molecule.removeprefix("mol"))]
        worst = common.max_error(worst, common.relative_error(own, value))
    return worst


def _features(z: NpzFile, packed: PackedMolecules) -> float:
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
