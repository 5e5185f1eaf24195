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

    def forward(self, input: Tensor, real: Tensor | None = None) -> Tensor:  # noqa: A002 - the name torch gives it
        """Return the normalised rows; real: float [n], 0 for rows that do not count (filler), or None if all count."""
        if self.training and real is not None:
            return self._counted(input, real.unsqueeze(1))
        if not self.training:
            return super().forward(input)
        counter, mean, var, rows = self.num_batches_tracked, self.running_mean, self.running_var, input.shape[0]
        assert counter is not None
        assert mean is not None
        assert self.momentum is not None
        if rows == 1:
            return self._normalise(input, mean, var, training=False)
        running = (mean, var) if self.track_running_stats else (None, None)
        if self.track_running_stats:
            counter.add_(1)
        if rows <= FEW or not input.is_cpu:
            return self._normalise(input, *running, training=True)
        shift = input.detach().sum(0).mul_(1 / rows)
        normalised = self._normalise(input - shift, *running, training=True)
        if self.track_running_stats:
            mean.data.add_(shift, alpha=self.momentum)  # saved for backward, but not read there
        return normalised

    def _counted(self, rows: Tensor, real: Tensor) -> Tensor:
        """Normalise by the mean and variance of some rows; their number is not known to the CPU. real: float [n, 1]."""
        assert self.momentum is not None
        rows = rows.to(self.weight.dtype)
        count = real.sum()
        mean = (rows * real).sum(0) / count
        variance = ((rows - mean).square() * real).sum(0) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            several = count > 1
            kept = torch.stack([self.running_mean, self.running_var])  # a copy: a single row is normalised by it
            unbiased = variance.detach() * (count / (count - 1).clamp(min=1))
            step = several.to(kept.dtype) * self.momentum
            self.running_mean.lerp_(mean.detach(), step)
            self.running_var.lerp_(unbiased, step)
            self.num_batches_tracked.add_(several)
            mean, variance = torch.where(several, mean, kept[0]), torch.where(several, variance, kept[1])
        return (rows - mean) * ((variance + self.eps).rsqrt() * self.weight) + self.bias

    def _normalise(self, rows: Tensor, mean: Tensor | None, var: Tensor | None, *, training: bool) -> Tensor:
        assert self.momentum is not None
        return torch.batch_norm(rows, self.weight, self.bias, mean, var, training, self.momentum, self.eps, True)
