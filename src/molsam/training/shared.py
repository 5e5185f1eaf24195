"""The closure, and the exchange of gradients, of a process that has a part of every batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

from molsam.data.api import Batch
from molsam.models.api import ModelOutput
from molsam.training.closure import Closure
from molsam.training.objective import Objective
from molsam.training.together import Together


class SharedClosure(Closure):
    """Computes the loss and gradient of the whole step, of which this process has a part.

    Each process's loss is weighted by its share of the step's labels, so that the mean of DistributedDataParallel is
    the gradient of one large batch. If perturbations are local (`Together.local`), a pass returns the loss and gradient
    of the process's own part on the same scale, without communication.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        precision: str,
        fetch: Callable[[np.ndarray], Batch] | None,
        together: Together,
    ) -> None:
        self.together = together
        self._batches: Sequence[Batch] = ()
        super().__init__(model, objective, precision, fetch)
        self.called = self.joined = together.joined(model)

    @property
    def batches(self) -> Sequence[Batch]:
        """This process's part of the step's batches."""
        return self._batches

    @batches.setter
    def batches(self, batches: Sequence[Batch]) -> None:
        self._batches = batches
        if not batches:
            return
        rank, size = self.together.rank, self.together.size
        self.labels = [0 if one.spare else int(one.mask.count_nonzero()) for one in batches if one.mask is not None]
        rows = [0 if batch.spare else len(batch) for batch in batches]
        sent = torch.zeros(size + 1, dtype=torch.int64)
        sent[rank], sent[size] = sum(rows), sum(self.labels)
        *counts, labels = self.together.summed(sent).tolist()
        self.step_labels = max(labels, 1)
        self.rows = sum(counts[:rank]), sum(counts[: rank + 1]), sum(counts)
        """this process's molecules of the step, from and to, and the number of all of them"""

    def _pass(self, weighted: bool) -> Tensor:
        losses = []
        for place, (batch, count) in enumerate(zip(self.batches, self.labels, strict=True)):
            last = place == len(self.batches) - 1
            with self._summing(last), self._counting(not batch.spare):
                part = self.loss(batch) * (count * self.together.size / self.step_labels)
                part.backward()
            losses.append(part.detach())
        whole = torch.stack(losses).sum()
        if not self.together.local:
            whole = self.together.summed(whole / self.together.size)
        for parameter in self.parameters if weighted else ():
            if parameter.grad is not None:
                parameter.grad *= whole
        return whole

    def _summing(self, last: bool) -> AbstractContextManager[None]:
        """Return a context in which only the last backward pass of a pass exchanges the accumulated gradients."""
        return nullcontext() if last else self.together.without_sums(self.joined)

    @contextmanager
    def _counting(self, counts: bool) -> Iterator[None]:
        """Set whether BatchNorm counts the rows of the passes within the context."""
        self.together.peers.counts = counts
        try:
            yield
        finally:
            self.together.peers.counts = True

    def losses(self, select: Tensor | None = None) -> Tensor:
        """Return the loss of each molecule of the whole step, or of those with the indices `select`; [B].

        See `Closure.losses`. Only the losses of this process's molecules have a graph. Their gradient is multiplied by
        the number of processes, because DistributedDataParallel averages over them.
        """
        if self.together.local:
            return super().losses(select)
        places, own, count = self._mine(select)
        with self._counting(len(own) > 0):
            found = super().losses(None if select is None else _some(own))
        value = found.new_zeros(count).index_put((places,), found[: len(places)])
        total = self.together.summed(value.detach().clone())
        return total + self.together.size * (value - value.detach())

    def weights(self, select: Tensor | None = None) -> Tensor:
        """Return the number of labels, [B], of each molecule of the whole step, or of those at indices `select`."""
        if self.together.local:
            return super().weights(select)
        places, own, count = self._mine(select)
        found = super().weights(_some(own))
        return self.together.summed(found.new_zeros(count).index_put((places,), found[: len(places)]))

    def _mine(self, select: Tensor | None) -> tuple[Tensor, Tensor, int]:
        """Return which of the selected molecules of the step are this process's, their indices in its own batch, and
        the number of all selected ones.
        """
        first, beyond, count = self.rows
        chosen = torch.arange(count) if select is None else select.cpu()
        places = torch.nonzero((chosen >= first) & (chosen < beyond)).flatten()
        device = self.parameters[0].device
        return places.to(device), (chosen[places] - first).to(device), len(chosen)

    def forward(self, batch: Batch, *drawn: Tensor) -> tuple[ModelOutput, Tensor, Tensor]:
        """Return output, targets and mask of one batch, computed through DistributedDataParallel."""
        with self._summing(not self.together.local):
            return super().forward(batch, *drawn)


def _some(places: Tensor) -> Tensor:
    """Return the indices, or index 0 if there are none, because every process must take part in a pass."""
    return places if len(places) else places.new_zeros(1)


class Exchange:
    """Averages the updating gradients of all processes, once per step, if each computes its own perturbation.

    It also averages the model's running statistics, which each process computes from its own part of the batch.
    """

    def __init__(self, model: nn.Module, together: Together) -> None:
        self.together = together
        self.parameters = list(model.parameters())
        self.buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]

    def __call__(
        self, omega: dict[Tensor, Tensor] | None, losses: list[Tensor | None]
    ) -> tuple[dict[Tensor, Tensor], list[Tensor | None]] | None:
        """Return the means over the processes of omega, and of each loss over the processes that have it.

        Returns None if omega is None in one of the processes.
        """
        there = [omega is None, *(omega is not None and p in omega for p in self.parameters)]
        failed, *known = self.together.summed(torch.tensor(there, dtype=torch.int64)).tolist()
        if failed or omega is None:
            return None
        parameters = [p for p, count in zip(self.parameters, known, strict=True) if count]
        means = self._means([omega[p] if p in omega else torch.zeros_like(p) for p in parameters])
        for buffer, mean in zip(self.buffers, self._means(self.buffers), strict=True):
            buffer.copy_(mean)
        values = [0.0 if loss is None else float(loss) for loss in losses]
        numbers = torch.tensor([*values, *(loss is not None for loss in losses)], dtype=torch.float64)
        sums, counts = self.together.summed(numbers).float().view(2, -1)
        found = [total / count if count else None for total, count in zip(sums, counts, strict=True)]
        return dict(zip(parameters, means, strict=True)), found

    def _means(self, own: list[Tensor]) -> list[Tensor]:
        """Return the mean of each tensor over the processes; all tensors of a dtype are sent in one message."""
        means: dict[int, Tensor] = {}
        for dtype in dict.fromkeys(one.dtype for one in own):
            places = [place for place, one in enumerate(own) if one.dtype == dtype]
            sent = torch.cat([own[place].flatten() for place in places])
            parts = (self.together.summed(sent) / self.together.size).split([own[place].numel() for place in places])
            means |= {place: part.view(own[place].shape) for place, part in zip(places, parts, strict=True)}
        return [means[place] for place in range(len(own))]
