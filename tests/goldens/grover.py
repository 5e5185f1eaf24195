"""GROVER against files of the format of grover.npz.

In float32 its gradients can be beyond 1e-5, for the published formulas in torch as for ours. The messages grow by
the number of neighbours in every step, so that scores of the attention between heads reach 25,000 in grover.npz
(mean_relu_bias_feats, node block 0): a float32 of that size is known to 0.001, and so is the softmax of two close
ones. Trained with the stored depths, that variant's gradients are off by 1.8e-4 here, tensor by tensor (worst: query
encoders' W_h), by 6e-5 in torch's own layers, by 1.1e-5 if the weights alone are rounded to float32 and all else is
computed in float64, and by 2.0e-5 if the encoders' input alone is: tensor by tensor, no float32 can reach 1e-5 there.
As one vector, the gradient of every variant of grover.npz does. The other cause is a LayerNorm of a row that is
nearly constant (tanh, few columns). common.ROUNDINGS says what is allowed in such a case; everything else is held to
1e-5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from molsam.chem.grover import GroverFeaturizer
from molsam.data.batch import MoleculeBatch
from molsam.models.api import DataSpec, ModelOutput
from molsam.models.grover.model import Grover
from tests.goldens import common

VIEWS = ("atom_from_atom", "atom_from_bond")


def matches(config: dict) -> bool:
    return {"num_mt_block", "num_attn_head", "dist_coff"} <= config.keys()


def compare(z: common.Golden, variant: str, dtype: torch.dtype) -> dict[str, float]:
    """Features, everything in a batch and one by one, gradients, and training with the stored depths."""
    config = common.load_config(z, variant)
    common.require(config, undirected=False, dense=False, features_only=False)
    featurizer = GroverFeaturizer()
    packed = common.molecules(z, featurizer)
    model = build(z, variant, DataSpec(featurizer.node_dim, featurizer.edge_dim, 0, 0)).to(dtype).eval()

    def batch(rows: list[int]) -> MoleculeBatch:
        made = packed.batch(rows).to(dtype=dtype)
        if config["features_dim"]:
            features = z[f"{variant}/features2d"][rows].astype(np.float32)
            made.descriptors = torch.from_numpy(features).to(dtype)
        return made

    rows = list(range(len(packed)))
    everything = batch(rows)
    result = {"features": max(_feature_error(z, packed, row) for row in rows)}
    output = model(everything)
    result |= _intermediate(z, variant, model, everything, output)
    outputs = predict(config, output.logits)
    result["outputs"] = common.relative_error(outputs, z[f"{variant}/out/eval_batch"])
    result["gradients"] = common.gradient_error(z, variant, model, outputs)
    single = torch.cat([model(batch([row])).logits for row in rows], dim=1)
    result["outputs/single"] = common.relative_error(predict(config, single), z[f"{variant}/out/eval_single"])
    expected = np.stack([z[f"{variant}/logits_single/{view}"] for view in VIEWS])
    result["logits/single"] = common.relative_error(single, expected)
    return result | _training(z, variant, model, everything)


def build(z: common.Golden, variant: str, spec: DataSpec, **changes: Any) -> Grover:
    """The model of a variant with its weights, float64, in reference mode; `changes` are other settings."""
    config = common.load_config(z, variant)
    spec = spec._replace(n_tasks=config["output_size"], descriptor_dim=config["features_dim"])
    settings = {
        "hidden_size": config["hidden_size"],
        "depth": config["depth"],
        "n_heads": config["num_attn_head"],
        "n_blocks": config["num_mt_block"],
        "activation": config["activation"],
        "bias": config["bias"],
        "dropout": config["dropout"],
        "readout": "self_attention" if config["self_attention"] else "mean",
        "attention_hidden": config["attn_hidden"],
        "attention_out": config["attn_out"],
        "head_layers": config["ffn_num_layers"],
        "head_size": config["ffn_hidden_size"],
        "dist_coff": config["dist_coff"],
        "padding": "reference",
    }
    model = Grover(spec, **(settings | changes)).double()
    weights = model.from_reference(common.load_params(z, variant))
    model.load_state_dict(weights | {"reference_padding": model.reference_padding})
    return model


def predict(config: dict, logits: Tensor) -> Tensor:
    """Logits [2, B, T] -> the reference's evaluation output: mean of the probabilities, or of the values."""
    return (logits.sigmoid() if config["dataset_type"] == "classification" else logits).mean(0)


def element_loss(config: dict, output: ModelOutput, targets: Tensor) -> Tensor:
    """The training loss [B, T] before masking."""
    y = targets.expand_as(output.logits)
    if config["dataset_type"] == "classification":
        per_head = F.binary_cross_entropy_with_logits(output.logits, y, reduction="none")
    else:
        per_head = (output.logits - y).square()
    assert output.auxiliary is not None
    return per_head.sum(0) + output.auxiliary


def _feature_error(z: common.Golden, packed: Any, row: int) -> float:
    atoms, bonds = z[f"feat/{row}/f_atoms"], z[f"feat/{row}/f_bonds"]
    source, reverse = z[f"feat/{row}/b2a"], z[f"feat/{row}/b2revb"]
    expected = {"nodes": atoms, "edges": bonds[:, atoms.shape[1] :], "src": source, "dst": source[reverse]}
    return common.feature_error(packed, row, expected)


def _intermediate(
    z: common.Golden, variant: str, model: Grover, batch: MoleculeBatch, output: ModelOutput
) -> dict[str, float]:
    errors: dict[str, list[float]] = {"embedding": [], "molvec": [], "logits": []}
    views = model.encode(batch)
    for atoms, vectors, logits, view in zip(views, model.read(views, batch), output.logits, VIEWS, strict=True):
        reference = z[f"{variant}/embedding/{view}"][1:]  # without the padding row
        errors["embedding"].append(common.relative_error(atoms, reference))
        errors["molvec"].append(common.relative_error(vectors, z[f"{variant}/molvec/{view}"]))
        errors["logits"].append(common.relative_error(logits, z[f"{variant}/logits/{view}"]))
    return {name: common.max_error(*values) for name, values in errors.items()}


def _training(z: common.Golden, variant: str, model: Grover, batch: MoleculeBatch) -> dict[str, float]:
    """Outputs, loss and gradients in training mode, with the depths the reference drew."""
    config, prefix = common.load_config(z, variant), f"{variant}/train/"
    if config["dropout"] or f"{prefix}depths" not in z.files:
        return {}
    model.train()
    output = model(batch, depths=torch.from_numpy(z[f"{prefix}depths"]))
    targets, mask = (torch.from_numpy(z[prefix + name]).to(output.logits) for name in ("targets", "mask"))
    elements = element_loss(config, output, targets) * mask
    loss = elements.sum() / mask.sum()
    result = {
        "train/outputs": common.relative_error(
            output.logits, np.stack([z[f"{prefix}out_atom"], z[f"{prefix}out_bond"]])
        ),
        "train/loss": common.relative_error(loss, z[f"{prefix}loss"]),
        "train/loss_elementwise": common.relative_error(elements, z[f"{prefix}loss_elementwise"] * z[f"{prefix}mask"]),
    }
    gradients = common.gradients(model, loss)  # of an encoder without a step: zeros here, none there
    expected = common.arrays(z, f"{prefix}grad/")
    return result | {
        "train/gradients": common.relative_errors(gradients, expected),
        "train/gradients, one vector": common.whole_error(gradients, expected),
    }
