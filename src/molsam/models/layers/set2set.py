"""Set2Set readout: Vinyals, Bengio and Kudlur, ICLR 2016."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from molsam.data.batch import MoleculeBatch
from molsam.models.layers.padding import pad


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
        shape = len(batch), atoms.shape[1]
        states = [(atoms.new_zeros(shape), atoms.new_zeros(shape)) for _ in self.cells]
        query = atoms.new_zeros(shape)
        read = torch.cat([query, query], dim=1)
        summary = partial(attend, atoms, batch=batch) if atoms.is_cpu else _dense(atoms, batch)
        for _ in range(self.steps):
            query = read
            for i, cell in enumerate(self.cells):
                states[i] = cell(query, states[i])
                query = states[i][0]
            read = torch.cat([query, summary(query)], dim=1)
        return read


def _dense(atoms: Tensor, batch: MoleculeBatch) -> Callable[[Tensor], Tensor]:
    """`attend` as three calls, over molecules padded to the largest of the batch: what suits a device."""
    padded, rows = pad(atoms, batch.sizes, batch.max_size)
    padded = padded.view(len(batch), batch.max_size, -1)
    outside = atoms.new_full((len(batch) * batch.max_size,), -torch.inf).index_fill(0, rows, 0)
    outside = outside.view(len(batch), -1, 1)

    def of(query: Tensor) -> Tensor:
        weight = torch.baddbmm(outside, padded, query.unsqueeze(2)).softmax(1)
        return torch.bmm(weight.mT, padded).squeeze(1)

    return of


def attend(atoms: Tensor, query: Tensor, batch: MoleculeBatch) -> Tensor:
    """sum_v softmax_v(h_v . q) h_v over each molecule's atoms: [N, d], [B, d] -> [B, d]."""
    score = (atoms * query.index_select(0, batch.molecule)).sum(1)
    # The shift by the largest score cancels, and so does its gradient.
    largest = score.new_zeros(len(batch)).scatter_reduce(0, batch.molecule, score.detach(), "amax", include_self=False)
    weight = (score - largest.index_select(0, batch.molecule)).exp().unsqueeze(1)
    total = weight.new_zeros(len(batch), 1).index_add(0, batch.molecule, weight)
    weighted = weight * atoms
    return weighted.new_zeros(query.shape).index_add(0, batch.molecule, weighted) / total
