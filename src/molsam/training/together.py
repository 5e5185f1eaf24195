"""Processes that train one run together, by torch.distributed: each takes its part of every batch.

`Alone` is what a run of one process has in its place. All processes do the same steps in the same order; whatever
one of them would decide by itself (a signal, the clock, a callback) they agree on.
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
    """One process: there is nobody to agree with."""

    rank = 0
    size = 1
    local = False
    """whether each process perturbs the weights by its own gradient"""

    def prepared(self, model: nn.Module) -> nn.Module:
        """The model, before there is an optimizer of it."""
        return model

    def batches(self, dataset: Dataset, rows: np.ndarray, size: int, scaler: Any) -> Sequence[Batch]:
        """This process's part of each batch of `size` rows."""
        return dataset.batches(rows, size, scaler)

    def most(self, *values: int) -> tuple[int, ...]:
        """The largest of each value over all processes."""
        return values

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """The items that this process computes where the results of all are `summed`."""
        return items

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        return tensor

    def gathered(self, own: Callable[[], Any]) -> list[Any]:
        """What the other processes have of their own, for the checkpoint."""
        return []

    def told(self, tree: Any) -> Any:
        """What the first process has, at all of them."""
        return tree


class Together(Alone):
    """One of several processes of the default process group.

    `local`, which the settings of a run say: perturb by each process's own gradient (m-sharpness, Foret et al., ICLR 2021,
    section 3) instead of by that of the whole batch. Updates are by the gradient of the whole batch in either case.
    """

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.peers = Peers(dist.new_group(), self.size)

    def prepared(self, model: nn.Module) -> nn.Module:
        """The model, its BatchNorm over the whole batch unless each process perturbs by its own part."""
        if not self.local:
            synced(model, self.peers)
        return model

    def joined(self, model: nn.Module) -> nn.Module:
        """DistributedDataParallel around the model, which takes the weights of the first process."""
        # A part of a batch may not reach every parameter (ESAM freezes some, a molecule may have no bonds).
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the new name of broadcast_buffers is not in all versions
            return nn.parallel.DistributedDataParallel(
                _Joined(model), broadcast_buffers=False, find_unused_parameters=True
            )

    def without_sums(self, joined: nn.Module) -> AbstractContextManager[None]:
        """Backward passes inside leave each process its own gradient."""
        assert isinstance(joined, nn.parallel.DistributedDataParallel)
        return joined.no_sync()

    def part(self, count: int) -> tuple[int, int]:
        """Which of `count` rows in a row are this process's: from, to."""
        return self.rank * count // self.size, (self.rank + 1) * count // self.size

    def batches(self, dataset: Dataset, rows: np.ndarray, size: int, scaler: Any) -> Sequence[Batch]:
        """This process's part of each batch of `size` rows; where there are too few rows, a spare one."""
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

    def most(self, *values: int) -> tuple[int, ...]:
        """The largest of each value over all processes."""
        shared = torch.tensor(values, dtype=torch.int64)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return tuple(shared.tolist())

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """Every so manyth item; all of them if there are too few for all processes."""
        return items[self.rank :: self.size] if len(items) >= self.size else items

    def summed(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        dist.all_reduce(tensor)
        return tensor

    def gathered(self, own: Callable[[], Any]) -> list[Any]:
        """What the other processes have of their own, at the first; an empty list at the others."""
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

    def told(self, tree: Any) -> Any:
        """What the first process has, at all of them: tensors and plain values."""
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
    """A model and a parameter that no pass reaches: without one DistributedDataParallel warns that it looks in vain."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.unreached = nn.Parameter(torch.zeros(1, device=next(model.parameters()).device))

    def forward(self, batch: Any) -> Any:
        return self.model(batch)
