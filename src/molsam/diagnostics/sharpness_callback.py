"""Measurement of sharpness and loss landscape at some epochs of a run, for sharpness.jsonl and the loggers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from molsam.data.api import Batch
from molsam.diagnostics.landscape import landscape_1d, landscape_2d
from molsam.diagnostics.sharpness import ball_sharpness, top_eigenvalues, trace
from molsam.diagnostics.surface import Surface
from molsam.errors import ConfigError
from molsam.training.events import Callback

if TYPE_CHECKING:
    from molsam.training.loop import Trainer


class SharpnessDiagnostics(Callback):
    """Writes a line of sharpness.jsonl every few epochs, for the loss on the first training molecules.

    Keys: epoch, step, eigenvalues, trace, trace_error, rho, first_order_rise and maximum_rise (in a ball of radius
    rho), phis, landscape (one row per direction), landscape_2d (if two_d), seconds.

    Args:
        every: number of epochs from one measurement to the next; the last epoch is measured too.
        molecules: number of training molecules in the loss.
        batch_size: number of molecules computed at once.
        rho: radius of the ball.
        eigenvalues: number of largest eigenvalues; 0 for none.
        trace_samples: number of random vectors in the trace estimate; 0 for none.
        ascent_steps: steps of the search in the ball.
        span: the landscape covers phi from -span to span.
        points: number of phis; 0 for no landscape.
        directions: number of random directions of the 1-D landscape.
        two_d: whether to compute the 2-D landscape too, on points x points.
        seed: seed of all random vectors.
    """

    def __init__(
        self,
        every: int = 10,
        molecules: int = 64,
        batch_size: int = 64,
        rho: float = 0.05,
        eigenvalues: int = 1,
        trace_samples: int = 5,
        ascent_steps: int = 5,
        span: float = 1.0,
        points: int = 21,
        directions: int = 3,
        two_d: bool = False,
        seed: int = 0,
    ) -> None:
        for name, value in (("every", every), ("molecules", molecules), ("batch_size", batch_size)):
            if value < 1:
                raise ConfigError(f"diagnostics.sharpness.{name} is {value}; it must be 1 or more.")
        if rho <= 0 or span <= 0:
            raise ConfigError(
                f"diagnostics.sharpness.rho={rho} and diagnostics.sharpness.span={span} must be positive."
            )
        self.every, self.molecules, self.batch_size = every, molecules, batch_size
        self.rho, self.eigenvalues, self.trace_samples = rho, eigenvalues, trace_samples
        self.ascent_steps, self.seed = ascent_steps, seed
        self.phis = np.linspace(-span, span, points).tolist()
        self.directions, self.two_d = directions, two_d

    def on_train_epoch_end(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        """Measure, if it is due at this epoch."""
        epoch = int(metrics["epoch"])
        if (epoch + 1) % self.every and epoch + 1 != trainer.settings.epochs and not trainer.stop:
            return
        noise = torch.get_rng_state()
        line = {"epoch": epoch, "step": trainer.step, **self.measure(self.surface(trainer))}
        torch.set_rng_state(noise)
        for tracker in trainer.trackers:
            tracker.sharpness(line)

    def surface(self, trainer: Trainer) -> Surface:
        """Return the loss on the first training molecules as a function of the weights."""
        rows = trainer.split.train[: self.molecules]
        parts = [rows[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        batches = [trainer.batch(part).to(dtype=torch.float64) for part in parts]

        def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, float]:
            assert batch.targets is not None
            assert batch.mask is not None
            return trainer.objective(model(batch), batch.targets, batch.mask), float(batch.mask.count_nonzero())

        return Surface(trainer.model, batches, loss)

    def measure(self, surface: Surface) -> dict[str, Any]:
        """Return the measurements that the settings select."""
        start = time.perf_counter()
        found: dict[str, Any] = {}
        if self.eigenvalues:
            found["eigenvalues"] = top_eigenvalues(surface, self.eigenvalues, self.seed, 1e-2).tolist()
        if self.trace_samples:
            found["trace"], error = trace(surface, self.trace_samples, self.seed)
            found["trace_error"] = error if self.trace_samples > 1 else None
        rise = ball_sharpness(surface, self.rho, self.ascent_steps, self.seed)
        found |= {"rho": self.rho, "first_order_rise": rise.first_order, "maximum_rise": rise.maximum}
        if self.phis:
            found["phis"] = self.phis
            found["landscape"] = landscape_1d(surface, self.phis, self.directions, self.seed).tolist()
            if self.two_d:
                found["landscape_2d"] = landscape_2d(surface, self.phis, self.phis, self.seed).tolist()
        return {**found, "seconds": time.perf_counter() - start}
