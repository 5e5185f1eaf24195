"""Averages of the weights over training (torch.optim.swa_utils), which find flat minima with one pass per step.

    ema   after each step: average <- decay average + (1 - decay) weights
          (Polyak and Juditsky 1992, with a fixed window)
    swa   the mean of the weights at the ends of the last epochs (Izmailov et al., UAI 2018)

Training continues from the weights themselves. Buffers are averaged like weights, instead of recomputing BatchNorm's
statistics in a pass over the data.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import swa_utils

from molsam.config.schema import TrainingConfig


class Average:
    """Average of a model's weights as in the settings training.average, average_decay and average_start.

    Args:
        model: its weights are read, never written.
        settings: the checked training section; `average` is "ema" or "swa".
    """

    def __init__(self, model: nn.Module, settings: TrainingConfig) -> None:
        self.model, self.each_step = model, settings.average == "ema"
        self.first = 0.0 if self.each_step else settings.average_start * settings.epochs
        """first epoch that enters the average"""
        rule: dict[str, Any] = {"avg_fn": swa_utils.get_swa_avg_fn()}  # multi_avg_fn fails on BatchNorm's batch counter
        if self.each_step:
            rule = {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(settings.average_decay)}
        self.averaged = swa_utils.AveragedModel(model, use_buffers=True, **rule)

    @property
    def count(self) -> int:
        """Number of weights that were averaged."""
        return int(self.averaged.n_averaged)

    @property
    def current(self) -> nn.Module:
        """The averaged model; the model itself before there is an average."""
        module: nn.Module = self.averaged.module
        return module if self.count else self.model

    def end_step(self) -> None:
        """Add the weights after a step to an average over all steps."""
        if self.each_step:
            self.averaged.update_parameters(self.model)

    def end_epoch(self, epoch: int) -> bool:
        """Add the weights after an epoch to an average over the last epochs; return whether they are its first ones."""
        if self.each_step or epoch < self.first:
            return False
        self.averaged.update_parameters(self.model)
        return self.count == 1

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs."""
        return dict(self.averaged.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.averaged.load_state_dict(state)
