"""Set2Set readout: Vinyals, Bengio and Kudlur, ICLR 2016."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from molsam.data.batch import MoleculeBatch
from molsam.models.layers.recurrent import lstm_steps
from molsam.models.layers.segment import take


class Set2Set(nn.Module):
    """Atoms [N, d] -> molecules [B, 2d], independent of the atoms' order.

    q* = 0; `steps` times: q = LSTM(q*), alpha = softmax over the molecule's atoms of h_v . q,
    q* = [q ; sum_v alpha_v h_v]. The LSTM has n_layers layers and starts from zero.
    """

    def __init__(self, width: int, *, steps: int, n_layers: int) -> None:
        super().__init__()
        self.steps = steps
        self.cells = nn.ModuleList(nn.LSTMCell(width if layer else 2 * width, width) for layer in range(n_layers))

    def forward(self, atoms: Tensor, batch: MoleculeBatch) -> Tensor:
        zero = atoms.new_zeros(len(batch), atoms.shape[1])
        read = torch.cat([zero, zero], dim=1)
        rows, outside = batch.padded
        outside = outside.to(atoms.dtype)
        padded = take(atoms, rows).view(*outside.shape, -1)
        # What each use leaves as a gradient is added up at once.
        uses = padded.expand(2 * self.steps, *padded.shape).unbind()
        cells = cast("list[nn.LSTMCell]", list(self.cells))
        for step, keys, values in zip(lstm_steps(cells, self.steps, zero), uses[::2], uses[1::2], strict=True):
            query = step(read)
            read = torch.cat([query, attend(query, keys, values, outside)], dim=1)
        return read


def attend(query: Tensor, keys: Tensor, values: Tensor, outside: Tensor) -> Tensor:
    """sum_v softmax_v(k_v . q) v_v over each molecule's atoms, [B, d]; keys, values [B, n, d]; outside [B, n]: -inf beyond
    the atoms, else 0."""
    if not query.is_cpu:  # one launch, without second derivatives, which cuDNN's LSTM does not have either
        mask = outside[:, None, None].to(query.dtype)
        given = query[:, None, None], keys[:, None], values[:, None]
        found: Tensor = F.scaled_dot_product_attention(*given, attn_mask=mask, scale=1.0)
        return found.flatten(1)
    weight = torch.baddbmm(outside.unsqueeze(2), keys, query.unsqueeze(2)).softmax(1)
    return torch.bmm(weight.mT, values).squeeze(1)
