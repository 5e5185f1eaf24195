"""The training loop: one for every model, optimizer and dataset."""

from __future__ import annotations

import gc
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from molsam.config.identity import Identity
from molsam.config.schema import TrainingConfig
from molsam.data.api import Batch, Dataset
from molsam.data.batch import MoleculeBatch
from molsam.data.padded import Padding
from molsam.data.scaler import TargetScaler
from molsam.data.split import Split
from molsam.errors import ConfigError, NumericalError, StorageError
from molsam.training import checkpoint, graphs, provenance, state
from molsam.training.average import Average
from molsam.training.clock import Clock
from molsam.training.closure import Closure
from molsam.training.evaluation import predictions
from molsam.training.events import Callback
from molsam.training.graphs import GraphClosure
from molsam.training.interrupt import Interrupts
from molsam.training.judge import LAST, Judge
from molsam.training.late import last_epochs
from molsam.training.metrics import Scores, better
from molsam.training.objective import Objective
from molsam.training.shared import SharedClosure
from molsam.training.together import Alone, Together
from molsam.training.tracker import Tracker

log = logging.getLogger(__name__)
AHEAD = 32
"""Number of steps whose batches are assembled together, to amortise the cost of cold processor caches."""
DTYPES = {"fp32": torch.float32, "bf16": torch.float32, "fp64": torch.float64}


class Trainer:
    """Trains a model on a split, keeps the best epoch by the validation metric, and resumes exactly.

    The order of the molecules is a pure function of (seed, fold, epoch). All other random numbers come from torch's
    generators, whose states are in the checkpoint. `augment` changes each training batch, once per step.
    `together` are the processes that train this run; the batch size counts the molecules of all of them.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Any,
        dataset: Dataset,
        split: Split,
        scaler: TargetScaler,
        objective: Objective,
        settings: TrainingConfig,
        lr_schedule: Any,
        seed: tuple[int, int],
        folder: Path,
        trackers: Sequence[Tracker] = (),
        callbacks: Sequence[Callback] = (),
        diagnostics: Any | None = None,
        config: dict[str, Any] | None = None,
        augment: Callable[[Any], Any] | None = None,
        identity: Identity | None = None,
        together: Alone | None = None,
    ) -> None:
        self.model, self.optimizer, self.dataset = model, optimizer, dataset
        self.split, self.scaler, self.objective = split, scaler, objective
        self.settings, self.lr_schedule, self.seed = settings, lr_schedule, seed
        self.folder, self.trackers, self.callbacks = folder, trackers, callbacks
        self.diagnostics, self.config = diagnostics, config or {}
        self.metric, self.judge = dataset.metric, Judge(dataset, split)
        self.augment, self.identity = augment, identity
        self.together = together or Alone()
        given = model, objective, settings.precision, None if augment else self.batch
        self.closure = (
            SharedClosure(*given, self.together)
            if isinstance(self.together, Together)
            else Closure(*given, settings.compile)
        )
        self.padding: Padding | None = None
        if settings.graphs:
            self.padding = graphs.padding(model, dataset, split.train, settings.batch_size)
            optimizer.in_place, device = True, torch.device(settings.device)
            if device.type != "cpu":
                dtype = DTYPES[settings.precision]
                self.closure = GraphClosure(model, objective, settings.precision, device, dtype)
        self.steps_per_epoch = steps_per_epoch(len(split.train), settings)
        self.base_lr = [group["lr"] for group in optimizer.param_groups]
        self.clock = Clock()
        self.epoch = self.step = self.steps_skipped = 0
        self.loss: Tensor | float = math.nan
        self.totals: dict[str, float] = {}
        self.best: dict[str, Any] = {"epoch": None, "value": None, "weights": None}
        self.average = Average(model, settings) if settings.average else None
        self.tests: dict[int, float] = {}
        """epoch -> test metric, for the epochs that were evaluated on the test part; never used for selection"""
        self.stop = False
        self.begun = self.saved_at = time.monotonic()
        self.earlier = 0.0
        """seconds that interrupted processes spent on the run, up to its last checkpoint"""

    @property
    def checkpoint_path(self) -> Path:
        """The newest checkpoint of the run."""
        return self.folder / "last" / "checkpoint.safetensors"

    def fit(self, interrupts: Interrupts | None = None) -> None:
        """Train to the end. Afterwards the model has the best epoch's weights."""
        trackers = self._resume()
        if interrupts is not None:
            interrupts.deferred = True
        for place, tracker in enumerate(self.trackers):
            # A resume may have another logger than the run it continues.
            tracker.start(self.config, trackers[place] if place < len(trackers) else {})
        self.judge.warn()
        self._each("on_fit_start")
        self.saved_at = time.monotonic()
        gc.freeze()  # otherwise garbage collection scans all imported modules, 0.1 s every thousand steps
        try:
            self._train(interrupts)
        finally:
            gc.unfreeze()
        if self.steps_skipped:
            log.warning(
                "%d of %d steps were skipped, because a loss or gradient was not finite; lower base_optimizer.lr or "
                "optimizer.rho.",
                self.steps_skipped,
                self.step,
            )
        if self.best["weights"] is not None:
            self.model.load_state_dict(self.best["weights"])
        self.average = None  # the best epoch's weights are averages already
        self._each("on_fit_end")

    def _train(self, interrupts: Interrupts | None) -> None:
        """Train the remaining epochs."""
        while self.epoch < self.settings.epochs and not self.stop:
            self._train_epoch(interrupts)
            self._end_epoch()
            self.epoch += 1
            stop, due = self.together.largest(self.stop, self._is_due())
            self.stop = bool(stop)
            if due and not self.stop and self.epoch < self.settings.epochs:
                self._save_and_go_on()

    def _resume(self) -> list[dict[str, Any]]:
        """Load the newest checkpoint, if there is one; return the states of its trackers."""
        saved = checkpoint.load(self.checkpoint_path) if self.together.rank == 0 else None
        if saved is not None:
            provenance.check(self, saved["made_from"])
        saved = self.together.broadcast(saved)
        if saved is None:
            return []
        try:
            self.load_state_dict(saved)
            trackers = list(saved["trackers"])
        except ConfigError as error:
            raise StorageError(f"{self.checkpoint_path}: {error} Or start again with overwrite=true.") from error
        except (LookupError, RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise StorageError(
                f"{self.checkpoint_path} does not fit this run ({type(error).__name__}: {str(error).splitlines()[0]}); "
                "start again with overwrite=true, or continue with the version of molsam that wrote it."
            ) from error
        return trackers

    def batch(self, index: np.ndarray) -> Batch:
        """Return molecules of the dataset as a batch, targets scaled, on the device and in the precision of the run."""
        return self._placed(self.dataset.batch(index, self.scaler))

    def steps(self, order: np.ndarray, first: int = 0) -> Iterator[list[Batch]]:
        """Yield the batches of each step of an epoch over the molecules `order`, from step `first` on."""
        size, stride = self.settings.batch_size, self.settings.batch_size * self.settings.accumulate
        for start in range(first * stride, len(order), AHEAD * stride):
            made = self.together.batches(self.dataset, order[start : start + AHEAD * stride], size, self.scaler)
            for batch in range(0, len(made), self.settings.accumulate):
                yield [self._placed(one, self.padding) for one in made[batch : batch + self.settings.accumulate]]

    def _placed(self, batch: Batch, padding: Padding | None = None) -> Batch:
        dtype = DTYPES[self.settings.precision]
        if dtype == torch.float64:  # the batch's own targets are float32
            labels = self.scaler.transform(self.dataset.targets[batch.index.numpy()])
            batch.targets = torch.from_numpy(np.nan_to_num(labels))
        if padding is not None:
            batch = padding(cast("MoleculeBatch", batch))
            if isinstance(self.closure, GraphClosure):
                return batch  # a captured pass has a place for it on the device
        if self.settings.device == "cpu" and dtype == torch.float32:
            return batch
        return batch.to(self.settings.device, dtype)

    def predict(self, index: np.ndarray, together: Alone | None = None) -> tuple[np.ndarray, float]:
        """Return predictions and the mean loss on some molecules.

        Predictions are values in the targets' own units, or probabilities; [M, T], or [M, T, K] for K classes.
        With `together` several processes share the work; all of them must then call this.
        """
        return predictions(self, index, together or Alone())

    def evaluate(self, index: np.ndarray, together: Alone | None = None) -> tuple[Scores, float]:
        """Return the dataset's metric and the mean loss on some molecules; `together` as in `predict`."""
        found, loss = self.predict(index, together)
        return self.judge.score(found, index, self.settings.nonfinite == "skip"), loss

    @property
    def evaluated(self) -> nn.Module:
        """The module that is evaluated and kept: the model, or the average of its weights."""
        return self.model if self.average is None else self.average.current

    def order(self, epoch: int) -> np.ndarray:
        """Return the training molecules in the order of an epoch."""
        return np.random.default_rng([*self.seed, epoch]).permutation(self.split.train)

    def _train_epoch(self, interrupts: Interrupts | None) -> None:
        first = self.step - self.epoch * self.steps_per_epoch
        if first == 0:
            self.totals = {
                "loss": 0.0,
                "clean": 0.0,
                "clean_steps": 0.0,
                "perturbed": 0.0,
                "perturbed_steps": 0.0,
                "not_finite": 0.0,
            }
            self.totals["passes"] = self.optimizer.passes
            self._each("on_train_epoch_start")
        self.model.train()
        order, stride = self.order(self.epoch), self.settings.batch_size * self.settings.accumulate
        steps = self.steps(order, first)
        for position in range(first, self.steps_per_epoch):
            started = time.perf_counter()
            batches = next(steps)
            # Augmented once per step, so that all its passes see the same.
            self.closure.batches = batches if self.augment is None else list(map(self.augment, batches))
            self._take_step()
            if self.average is not None:
                self.average.end_step()
            graphs = min(len(order) - position * stride, stride)
            self.clock.add(graphs, time.perf_counter() - started)
            self.step += 1
            self._each("on_train_batch_end")
            self.log_step()
            asked, due = self.together.largest((interrupts and interrupts.pending) or 0, self._is_due())
            if asked and interrupts is not None:
                interrupts.pending = asked
                self.save()
                raise interrupts.error(self.step)
            if due and position + 1 < self.steps_per_epoch:
                self._save_and_go_on()

    def _take_step(self) -> None:
        factor = self.lr_schedule(self.step, self.steps_per_epoch, self.settings.epochs)
        for group, lr in zip(self.optimizer.param_groups, self.base_lr, strict=True):
            group["lr"] = lr * factor
        try:
            self.loss = self.optimizer.step(self.closure)
            value = float(self.loss)
            if not math.isfinite(value) and self.settings.nonfinite == "raise":
                raise NumericalError(f"the loss is {value}")
        except NumericalError as error:
            raise NumericalError(self._what_went_wrong(error)) from error
        last = self.optimizer.last
        self.steps_skipped += last.skipped
        if math.isfinite(value):
            self.totals["loss"] += value
        else:
            self.totals["not_finite"] += 1
        for name, loss in (("clean", last.loss_clean), ("perturbed", last.loss_perturbed)):
            if loss is not None and math.isfinite(float(loss)):
                self.totals[name] += float(loss)
                self.totals[f"{name}_steps"] += 1

    def _what_went_wrong(self, error: Exception) -> str:
        stride = self.settings.batch_size * self.settings.accumulate
        rows = self.order(self.epoch)[(self.step - self.epoch * self.steps_per_epoch) * stride :][:stride]
        smiles = [self.dataset.smiles[row] for row in rows]
        saved = str(self.checkpoint_path) if self.checkpoint_path.exists() else "none yet"
        return (
            f"Step {self.step} (epoch {self.epoch + 1}) failed: {str(error).rstrip('.')}. Lower base_optimizer.lr or "
            "optimizer.rho, set training.max_grad_norm, or skip such steps with training.nonfinite=skip. Last good "
            f"checkpoint: {saved}. {self.dataset.noun.capitalize()}s of the batch: {' '.join(smiles)}."
        )

    def log_step(self) -> None:
        """Log the last step's gradients and, every `log_every` steps, a line of metrics."""
        if self.diagnostics is not None:
            for record in self.diagnostics.drain():
                for tracker in self.trackers:
                    tracker.gradients({**record, "epoch": self.epoch})
        if self.step % self.settings.log_every:
            return
        last = self.optimizer.last
        record = {"kind": "step", "epoch": self.epoch, "step": self.step, "train/loss": float(self.loss)}
        record |= {"lr": self.optimizer.param_groups[-1]["lr"], "rho": last.rho, "passes": self.optimizer.passes}
        for name, loss in (("clean", last.loss_clean), ("perturbed", last.loss_perturbed)):
            if loss is not None:
                record[f"train/loss_{name}"] = float(loss)
        for tracker in self.trackers:
            tracker.log(record)

    def _end_epoch(self) -> None:
        rate, seconds = self.clock.end_epoch()
        if self.average is not None and self.average.end_epoch(self.epoch):
            self.best = {"epoch": None, "value": None, "weights": None}  # only averaged weights may be the best
        scores, loss = self.evaluate(self.split.valid, self.together)
        totals = self.totals
        record: dict[str, Any] = {"kind": "epoch", "epoch": self.epoch, "step": self.step}
        finite = self.steps_per_epoch - totals.get("not_finite", 0)
        record["train/loss"] = totals["loss"] / finite if finite else math.nan
        for name in ("clean", "perturbed"):
            if totals[f"{name}_steps"]:
                record[f"train/loss_{name}"] = totals[name] / totals[f"{name}_steps"]
        record |= {"valid/loss": loss, f"valid/{self.metric}": scores.mean}
        if self.settings.test_each_epoch or self.epoch in last_epochs(self.settings.epochs):
            test, test_loss = self.evaluate(self.split.test, self.together)
            self.tests[self.epoch] = test.mean
            if self.settings.test_each_epoch:
                record |= {"test/loss": test_loss, f"test/{self.metric}": test.mean}
        record |= {
            "graphs_per_s": rate,
            "seconds": seconds,
            "passes": self.optimizer.passes - int(totals["passes"]),
        }
        group = self.optimizer.param_groups[-1]  # not the last step's record, which is missing right after a resume
        record |= {"rho": group["rho"], "lr": group["lr"]}
        self._keep_best(loss if self.judge.chooses == "loss" else scores.mean)
        for tracker in self.trackers:
            tracker.log(record)
        for callback in self.callbacks:
            callback.on_train_epoch_end(self, record)

    def _keep_best(self, value: float) -> None:
        unjudged = self.judge.chooses == LAST
        if unjudged or better(self.judge.chooses, value, self.best["value"]) or self.best["epoch"] is None:
            weights = {name: tensor.detach().clone() for name, tensor in self.evaluated.state_dict().items()}
            self.best = {"epoch": self.epoch, "value": value, "weights": weights}
        patience = self.settings.patience
        if patience is not None and self.epoch - self.best["epoch"] >= patience:
            self.stop = True

    def _each(self, event: str) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(self)

    def _is_due(self) -> bool:
        """Return whether a checkpoint is due."""
        every = self.settings.checkpoint_steps
        if every is not None and self.step % every == 0:
            return True
        if self.settings.checkpoint_minutes == 0:
            return self.step == self.epoch * self.steps_per_epoch
        return (time.monotonic() - self.saved_at) / 60 >= self.settings.checkpoint_minutes

    def _save_and_go_on(self) -> None:
        """Write a checkpoint; if that fails, warn and try again when the next one is due, rather than end the run."""
        try:
            self.save()
        except StorageError as error:
            log.warning(str(error))
        self.saved_at = time.monotonic()

    def save(self) -> None:
        """Write the checkpoint; the first process does so for all."""
        others = self.together.gathered(lambda: state.own(self))
        if self.together.rank == 0:
            checkpoint.save(self.checkpoint_path, self.state_dict() | {"others": others})

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        return state.of(self)

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore a `state_dict`. The trackers receive theirs when they start."""
        state.load(self, saved)


def steps_per_epoch(rows: int, settings: TrainingConfig) -> int:
    """Return the number of optimizer steps in an epoch of `rows` molecules."""
    stride = settings.batch_size * settings.accumulate
    return max(rows // stride, 1) if settings.drop_last else math.ceil(rows / stride)
