"""Processes that train one run together, by torch.distributed: each has a part of every batch.

`Alone` stands in its place for a run of one process. All processes make the same steps in the same order. They agree on
everything that one of them alone could decide (after a signal, by the clock, in a callback).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from molsam.data.api import Batch, Dataset
from molsam.models.layers.synced import Peers, synced
from molsam.training import checkpoint


class Alone:
    """A run of a single process."""

    rank = 0
    size = 1
    local = False
    """whether each process perturbs the weights by its own part's gradient"""

    def prepared(self, model: nn.Module) -> nn.Module:
        """Return the model, changed where several processes need it. Called before the optimizer is built."""
        return model

    def batches(self, dataset: Dataset, rows: np.ndarray, size: int, scaler: Any) -> Sequence[Batch]:
        """Return this process's part of each batch of `size` rows."""
        return dataset.batches(rows, size, scaler)

    def largest(self, *values: int) -> tuple[int, ...]:
        """Return the largest of each value over all processes."""
        return values

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """Return the items for which this process computes the results, which are then `summed`."""
        return items

    def summed(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes in place, and return it."""
        return tensor

    def gathered(self, own: Callable[[], Any]) -> list[Any]:
        """Return the other processes' own states, for the checkpoint."""
        return []

    def broadcast(self, tree: Any) -> Any:
        """Return the first process's tree in all processes."""
        return tree


class Together(Alone):
    """One of several processes of the default process group.

    If `local`, which a run's settings choose, each process perturbs by the gradient of its own part (m-sharpness, Foret
    et al., ICLR 2021, section 3) instead of that of the whole batch. Updates use the gradient of the whole batch in
    either case.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.peers = Peers(dist.new_group(), self.size)

    def prepared(self, model: nn.Module) -> nn.Module:
        """Return the model; its BatchNorm uses the whole batch, unless each process perturbs by its own part."""
        if not self.local:
            synced(model, self.peers)
        return model

    def joined(self, model: nn.Module) -> nn.Module:
        """Return DistributedDataParallel around the model. All processes get the first one's weights."""
        # A part of a batch may not reach every parameter (ESAM freezes some, a molecule may have no bonds).
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # not all versions have the new name of broadcast_buffers
            return nn.parallel.DistributedDataParallel(
                _Joined(model), broadcast_buffers=False, find_unused_parameters=True
            )

    def without_sums(self, joined: nn.Module) -> AbstractContextManager[None]:
        """Return a context in which backward passes do not exchange gradients."""
        assert isinstance(joined, nn.parallel.DistributedDataParallel)
        return joined.no_sync()

    def part(self, count: int) -> tuple[int, int]:
        """Return which of `count` consecutive rows are this process's: from, to."""
        return self.rank * count // self.size, (self.rank + 1) * count // self.size

    def batches(self, dataset: Dataset, rows: np.ndarray, size: int, scaler: Any) -> Sequence[Batch]:
        """Return this process's part of each batch of `size` rows; a filler batch if there are too few rows."""
        full = len(rows) // size
        start, stop = self.part(size)
        made = list[Batch]()
        if full:
            own = rows[: full * size].reshape(full, size)[:, start:stop]
            made += dataset.batches(own.reshape(-1), stop - start, scaler)
        if len(rest := rows[full * size :]):
            start, stop = self.part(len(rest))
            batch = dataset.batches(rest[start : max(stop, start + 1)], size, scaler)[0]
            if start == stop:
                batch.spare = True
            made.append(batch)
        return made

    def largest(self, *values: int) -> tuple[int, ...]:
        """Return the largest of each value over all processes."""
        shared = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return tuple(shared.tolist())

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """Return every n-th item, n the number of processes; all of them if there are fewer items than processes."""
        return items[self.rank :: self.size] if len(items) >= self.size else items

    def summed(self, tensor: Tensor) -> Tensor:
        """Sum a tensor over all processes in place, and return it."""
        dist.all_reduce(tensor)
        return tensor

    def gathered(self, own: Callable[[], Any]) -> list[Any]:
        """Return the other processes' own states in the first process; an empty list in the others."""
        data = torch.frombuffer(bytearray(checkpoint.encode(own())), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(data)]))
        longest = max(map(int, lengths))
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(data)] = data
        found = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(found, padded)
        if self.rank:
            return []
        whole = zip(found[1:], lengths[1:], strict=True)
        return [checkpoint.decode(bytes(one[: int(n)].numpy()), "a process's state") for one, n in whole]

    def broadcast(self, tree: Any) -> Any:
        """Return the first process's tree of tensors and plain values in all processes."""
        data = checkpoint.encode(tree) if self.rank == 0 else b""
        length = torch.tensor([len(data)])
        dist.broadcast(length, 0)
        sent = (
            torch.frombuffer(bytearray(data), dtype=torch.uint8)
            if data
            else torch.empty(int(length), dtype=torch.uint8)
        )
        dist.broadcast(sent, 0)
        return tree if self.rank == 0 else checkpoint.decode(bytes(sent.numpy()), "the first process's state")


class _Joined(nn.Module):
    """A model and an unused parameter, without which DistributedDataParallel warns that it searches for one in vain."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.unreached = nn.Parameter(torch.zeros(1, device=next(model.parameters()).device))

    def forward(self, batch: Any) -> Any:
        return self.model(batch)
