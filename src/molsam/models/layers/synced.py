"""Batch normalisation over a batch that is divided among several processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class Peers:
    """The processes that normalise together; a copy of a module shares them.

    Args:
        group: a separate process group, so that its sums do not mix with those of gradients; None: the default group.
        size: number of processes in the group.
    """

    def __init__(self, group: Any, size: int) -> None:
        self.group, self.size = group, size
        self.counts = True
        """whether this process's rows count for the mean and variance; if not, they are only normalised"""

    def __deepcopy__(self, memo: dict[int, Any]) -> Peers:
        return self

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over the processes; its gradient is the sum of their gradients."""
        result: Tensor = _Sum.apply(tensor, self.group)
        return result


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = tensor.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class SyncedBatchNorm(_BatchNorm):
    """BatchNorm [n, d, ...] -> [n, d, ...] by the mean and variance over the rows of all processes.

    torch's own SyncBatchNorm works only on GPUs. A batch of one row is normalised by the running statistics, as in
    `BatchNorm`.
    """

    peers: Peers

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        """Accept any shape."""

    def forward(self, input: Tensor, real: None = None) -> Tensor:  # noqa: A002 - the name torch gives it
        """Return the normalised rows; real: as in `BatchNorm`, and None, because filler goes with one process."""
        assert real is None
        if not self.training:
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        counts = float(self.peers.counts)
        rows = torch.tensor([counts * (input.numel() // input.shape[1])], dtype=torch.float64)
        dist.all_reduce(rows, group=self.peers.group)
        total = float(rows)
        if total <= 1:
            return nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        mean = self.peers.sum(counts * input.sum(axes)) / total
        centred = input - mean.view(shape)
        variance = self.peers.sum(counts * centred.square().sum(axes)) / total
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * (total / (total - 1)))
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if not self.affine:
            return normalised
        return normalised * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), self.momentum)


def synced(model: nn.Module, peers: Peers) -> None:
    """Make every BatchNorm of a model normalise over all processes; its parameters stay the same objects."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, SyncedBatchNorm):
                twin = SyncedBatchNorm.__new__(SyncedBatchNorm)
                twin.__dict__.update(child.__dict__)
                twin.peers = peers
                setattr(parent, name, twin)
