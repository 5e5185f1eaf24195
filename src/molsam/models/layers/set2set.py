"""The Set2Set readout (Vinyals, Bengio and Kudlur, ICLR 2016)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
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
        cells = cast("list[nn.LSTMCell]", list(self.cells))
        looks: Iterable[Callable[[Tensor], Tensor]] = [partial(attend, atoms, batch=batch)] * self.steps
        if not atoms.is_cpu:
            looks = _dense(atoms, batch, self.steps)
        for step, look in zip(lstm_steps(cells, self.steps, zero), looks, strict=True):
            query = step(read)
            read = torch.cat([query, look(query)], dim=1)
        return read


def attend(atoms: Tensor, query: Tensor, batch: MoleculeBatch) -> Tensor:
    """Return sum_v softmax_v(h_v . q) h_v over each molecule's atoms, [B, d]; atoms: [N, d]; query: [B, d]."""
    score = (atoms * query.index_select(0, batch.molecule)).sum(1)
    # The shift by the largest score cancels, and so does its gradient.
    largest = score.new_zeros(len(batch)).scatter_reduce(0, batch.molecule, score.detach(), "amax", include_self=False)
    weight = (score - largest.index_select(0, batch.molecule)).exp().unsqueeze(1)
    total = weight.new_zeros(len(batch), 1).index_add(0, batch.molecule, weight)
    weighted = weight * atoms
    return weighted.new_zeros(query.shape).index_add(0, batch.molecule, weighted) / total


def _dense(atoms: Tensor, batch: MoleculeBatch, steps: int) -> Iterator[Callable[[Tensor], Tensor]]:
    """Yield `attend` for each step as one launch on a device, over molecules padded to the largest of the batch.

    It has no second derivatives; nor has cuDNN's LSTM.
    """
    rows, outside = batch.padded
    padded = take(atoms, rows).view(*outside.shape, -1)
    mask = outside[:, None, None].to(atoms.dtype)

    def of(keys: Tensor, values: Tensor, query: Tensor) -> Tensor:
        given = query[:, None, None], keys[:, None], values[:, None]
        found: Tensor = F.scaled_dot_product_attention(*given, attn_mask=mask, scale=1.0)
        return found.flatten(1)

    # One expanded tensor for all uses: autograd then adds up its gradients in one operation.
    uses = padded.expand(2 * steps, *padded.shape).unbind()
    return (partial(of, keys, values) for keys, values in zip(uses[::2], uses[1::2], strict=True))
