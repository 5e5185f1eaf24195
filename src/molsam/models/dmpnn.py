"""D-MPNN (Yang et al., J. Chem. Inf. Model. 2019), as chemprop 2.3.1's BondMessagePassing and feed-forward head."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.data.batch import MoleculeBatch
from molsam.errors import ConfigError
from molsam.models.api import DataSpec, ModelOutput, MoleculeModel
from molsam.models.layers.activation import activation as make_activation
from molsam.models.layers.batchnorm import BatchNorm
from molsam.models.layers.segment import segment_mean, segment_sum
from molsam.models.message_graph import Atoms, Bonds, MessageGraph, sum_entering, take, turn
from molsam.models.naming import from_reference_names, to_reference_names

AGGREGATIONS = ("mean", "norm", "sum")
NORM = 100.0
"""the number by which aggregation "norm" divides the sum over atoms"""


class DMPNN(MoleculeModel):
    """Messages along directed bonds; a bond's message excludes its own reverse.

    h0_uv = W_i [x_u ; e_uv], h = act(h0); depth - 1 times: M_uv = sum_{w -> u} h_wu - h_vu,
    h_uv = act(h0_uv + W_h M_uv). Then h_v = act(W_o [x_v ; sum_{u -> v} h_uv] + b), aggregated over atoms.

    hidden_size: width of bonds and atoms. depth: see above. bias: of W_i and W_h (W_o has one always).
    undirected: a bond and its reverse share their mean before each message. activation: of the encoder.
    aggregation: "mean" over atoms, "norm" (sum / 100) or "sum". batch_norm: of the molecule vector.
    ffn_hidden_size, ffn_layers: width and number of hidden layers of the head (ReLU). dropout: on bonds,
    atoms and the head's hidden layers. Raises ConfigError for an unknown aggregation or activation.
    """

    unused = ("*.task_weights",)

    readers = ("ffn.0",)

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden_size: int = 300,
        depth: int = 3,
        bias: bool = False,
        undirected: bool = False,
        activation: str = "relu",
        aggregation: str = "mean",
        batch_norm: bool = False,
        ffn_hidden_size: int = 300,
        ffn_layers: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if aggregation not in AGGREGATIONS:
            raise ConfigError(f"model.aggregation is {aggregation!r}; choose one of {', '.join(AGGREGATIONS)}.")
        self.depth, self.undirected = depth, undirected
        self.aggregation, self.dropout = aggregation, dropout
        self.split = [spec.node_dim, spec.edge_dim]
        self.W_i = nn.Linear(spec.node_dim + spec.edge_dim, hidden_size, bias=bias)
        self.W_h = nn.Linear(hidden_size, hidden_size, bias=bias)
        self.W_o = nn.Linear(spec.node_dim + hidden_size, hidden_size)
        self.activation = make_activation(activation)
        self.batch_norm = BatchNorm(hidden_size) if batch_norm else None
        widths = [hidden_size + spec.descriptor_dim, *[ffn_hidden_size] * ffn_layers, spec.n_tasks]
        self.ffn = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))

    def forward(self, batch: MoleculeBatch) -> ModelOutput:
        """Return logits [1, B, T]."""
        vector = self.aggregate(self.encode(batch), batch)
        for i, layer in enumerate(self.ffn):
            if i:
                vector = F.dropout(F.relu(vector), self.dropout, self.ffn.training)
            vector = layer(vector)
        return ModelOutput(vector.unsqueeze(0))

    def encode(self, batch: MoleculeBatch) -> Tensor:
        """Return the atoms after message passing, [N, d]."""
        # Merged states would share one dropout mask; and undirected bonds could merge only with equal reverses.
        apart = self.training and self.dropout > 0
        graph = MessageGraph.of(batch, max(self.depth - 1, 0), apart=apart, merged=not self.undirected)
        first = self.initialize(batch, graph)
        hidden = self.activation(first)
        for atoms, bonds in zip(graph.atoms[:-1], graph.bonds, strict=True):
            hidden = self.update(self.message(hidden, atoms, bonds), take(first, bonds.start))
        last = graph.atoms[-1]
        incoming = sum_entering(hidden, last)
        by_atom, by_bonds = self.W_o.weight.split([self.split[0], first.shape[1]], dim=1)
        own = take(F.linear(batch.node_table, by_atom, self.W_o.bias), graph.kind)
        states = take(self.activation(torch.addmm(own, incoming, by_bonds.t())), graph.place)
        return F.dropout(states, self.dropout, self.training)

    def initialize(self, batch: MoleculeBatch, graph: MessageGraph) -> Tensor:
        """Return h0 of the first bonds; the product with W_i runs over distinct atoms and distinct bonds."""
        by_atom, by_bond = self.W_i.weight.split(self.split, dim=1)
        atoms = F.linear(batch.node_table, by_atom, self.W_i.bias)
        return take(atoms, graph.source) + take(F.linear(batch.edge_table, by_bond), graph.type)

    def message(self, hidden: Tensor, atoms: Atoms, bonds: Bonds) -> Tensor:
        """Return M [e, d] of a step's bonds: the sum over the bonds that enter the source, except the reverse."""
        if self.undirected:
            hidden = (hidden + hidden.index_select(0, bonds.rev)) / 2
        return turn(sum_entering(hidden, atoms), hidden, bonds)

    def update(self, message: Tensor, first: Tensor) -> Tensor:
        """Return h [e, d] from M and h0."""
        if self.W_h.bias is not None:
            first = first + self.W_h.bias
        hidden = self.activation(torch.addmm(first, message, self.W_h.weight.t()))
        return F.dropout(hidden, self.dropout, self.training)

    def aggregate(self, atoms: Tensor, batch: MoleculeBatch) -> Tensor:
        """Return the molecules' vectors [B, d + descriptor_dim]."""
        if self.aggregation == "mean":
            vector = segment_mean(atoms, batch.molecule, batch.sizes)
        else:
            vector = segment_sum(atoms, batch.molecule, len(batch))
            vector = vector / NORM if self.aggregation == "norm" else vector
        if self.batch_norm is not None:
            vector = self.batch_norm(vector, batch.real)
        return vector if batch.descriptors is None else torch.cat([vector, batch.descriptors], dim=1)

    def from_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the state dict of chemprop's MPNN as ours."""
        return from_reference_names(tensors, self._names(), self.unused)

    def to_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors under chemprop's names."""
        return to_reference_names(tensors, self._names())

    def _names(self) -> list[tuple[str, str]]:
        head = [(f".ffn.{i}.", f".predictor.ffn.{i}.{2 if i else 0}.") for i in range(len(self.ffn))]
        encoder = [(f".{w}.", f".message_passing.{w}.") for w in ("W_i", "W_h", "W_o")]
        return [*head, *encoder, (".activation.", ".message_passing.tau."), (".batch_norm.", ".bn.")]
