"""GCN (Kipf and Welling, ICLR 2017) with a weighted-sum-and-max readout, as dgllife's GCNPredictor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.data.batch import MoleculeBatch
from molsam.errors import ConfigError
from molsam.models.api import DataSpec, ModelOutput, MoleculeModel
from molsam.models.layers.batchnorm import BatchNorm
from molsam.models.layers.neighbours import NeighbourSum
from molsam.models.layers.readout import weighted_sum_and_max
from molsam.models.layers.segment import take
from molsam.models.naming import from_reference_names, to_reference_names

NORMS = ("none", "right", "both")


class GCNLayer(nn.Module):
    """h -> BatchNorm(Dropout(relu(norm(A h) W + b) + relu(h W_res + b_res))).

    A sums over the bonds that enter an atom. A degree of 0 counts as 1, so the message of an atom without bonds is
    relu(b).
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        *,
        gnn_norm: str,
        residual: bool,
        batch_norm: bool,
        dropout: float,
    ) -> None:
        super().__init__()
        self.gnn_norm = gnn_norm
        self.dropout = dropout
        self.conv = nn.Linear(width_in, width_out)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)
        self.residual = nn.Linear(width_in, width_out) if residual else None
        self.batch_norm = BatchNorm(width_out) if batch_norm else None

    def forward(self, hidden: Tensor, batch: MoleculeBatch, kind: Tensor | None = None) -> Tensor:
        """Return atoms [N, width_out] of atoms [N, width_in].

        With `kind` (int64 [N]) `hidden` has only distinct atoms, and atom v is its row kind[v]. The products then run
        over these few rows. The sums over neighbours follow the products, because A (h W) = (A h) W.
        """
        conv, residual, norm = self.conv, self.residual, self.batch_norm  # a module's attributes are slow to read
        if residual is not None and not hidden.is_cpu:
            out = self._at_once(residual, hidden, batch, kind)
        elif kind is None:
            out = torch.relu_(conv(self.aggregate(hidden, batch)))
        else:
            out = torch.relu_(self.aggregate(F.linear(hidden, conv.weight), batch, kind) + conv.bias)
        if residual is not None and hidden.is_cpu:
            own = torch.relu_(residual(hidden))
            out = out + (own if kind is None else take(own, kind))
        if self.dropout:
            out = F.dropout(out, self.dropout, self.training)
        normalised: Tensor = out if norm is None else norm(out, batch.real_atoms)
        return normalised

    def _at_once(self, residual: nn.Linear, hidden: Tensor, batch: MoleculeBatch, kind: Tensor | None) -> Tensor:
        """Return the output before dropout with a third fewer launches, for a device, whose time goes into launches."""
        rows = F.linear(hidden, torch.cat([self.conv.weight, residual.weight]))
        rows, width = rows if kind is None else take(rows, kind), self.conv.out_features
        scale = None
        if self.gnn_norm != "none":
            scale = F.pad(self._scale(batch, rows.dtype).expand(-1, width), (0, width), value=1.0)
            rows = rows if self.gnn_norm == "right" else rows * scale
        rows = NeighbourSum.apply(rows.view(-1, width), *batch.neighbours_and_own).view(rows.shape)
        rows = (rows if scale is None else rows * scale) + torch.cat([self.conv.bias, residual.bias])
        return torch.relu(rows.view(len(rows), 2, -1)).sum(1)

    def aggregate(self, rows: Tensor, batch: MoleculeBatch, kind: Tensor | None = None) -> Tensor:
        """Return norm(A h): the plain sum, the mean over entering bonds, or the symmetric D^-1/2 A D^-1/2 h.

        With `kind`, row v of h is rows[kind[v]].
        """
        graph = batch.neighbours, batch.neighbour_offsets
        if self.gnn_norm == "none":
            summed: Tensor = NeighbourSum.apply(rows, *graph, kind)
            return summed
        rows, scale = rows if kind is None else take(rows, kind), self._scale(batch, rows.dtype)
        summed = NeighbourSum.apply(rows if self.gnn_norm == "right" else rows * scale, *graph)
        return summed * scale

    def _scale(self, batch: MoleculeBatch, dtype: torch.dtype) -> Tensor:
        """Return 1 / degree or its square root, [N, 1]; a degree of 0 counts as 1."""
        degree = batch.neighbour_offsets.diff().clamp(min=1).to(dtype).unsqueeze(1)
        return 1 / degree if self.gnn_norm == "right" else degree.rsqrt()


class GCN(MoleculeModel):
    """Graph convolutions, then [sum_v sigmoid(w h_v + b) h_v ; max_v h_v] and a perceptron with BatchNorm.

    hidden_sizes: width of each layer. gnn_norm: "none", "right" or "both". residual, batch_norm, dropout: of every
    layer; gnn_norm, residual and batch_norm may be lists with one entry per layer. head_size, head_dropout: the
    head's hidden width and the dropout before it. Raises ConfigError for an unknown norm or a list of wrong length.
    """

    readers = ("head.0",)

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden_sizes: Sequence[int] = (64, 64),
        gnn_norm: str | Sequence[str] = "none",
        residual: bool | Sequence[bool] = True,
        batch_norm: bool | Sequence[bool] = True,
        dropout: float = 0.0,
        head_size: int = 128,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        depth = len(hidden_sizes)
        norms = _per_layer("gnn_norm", gnn_norm, depth)
        if unknown := [n for n in norms if n not in NORMS]:
            raise ConfigError(f"model.gnn_norm is {unknown[0]!r}; choose one of {', '.join(NORMS)}.")
        settings = zip(
            [spec.node_dim, *hidden_sizes[:-1]],
            hidden_sizes,
            norms,
            _per_layer("residual", residual, depth),
            _per_layer("batch_norm", batch_norm, depth),
            strict=True,
        )
        self.layers = nn.ModuleList(
            GCNLayer(i, o, gnn_norm=norm, residual=res, batch_norm=bn, dropout=dropout)
            for i, o, norm, res, bn in settings
        )
        self.weighting = nn.Linear(hidden_sizes[-1], 1)
        self.head = nn.Sequential(
            nn.Dropout(head_dropout),
            nn.Linear(2 * hidden_sizes[-1] + spec.descriptor_dim, head_size),
            nn.ReLU(),
            BatchNorm(head_size),
            nn.Linear(head_size, spec.n_tasks),
        )

    def encode(self, batch: MoleculeBatch) -> Tensor:
        """Return the atoms after the last layer, [N, d]."""
        first, *others = self.layers
        hidden: Tensor = first(batch.node_table, batch, batch.node_type)
        for layer in others:
            hidden = layer(hidden, batch)
        return hidden

    def readout(self, hidden: Tensor, batch: MoleculeBatch) -> Tensor:
        """Return the molecules' vectors [B, 2d] of atoms [N, d]."""
        weighting = self.weighting
        w, b = weighting.weight, weighting.bias
        return weighted_sum_and_max(hidden.to(w.dtype), w, b, batch.molecule, batch.offsets, batch.max_size)

    def forward(self, batch: MoleculeBatch) -> ModelOutput:
        """Return logits [1, B, T]."""
        vector = self.readout(self.encode(batch), batch)
        if batch.descriptors is not None:
            vector = torch.cat([vector, batch.descriptors], dim=1)
        for layer in self.head:
            vector = layer(vector, batch.real) if isinstance(layer, BatchNorm) else layer(vector)
        return ModelOutput(vector.unsqueeze(0))

    def from_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the state dict of dgllife's GCNPredictor as ours; it stores graph_conv weights as [in, out]."""
        turned = {k: v.T if k.endswith("graph_conv.weight") else v for k, v in tensors.items()}
        return from_reference_names(turned, _NAMES, self.unused)

    def to_reference(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return our tensors under GCNPredictor's names."""
        named = to_reference_names(tensors, _NAMES)
        return {k: v.T if k.endswith("graph_conv.weight") else v for k, v in named.items()}


_NAMES = [
    (".layers.", ".gnn.gnn_layers."),
    (".conv.", ".graph_conv."),
    (".residual.", ".res_connection."),
    (".batch_norm.", ".bn_layer."),
    (".weighting.", ".readout.weight_and_sum.atom_weighting.0."),
    (".head.", ".predict.predict."),
]


def _per_layer(name: str, value: Any, depth: int) -> list[Any]:
    """Return a setting as a list with one entry per layer."""
    if isinstance(value, (str, bool)):
        return [value] * depth
    if len(value) != depth:
        raise ConfigError(f"model.{name} has {len(value)} entries for {depth} layers; give one value or {depth}.")
    return list(value)
