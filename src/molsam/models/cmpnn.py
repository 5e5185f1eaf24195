"""CMPNN (Song, Zheng, Niu, Fu, Lu and Yang, IJCAI 2020) as in its released code (SY575/CMPNN)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.data.batch import MoleculeBatch
from molsam.errors import ConfigError
from molsam.models.api import DataSpec, ModelOutput, MoleculeModel
from molsam.models.layers.activation import activation as make_activation
from molsam.models.layers.gru import BiGRU, PaddedReading, Reading, padded_reading, reading
from molsam.models.layers.padding import pad
from molsam.models.layers.segment import segment_max, segment_mean
from molsam.models.message_graph import MessageGraph, sum_times_max, take, turn
from molsam.models.naming import from_reference_names, to_reference_names

PADDINGS = ("exact", "reference")


class CMPNN(MoleculeModel):
    """Atoms and bonds exchange messages; an atom aggregates its bonds by a booster, their sum times their maximum.

    AGG(b)_v = (sum of b over bonds entering v) * (element-wise maximum over them), 0 without bonds.
    a = a0 = act(W_a atom), b = b0 = act(W_b [source atom ; bond]); depth - 1 times, each with its own W_t:
        a <- a + AGG(b);  b_uv <- act(b0_uv + W_t (a_u - b_vu))
    x = W [AGG(b) ; a ; a0]; g = bidirectional GRU over the molecule's atoms of relu(x + bias), with the initial
    state max over atoms of x. The molecule's vector is the mean of act(W_o g); the feed-forward head reads it.

    hidden_size, depth, bias (of W_a, W_b, W_t, W), activation: of the encoder; ffn_hidden_size, ffn_layers
    (linear layers, >= 1): of the head; dropout: on bonds after each message, on atoms after W_o, before each
    linear layer of the head.

    padding="exact" reads each molecule by itself. With padding="reference" the result depends on the batch, as in
    the released code: the GRU's backward direction first passes through zero rows up to the batch's longest
    molecule, and the maximum includes 0 for atoms with fewer bonds than another atom of the batch. The latter
    changes nothing for ReLU; for activations with values below 0 it also changes the result for a single molecule.

    Raises ConfigError for an unknown activation or padding.
    """

    unused: tuple[str, ...] = ("encoder.encoder.W_h_atom.*",)

    readers = ("head.0",)

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden_size: int = 300,
        depth: int = 3,
        bias: bool = False,
        activation: str = "relu",
        ffn_hidden_size: int = 300,
        ffn_layers: int = 2,
        dropout: float = 0.0,
        padding: str = "exact",
    ) -> None:
        super().__init__()
        if padding not in PADDINGS:
            raise ConfigError(f"model.padding={padding!r} is unknown; choose one of {', '.join(PADDINGS)}.")
        self.padded = padding == "reference"
        self.split = [spec.node_dim, spec.edge_dim]
        self.atom_input = nn.Linear(spec.node_dim, hidden_size, bias=bias)
        self.bond_input = nn.Linear(spec.node_dim + spec.edge_dim, hidden_size, bias=bias)
        self.messages = nn.ModuleList(nn.Linear(hidden_size, hidden_size, bias=bias) for _ in range(depth - 1))
        self.communicate = nn.Linear(3 * hidden_size, hidden_size, bias=bias)
        self.gru_bias = nn.Parameter(torch.zeros(hidden_size))
        self.gru = BiGRU(hidden_size, hidden_size)
        self.output = nn.Linear(2 * hidden_size, hidden_size)
        self.activation = make_activation(activation)
        self.dropout = nn.Dropout(dropout)
        widths = [hidden_size + spec.descriptor_dim, *[ffn_hidden_size] * (ffn_layers - 1), spec.n_tasks]
        self.head = nn.ModuleList(nn.Linear(i, o) for i, o in pairwise(widths))
        self.head_activation = make_activation(activation) if ffn_layers > 1 else nn.Identity()
        # The released head uses one activation after every layer, so its state dict repeats a PReLU's slope.
        self.unused = (*CMPNN.unused, *(f"ffn.{3 * i + 2}.weight" for i in range(1, ffn_layers - 1)))
        for parameter in self.parameters():
            nn.init.zeros_(parameter) if parameter.ndim == 1 else nn.init.xavier_normal_(parameter)

    @property
    def independent(self) -> bool:
        """Whether the result for a molecule does not depend on the others of its batch."""
        return not self.padded

    @property
    def heads(self) -> set[str]:
        """The head, and its activation, which may have a weight."""
        return {"head", "head_activation"}

    def forward(self, batch: MoleculeBatch) -> ModelOutput:
        """Return logits [1, B, T]."""
        graph = self._graph(batch)
        order: Reading | PaddedReading | None = Reading(*graph.also) if graph.also else None
        if batch.fixed:
            order = PaddedReading(*batch.derive(_padded_reading))
        vector = self.molecules(self.encode(batch, graph), batch, order)
        if batch.descriptors is not None:
            vector = torch.cat([vector, batch.descriptors], dim=1)
        for i, linear in enumerate(self.head):
            vector = self.head_activation(vector) if i else vector
            vector = linear(F.dropout(vector, self.dropout.p, self.head.training))
        return ModelOutput(vector.unsqueeze(0))

    def _graph(self, batch: MoleculeBatch) -> MessageGraph:
        """Return the message graph of a batch; on a device, with the order in which the GRU reads the atoms."""
        on_cpu = batch.sizes.is_cpu or batch.fixed or self.padded
        also = () if on_cpu else reading(batch.here.sizes.numpy())
        # Merged states would share one dropout mask.
        return MessageGraph.of(batch, len(self.messages), apart=self.training and self.dropout.p > 0, also=also)

    def encode(self, batch: MoleculeBatch, graph: MessageGraph | None = None) -> Tensor:
        """Return x of all atoms after the messages, [N, hidden]."""
        graph = graph or self._graph(batch)
        full = int(batch.here.neighbour_offsets.diff().max()) if self.padded else 0
        a = initial = self.activation(self.atom_input(batch.node_table))
        b = b0 = self.activation(self._bond_input(batch, graph))
        for linear, atoms, bonds in zip(self.messages, graph.atoms[:-1], graph.bonds, strict=True):
            a = sum_times_max(b, atoms, full, a)
            message, start = turn(a, b, bonds), take(b0, bonds.start)
            if linear.bias is None:
                message = torch.addmm(start, message, linear.weight.t())
            else:
                message = start + linear(message)
            b = self.dropout(self.activation(message))
        # W [last sum ; a ; initial]; the product with `initial` is computed once per distinct atom.
        by_rest, by_initial = self.communicate.weight.split([2 * a.shape[1], a.shape[1]], dim=1)
        own = take(F.linear(initial, by_initial, self.communicate.bias), graph.kind)
        last = graph.atoms[-1]
        x = torch.cat([sum_times_max(b, last, full), take(a, last.before)], dim=1)
        return take(torch.addmm(own, x, by_rest.t()), graph.place)

    def molecules(self, x: Tensor, batch: MoleculeBatch, order: Reading | PaddedReading | None = None) -> Tensor:
        """Return the molecules' vectors [B, hidden] of atoms [N, hidden]."""
        message = F.relu(x + self.gru_bias)
        h0 = segment_max(x, batch.molecule, len(batch))
        if self.padded:
            message, rows = pad(message, batch.sizes, batch.max_size)
            states = self.gru(message, torch.full_like(batch.here.sizes, batch.max_size), h0).index_select(0, rows)
        else:
            states = self.gru(message, None if batch.fixed else batch.here.sizes, h0, order)
        return segment_mean(self.dropout(self.activation(self.output(states))), batch.molecule, batch.sizes)

    def from_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the released code's state dict as ours."""
        return from_reference_names(tensors, self._names, self.unused)

    def to_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors under the released code's names."""
        return to_reference_names(tensors, self._names)

    def _bond_input(self, batch: MoleculeBatch, graph: MessageGraph) -> Tensor:
        """Return W_b [source atom ; bond] of the first bonds; each part's product runs over distinct vectors."""
        by_atom, by_bond = self.bond_input.weight.split(self.split, dim=1)
        sources = F.linear(batch.node_table, by_atom)
        types = F.linear(batch.edge_table, by_bond, self.bond_input.bias)
        return take(sources, graph.source) + take(types, graph.type)

    @property
    def _names(self) -> list[tuple[str, str]]:
        steps = [(f".messages.{t}.", f".encoder.encoder.W_h_{t}.") for t in range(len(self.messages))]
        return steps + [(f".head.{i}.", f".ffn.{3 * i + 1}.") for i in range(len(self.head))] + _NAMES


def _padded_reading(batch: MoleculeBatch) -> list[Tensor]:
    return list(map(torch.from_numpy, padded_reading(batch.sizes.numpy(), batch.max_size)))


_NAMES = [
    (".head_activation.", ".ffn.2."),
    (".atom_input.", ".encoder.encoder.W_i_atom."),
    (".bond_input.", ".encoder.encoder.W_i_bond."),
    (".communicate.", ".encoder.encoder.lr."),
    (".gru.", ".encoder.encoder.gru.gru."),  # before gru_bias, whose reference name contains ".gru."
    (".gru_bias", ".encoder.encoder.gru.bias"),
    (".output.", ".encoder.encoder.W_o."),
    (".activation.", ".encoder.encoder.act_func."),
]
