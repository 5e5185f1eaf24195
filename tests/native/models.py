"""Models whose training passes call every C function, on small batches.

Run as a program, it writes the results of each model to a file; with MOLSAM_KERNELS=torch, the results of torch alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

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
from molsam.models.dmpnn import DMPNN
from molsam.models.gcn import GCN
from molsam.models.grover.model import Grover
from molsam.models.mpnn import MPNN

SMILES = ["C", "CC(=O)Oc1ccccc1C(=O)O", "[Na+].[Cl-]", "C1CC2CC1C2", "CC(=O)[O-].[Na+]", "C" * 30, "FS(F)(F)(F)(F)F"]
BATCHES = (SMILES, ["C"], ["[Na+].[Cl-]", "CC"])
CMPNN_FEATURES = ChempropFeaturizer(atoms="v1", bond_order="pairs")
MODELS: dict[str, tuple[Featurizer, Callable[..., MoleculeModel], dict[str, object]]] = {
    "compt": (ComptFeaturizer(), CoMPT, {"d_model": 48, "n_layers": 2, "n_heads": 3, "norm": "layer"}),
    "compt, exp": (ComptFeaturizer(), CoMPT, {"d_model": 16, "n_layers": 1, "distance_kernel": "exp"}),
    "cmpnn": (CMPNN_FEATURES, CMPNN, {"hidden_size": 20, "ffn_hidden_size": 8}),
    "cmpnn, padded": (CMPNN_FEATURES, CMPNN, {"hidden_size": 70, "ffn_hidden_size": 8, "padding": "reference"}),
    "dmpnn": (ChempropFeaturizer(), DMPNN, {"hidden_size": 20, "ffn_hidden_size": 8}),
    "mpnn": (DgllifeFeaturizer(), MPNN, {"hidden_size": 32, "edge_hidden_size": 8, "steps": 2}),
    "gcn": (DgllifeFeaturizer(), GCN, {"hidden_sizes": [20, 70]}),
    "grover": (GroverFeaturizer(), Grover, {"hidden_size": 100}),
    "grover, narrow": (
        GroverFeaturizer(),
        Grover,
        {"hidden_size": 6, "n_heads": 3, "activation": "leakyrelu", "bias": True},
    ),
}


def gradients(name: str, dtype: torch.dtype, smiles: list[str]) -> list[Tensor]:
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


def all_gradients() -> dict[str, list[list[Tensor]]]:
    """In double precision, of each model and batch."""
    return {name: [gradients(name, torch.float64, smiles) for smiles in BATCHES] for name in MODELS}


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.save(all_gradients(), sys.argv[1])
