"""Attention of a trained CoMPT: entropies, and one molecule's map (Figure 10 of the GraphSAM paper)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from molsam.errors import ConfigError
from molsam.files import write_atomic
from molsam.training.events import Callback

NAME = "attention.npz"
BATCH = 64


class AttentionMaps(Callback):
    """Writes attention.npz at the end of training, from the best weights and the test part.

    Its arrays, with entropies in nats:

        entropy       float []: -sum_n p_mn ln p_mn, mean over atoms m of all test molecules, heads and layers
        entropies     float [layers, heads]: the same by layer and head
        map           float [n, n]: p of the molecule shown, mean over layers and heads; row m is what atom m attends to
        maps          float [layers, heads, n, n]: the same by layer and head
        smiles, row   the molecule shown

    p is the model's attention times distance kernel, with each row divided by its sum. The sum is not 1 beforehand,
    because the release combines two softmaxes.

    Args:
        atoms: the molecule shown is the test molecule with the number of atoms nearest to this (of several the first
            one), so that runs of equal split show the same molecule.
    """

    def __init__(self, atoms: int = 24) -> None:
        self.atoms = atoms

    def on_fit_start(self, trainer: Any) -> None:
        """Raise ConfigError before training if the model has no attention maps."""
        if not hasattr(trainer.model, "attention"):
            raise ConfigError(
                f"callbacks=attention needs attention maps, which {type(trainer.model).__name__} does not have; use "
                "model=compt."
            )

    def on_fit_end(self, trainer: Any) -> None:
        """Compute and write the arrays."""
        rows = trainer.split.test
        was_training = trainer.model.training
        trainer.model.eval()
        try:
            arrays = self._measure(trainer, rows)
        finally:
            trainer.model.train(was_training)
        data = io.BytesIO()
        np.savez_compressed(data, **arrays)
        write_atomic(Path(trainer.folder) / NAME, data.getvalue())

    def _measure(self, trainer: Any, rows: np.ndarray) -> dict[str, Any]:
        total: Tensor | None = None
        count, best, shown = 0, None, torch.empty(0)
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            layers = trainer.model.attention(trainer.batch(part))
            for place, row in enumerate(part):
                weights = normalised(torch.stack([layer[place] for layer in layers]))
                summed = entropy(weights).sum(-1)
                total = summed if total is None else total + summed
                n = weights.shape[-1]
                count += n
                rank = (abs(n - self.atoms), int(row))
                if best is None or rank < best:
                    best, shown = rank, weights
        assert total is not None
        assert best is not None
        by_head = (total / count).double().cpu().numpy()
        maps = shown.float().cpu().numpy()
        return {
            "entropy": by_head.mean(),
            "entropies": by_head,
            "map": maps.mean((0, 1)),
            "maps": maps,
            "smiles": np.str_(trainer.dataset.smiles[best[1]]),
            "row": best[1],
        }


def normalised(weights: Tensor) -> Tensor:
    """Return rows divided by their sums, [..., n, n]. A row of zeros stays zero."""
    return weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)


def entropy(weights: Tensor) -> Tensor:
    """Return -sum p ln p of each row in nats, with 0 ln 0 = 0; [..., n, n] -> [..., n]."""
    return torch.special.entr(weights).sum(-1)
