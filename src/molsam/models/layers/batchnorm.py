"""Batch normalisation that also accepts a batch of one row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FEW = 64
"""number of rows up to which adding one by one in float32 is exact enough"""


class BatchNorm(nn.BatchNorm1d):
    """BatchNorm1d [n, d] -> [n, d]; rows are molecules or atoms.

    A training batch of one row has no variance, and torch refuses it. Such a batch (the remainder of an epoch, or a
    dataset of one-atom molecules) is normalised with the running statistics, which it does not update.

    In training the kernel is called without torch's checks, which would add a third to its time. The CPU kernel adds a
    column's rows one by one in float32; for 400 atoms the error of the mean shifts every row by up to 1e-5. Rows are
    therefore shifted to a mean near zero first, which makes the error negligible and does not change the result.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name torch gives it
        if not self.training:
            return super().forward(input)
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None
        assert self.momentum is not None
        if len(input) == 1:
            return self._normalise(input, self.running_mean, self.running_var, training=False)
        running = (self.running_mean, self.running_var) if self.track_running_stats else (None, None)
        if self.track_running_stats:
            self.num_batches_tracked.add_(1)
        if len(input) <= FEW or not input.is_cpu:
            return self._normalise(input, *running, training=True)
        shift = input.detach().sum(0).mul_(1 / len(input))
        normalised = self._normalise(input - shift, *running, training=True)
        if self.track_running_stats:
            self.running_mean.data.add_(shift, alpha=self.momentum)  # saved for backward, but not read there
        return normalised

    def _normalise(self, rows: Tensor, mean: Tensor | None, var: Tensor | None, *, training: bool) -> Tensor:
        assert self.momentum is not None
        return torch.batch_norm(rows, self.weight, self.bias, mean, var, training, self.momentum, self.eps, True)
