"""dgllife's own GCNPredictor as a model of molsam, to compare trainings; needs dgllife 0.3.2."""

from __future__ import annotations

from collections.abc import Sequence

from dgllife.model import GCNPredictor

from molsam.data.batch import MoleculeBatch
from molsam.models.api import DataSpec, ModelOutput, MoleculeModel


class Predictor(MoleculeModel):
    """GCNPredictor with its own initialisation; the settings of conf/model/gcn.yaml under dgllife's names."""

    def __init__(
        self,
        spec: DataSpec,
        *,
        hidden_sizes: Sequence[int],
        gnn_norm: str,
        residual: bool,
        batch_norm: bool,
        dropout: float,
        head_size: int,
        head_dropout: float,
    ) -> None:
        super().__init__()
        depth = len(hidden_sizes)
        self.predictor = GCNPredictor(
            in_feats=spec.node_dim,
            hidden_feats=list(hidden_sizes),
            gnn_norm=[gnn_norm] * depth,
            residual=[residual] * depth,
            batchnorm=[batch_norm] * depth,
            dropout=[dropout] * depth,
            predictor_hidden_feats=head_size,
            predictor_dropout=head_dropout,
            n_tasks=spec.n_tasks,
        )

    def forward(self, batch: MoleculeBatch) -> ModelOutput:
        """Logits [1, B, T]."""
        return ModelOutput(self.predictor(batch.graph, batch.nodes).unsqueeze(0))
