"""Predictions of a trainer's model on molecules of its dataset, by one process or several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from molsam.training.objective import within_bounds
from molsam.training.together import Alone

if TYPE_CHECKING:
    from molsam.training.loop import Trainer


@torch.no_grad()
def predictions(trainer: Trainer, index: np.ndarray, together: Alone) -> tuple[np.ndarray, float]:
    """Return what `Trainer.predict` does. Each process computes some of the batches, and all get the whole result."""
    model, size = trainer.evaluated.eval(), trainer.settings.eval_batch_size
    starts = range(0, len(index), size)
    mine = together.share(starts)
    made, losses, labels = [], [], []
    for start in mine:
        batch = trainer.batch(index[start : start + size])
        output = model(batch)
        assert batch.targets is not None
        assert batch.mask is not None
        labels.append(batch.mask.count_nonzero())
        losses.append(trainer.objective(within_bounds(output, batch), batch.targets, batch.mask))
        made.append(trainer.objective.predict(output))
    # Only here, at the end, the device is waited for.
    values, counts = torch.cat(made).cpu().double(), torch.stack(labels).cpu()
    each = torch.stack(losses).cpu()
    if len(mine) < len(starts):
        values, counts, each = _whole(together, len(index), size, values, counts, each)
    sums = zip(each.tolist(), counts.tolist(), strict=True)
    loss = sum(value * count for value, count in sums) / max(int(counts.sum()), 1)
    found = values.numpy()
    return trainer.scaler.inverse(found) if trainer.dataset.task == "regression" else found, loss


def _whole(
    together: Alone, rows: int, size: int, values: Tensor, counts: Tensor, losses: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return predictions [rows, ...], labels and losses [batches] of all processes.

    Each process contributes zeros for the others' batches, so that the sum is exact.
    """
    batches = range(-(-rows // size))
    mine = torch.tensor(together.share(batches))
    places = torch.cat([torch.arange(batch * size, min((batch + 1) * size, rows)) for batch in mine.tolist()])
    whole = values.new_zeros(rows, *values.shape[1:]).index_copy(0, places, values)
    parts = [one.new_zeros(len(batches)).index_copy(0, mine, one) for one in (counts, losses)]
    together.summed(whole)
    for part in parts:
        together.summed(part)
    return whole, parts[0], parts[1]
