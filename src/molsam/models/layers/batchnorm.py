"""Batch normalisation that also takes a batch of one."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm1d [n, d] -> [n, d]; rows are molecules or atoms.

    A training batch of one row has no variance, and torch refuses it. Such a batch (the remainder of an
    epoch, a dataset of one-atom molecules) is normalised with the running statistics and leaves them alone.
    In training the kernel is called without torch's checks around it, which cost a third as much.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name torch gives it
        if not self.training or (len(input) > 1 and not self.track_running_stats):
            return super().forward(input)
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        train = len(input) > 1
        if train:
            self.num_batches_tracked.add_(1)
        return torch.batch_norm(
            input, self.weight, self.bias, self.running_mean, self.running_var, train, self.momentum, self.eps, True
        )
