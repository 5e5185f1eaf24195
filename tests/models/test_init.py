"""The models' initial weights follow the distributions of their references."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from molsam.models.api import DataSpec, MoleculeModel
from molsam.models.cmpnn import CMPNN
from molsam.models.compt import CoMPT
from molsam.models.gcn import GCN
from molsam.models.grover.model import Grover
from molsam.models.mpnn import MPNN

SPEC = DataSpec(node_dim=60, edge_dim=40, n_tasks=40, max_atoms=40)


def law(matrix: Tensor) -> str:
    """Xavier's uniform or normal law by standard deviation and largest entry, or "other"."""
    expected = math.sqrt(2 / sum(matrix.shape))
    if not 0.93 < float(matrix.std()) / expected < 1.07:
        return "other"
    return "uniform" if 1.6 < float(matrix.abs().max()) / expected < math.sqrt(3) + 1e-5 else "normal"


@pytest.mark.parametrize(
    ("model", "expected"),
    [(CMPNN(SPEC, ffn_layers=3), "normal"), (CoMPT(SPEC, d_model=64), "uniform"), (Grover(SPEC), "normal")],
    ids=["cmpnn", "compt", "grover"],
)
def test_all_matrices_follow_xavier(model: MoleculeModel, expected: str) -> None:
    """Each of GROVER's stacked encoder matrices by itself."""
    for name, parameter in model.named_parameters():
        matrices = parameter if parameter.ndim == 3 else [parameter]
        if parameter.ndim > 1:
            assert {law(matrix.detach()) for matrix in matrices} == {expected}, name
        elif expected == "normal" and "norm.weight" not in name:
            assert not parameter.any(), name


def test_gcn_and_mpnn_start_as_dgllifes() -> None:
    """The convolutions by Xavier's uniform law without bias; what else is linear keeps torch's law."""
    for layer in GCN(SPEC).layers:
        assert law(layer.conv.weight.detach()) == "uniform"
        assert not layer.conv.bias.any()
        assert layer.residual.bias.all()
    assert not MPNN(SPEC).message_bias.any()


def test_grovers_gains_and_slopes() -> None:
    for name, parameter in Grover(SPEC, activation="prelu").named_parameters():
        if name.endswith(("norm.weight", "act.weight")):
            assert torch.equal(parameter, torch.full_like(parameter, 1.0 if "norm" in name else 0.25)), name


def test_compts_scalars() -> None:
    model = CoMPT(SPEC, d_model=64, decay=0.3)
    assert all(float(layer.decay.detach()) == pytest.approx(0.3) for layer in model._stack)
    assert float(model.last_norm.gain.detach()) == 8.0
    assert float(model.readout.bias.abs().max().detach()) <= 1 / 8
