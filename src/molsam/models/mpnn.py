"""MPNN with an edge network, GRU updates and Set2Set (Gilmer et al., ICML 2017), as dgllife's MPNNPredictor."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.data.batch import MoleculeBatch
from molsam.models.api import DataSpec, ModelOutput, MoleculeModel
from molsam.models.layers.grouped import grouped_product
from molsam.models.layers.recurrent import gru_steps
from molsam.models.layers.segment import take
from molsam.models.layers.set2set import Set2Set
from molsam.models.naming import from_reference_names, to_reference_names


class TypedBonds(NamedTuple):
    """The directed bonds of a batch sorted by type; bonds with equal features have the same type."""

    src: Tensor
    """int64 [E]"""
    dst: Tensor
    """int64 [E]"""
    features: Tensor
    """float [K, edge_dim], the K types that occur"""
    counts: list[int] | Tensor
    """the number of bonds of each type; on a device int64 [E], the type of each bond"""


def typed_bonds(batch: MoleculeBatch) -> TypedBonds:
    """Sort the bonds of a batch by type.

    On a device they stay in their order, because reading the counts would wait for the device.
    """
    if not batch.src.is_cpu:
        if len(batch.edge_table) > len(batch.src):
            return TypedBonds(batch.src, batch.dst, batch.edges, torch.arange(len(batch.src), device=batch.src.device))
        return TypedBonds(batch.src, batch.dst, batch.edge_table, batch.edge_type)
    kinds, order = batch.edge_type.sort(stable=True)
    present, counts = torch.unique_consecutive(kinds, return_counts=True)
    return TypedBonds(batch.src[order], batch.dst[order], batch.edge_table[present], counts.tolist())


class MPNN(MoleculeModel):
    """x = relu(W x_v + b), then `steps` times m_v = sum_{u -> v} x_u W_uv + b, x_v = GRU(relu(m_v), x_v).

    W_uv = MLP(bond features), a matrix [d, d], is the same for equal bonds. It is computed once for each distinct
    feature vector of the batch, and the messages take one product for each of these.
    The readout is Set2Set, the head Linear - relu - Linear.

    hidden_size: d. edge_hidden_size: hidden width of the edge network. steps: message passing steps.
    set2set_steps, set2set_layers: iterations and LSTM layers of the readout. dropout: on the head's hidden
    layer (the reference has none).
    """

    readers = ("head.0",)

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden_size: int = 64,
        edge_hidden_size: int = 128,
        steps: int = 6,
        set2set_steps: int = 6,
        set2set_layers: int = 3,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.steps = steps
        self.project = nn.Linear(spec.node_dim, hidden_size)
        self.edge_network = nn.Sequential(
            nn.Linear(spec.edge_dim, edge_hidden_size), nn.ReLU(), nn.Linear(edge_hidden_size, hidden_size**2)
        )
        self.message_bias = nn.Parameter(torch.zeros(hidden_size))
        self.gru = nn.GRUCell(hidden_size, hidden_size)
        self.readout = Set2Set(hidden_size, steps=set2set_steps, n_layers=set2set_layers)
        self.head = nn.Sequential(
            nn.Linear(2 * hidden_size + spec.descriptor_dim, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, spec.n_tasks),
        )
        self.dropout = dropout

    def encode(self, batch: MoleculeBatch) -> Tensor:
        """Return the atoms after the last step, [N, d]."""
        bonds = typed_bonds(batch)
        hidden = take(F.relu(self.project(batch.node_table)), batch.node_type)
        matrices = self.edge_network(bonds.features).view(-1, hidden.shape[1], hidden.shape[1])
        if isinstance(bonds.counts, Tensor):
            matrices = matrices.index_select(0, bonds.counts)
        # One expanded tensor for all steps: autograd then adds up its gradients in one operation.
        biases = self.message_bias.expand(self.steps, *hidden.shape).unbind()
        for update, bias in zip(gru_steps(self.gru, self.steps, hidden.device), biases, strict=True):
            sent = self._sent(take(hidden, bonds.src), matrices, bonds.counts)
            message = bias.index_add(0, bonds.dst, sent.to(bias.dtype))  # autocast may have lowered it
            hidden = update(F.relu(message), hidden)
        return hidden

    @staticmethod
    def _sent(rows: Tensor, matrices: Tensor, counts: list[int] | Tensor) -> Tensor:
        """Return each row times its bond's matrix, [E, d].

        The CPU takes one product for each type, a device one batched product for all bonds.
        """
        if isinstance(counts, Tensor):
            return torch.bmm(rows.to(matrices.dtype).unsqueeze(1), matrices).squeeze(1)
        return grouped_product(rows, matrices, counts)

    def forward(self, batch: MoleculeBatch) -> ModelOutput:
        """Return logits [1, B, T]."""
        vector = self.readout(self.encode(batch), batch)
        if batch.descriptors is not None:
            vector = torch.cat([vector, batch.descriptors], dim=1)
        first, activation, last = self.head
        vector = F.dropout(activation(first(vector)), self.dropout, self.head.training)
        return ModelOutput(last(vector).unsqueeze(0))

    def from_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the state dict of dgllife's MPNNPredictor as ours."""
        return from_reference_names(tensors, self._names(), self.unused)

    def to_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors under MPNNPredictor's names."""
        return to_reference_names(tensors, self._names())

    def _names(self) -> list[tuple[str, str]]:
        recurrent = [
            (f".readout.cells.{layer}.{kind}_{side}", f".readout.lstm.{kind}_{side}_l{layer}")
            for layer in range(len(self.readout.cells))
            for kind in ("weight", "bias")
            for side in ("ih", "hh")
        ]
        gru = [(f".gru.{kind}_{s}", f".gnn.gru.{kind}_{s}_l0") for kind in ("weight", "bias") for s in ("ih", "hh")]
        return [*recurrent, *gru, *_NAMES]


_NAMES = [
    (".project.", ".gnn.project_node_feats.0."),
    (".edge_network.", ".gnn.gnn_layer.edge_func."),
    (".message_bias", ".gnn.gnn_layer.bias"),
    (".head.", ".predict."),
]
