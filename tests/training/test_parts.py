"""Objective, metrics and schedules against independent arithmetic."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from molsam.errors import ConfigError, NumericalError
from molsam.models.api import ModelOutput
from molsam.optim.esam import mean
from molsam.training.clock import Clock
from molsam.training.closure import Closure
from molsam.training.lr_schedule import Constant, Cosine, InverseSqrt, Noam
from molsam.training.metrics import better, check_metric, score
from molsam.training.objective import Objective


def literal_loss(name: str, logits: np.ndarray, y: np.ndarray, mask: np.ndarray, auxiliary: np.ndarray | None) -> float:
    total, count = 0.0, 0
    for b in range(y.shape[0]):
        for t in range(y.shape[1]):
            if not mask[b, t]:
                continue
            count += 1
            for h in range(logits.shape[0]):
                z = logits[h, b, t]
                if name == "bce":
                    p = 1 / (1 + math.exp(-z))
                    total -= y[b, t] * math.log(p) + (1 - y[b, t]) * math.log(1 - p)
                elif name == "mae":
                    total += abs(z - y[b, t])
                else:
                    total += (z - y[b, t]) ** 2
            if auxiliary is not None:
                total += auxiliary[b, t]
    mean = total / max(count, 1)
    return math.sqrt(mean) if name == "rmse" else mean


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["mse", "mae", "rmse", "bce"]), st.integers(1, 2), st.booleans())
def test_the_loss_is_the_masked_mean_over_heads(seed: int, name: str, heads: int, auxiliary: bool) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(heads, 5, 3))
    y = rng.integers(0, 2, (5, 3)).astype(float) if name == "bce" else rng.normal(size=(5, 3))
    mask = rng.random((5, 3)) < 0.7
    mask[0, 0] = True
    extra = rng.random((5, 3)) if auxiliary else None
    output = ModelOutput(torch.from_numpy(logits), None if extra is None else torch.from_numpy(extra))
    ours = Objective("classification" if name == "bce" else "regression", name)(
        output, torch.from_numpy(y), torch.from_numpy(mask)
    )
    assert float(ours) == pytest.approx(literal_loss(name, logits, y, mask, extra), rel=1e-12)


@pytest.mark.parametrize("name", ["mse", "rmse", "mae"])
def test_a_batch_without_labels_has_no_loss_and_no_gradient(name: str) -> None:
    logits = torch.randn(1, 4, 2, requires_grad=True)
    loss = Objective("regression", name)(ModelOutput(logits), torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-18)
    assert logits.grad is not None
    assert not logits.grad.any()


def test_an_exact_fit_has_a_finite_rmse_gradient() -> None:
    logits = torch.ones(1, 2, 1, requires_grad=True)
    loss = Objective("regression", "rmse")(ModelOutput(logits), torch.ones(2, 1), torch.ones(2, 1, dtype=torch.bool))
    loss.backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_loss_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"training\.loss=bce .* regression"):
        Objective("regression", "bce")


def test_predictions_average_probabilities_not_logits() -> None:
    output = ModelOutput(torch.tensor([[[4.0]], [[-1.0]]]))
    mean = (1 / (1 + math.exp(-4)) + 1 / (1 + math.exp(1))) / 2
    assert float(Objective("classification").predict(output)) == pytest.approx(mean)
    assert float(Objective("regression").predict(output)) == pytest.approx(1.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_metrics_skip_missing_labels_and_equal_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (30, 3)).astype(float)
    labels[rng.random((30, 3)) < 0.3] = np.nan
    labels[:4] = [[0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 1, 1]]
    prediction = np.round(rng.random((30, 3)), 1)
    known = ~np.isnan(labels)
    expected = [sk.roc_auc_score(labels[known[:, t], t], prediction[known[:, t], t]) for t in range(3)]
    assert score("roc_auc", prediction, labels).mean == pytest.approx(np.mean(expected))
    targets = np.where(known, rng.normal(size=(30, 3)), np.nan)
    rmse = [sk.root_mean_squared_error(targets[known[:, t], t], prediction[known[:, t], t]) for t in range(3)]
    mae = [sk.mean_absolute_error(targets[known[:, t], t], prediction[known[:, t], t]) for t in range(3)]
    assert score("rmse", prediction, targets).per_task == pytest.approx(rmse)
    assert score("mae", prediction, targets).mean == pytest.approx(np.mean(mae))


def test_undefined_tasks_are_left_out_and_counted() -> None:
    targets = np.array([[1.0, 1.0, np.nan], [0.0, 1.0, np.nan]])
    scores = score("roc_auc", np.array([[0.9, 0.5, 0.5], [0.1, 0.5, 0.5]]), targets)
    assert scores.per_task == [1.0, None, None]
    assert scores.mean == 1.0
    assert scores.skipped == 2
    assert math.isnan(score("roc_auc", np.ones((2, 1)), np.ones((2, 1))).mean)


def test_better_knows_the_direction_and_never_prefers_nan() -> None:
    assert better("roc_auc", 0.9, 0.8)
    assert not better("roc_auc", 0.8, 0.8)
    assert better("rmse", 0.5, 0.6)
    assert not better("rmse", float("nan"), 0.6)
    assert better("rmse", 0.5, float("nan"))
    assert better("rmse", 0.5, None)


def test_a_metric_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"dataset\.metric=roc_auc .* regression"):
        check_metric("roc_auc", "regression")


def test_noam_warms_up_linearly_and_decays_exponentially() -> None:
    schedule = Noam(warmup_epochs=2, initial=0.1, final=0.1)
    factors = [schedule(step, 10, 30) for step in range(300)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10] == pytest.approx(0.55)
    assert max(factors) == factors[20] == 1.0
    assert factors[20 + 140] == pytest.approx(10**-0.5)
    assert schedule(300, 10, 30) == pytest.approx(0.1)
    ratios = {round(b / a, 12) for a, b in itertools.pairwise(factors[20:])}
    assert len(ratios) == 1


def test_inverse_sqrt_is_the_transformers_schedule_in_shares_of_its_peak() -> None:
    """d^-0.5 min(t^-0.5, t w^-1.5) of Vaswani et al., equation 3, at w = 20 steps."""
    literal = [min(t**-0.5, t * 20**-1.5) for t in range(1, 61)]
    factors = [InverseSqrt(2)(step, 10, 6) for step in range(60)]
    assert factors == pytest.approx([value / max(literal) for value in literal])


def test_cosine_and_constant() -> None:
    schedule = Cosine(warmup_epochs=1, final=0.2)
    assert schedule(0, 4, 5) == 0.25
    assert schedule(4, 4, 5) == pytest.approx(1.0)
    assert schedule(12, 4, 5) == pytest.approx(0.6)
    assert schedule(20, 4, 5) == pytest.approx(0.2)
    assert Constant()(17, 4, 5) == 1.0
    with pytest.raises(ValueError, match="final is 0; it must be positive"):
        Noam(final=0)


def test_the_loss_of_a_molecule_is_the_mean_over_its_labels() -> None:
    rng = np.random.default_rng(0)
    logits, y = rng.normal(size=(2, 4, 3)), rng.normal(size=(4, 3))
    mask = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 1]], dtype=bool)
    ours = Objective("regression").per_molecule(
        ModelOutput(torch.from_numpy(logits)), torch.from_numpy(y), torch.from_numpy(mask)
    )
    for b in range(4):
        one = literal_loss("mse", logits[:, b : b + 1], y[b : b + 1], mask[b : b + 1], None)
        assert float(ours[b]) == pytest.approx(one, rel=1e-12)
    with pytest.raises(ConfigError, match="single molecule"):
        Objective("regression", "rmse").per_molecule(
            ModelOutput(torch.zeros(1, 1, 1)), torch.zeros(1, 1), torch.ones(1, 1)
        )


class Table:
    """As much of a batch as a loss needs, and a model that gives its logits."""

    def __init__(self, rows: list[int], index: type[torch.Tensor] = torch.Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        self.logits = torch.randn(6, 3, generator=generator, dtype=torch.float64)[rows].requires_grad_()
        self.targets = torch.randn(6, 3, generator=generator, dtype=torch.float64)[rows]
        self.mask = (torch.rand(6, 3, generator=generator) < 0.6)[rows]
        self.index = torch.tensor(rows).as_subclass(index)


class Elsewhere(torch.Tensor):
    """A tensor of a device whose memory numpy cannot read."""

    def numpy(self, **_: object) -> np.ndarray:  # type: ignore[override]
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")

    def cpu(self) -> torch.Tensor:  # type: ignore[override]
        return self.as_subclass(torch.Tensor)


def test_a_part_of_a_batch_has_the_loss_that_it_has_alone() -> None:
    """Per label, whatever the number of labels of a molecule; the places may be on another device."""
    closure = Closure(
        torch.nn.Identity(),
        Objective("regression"),
        fetch=lambda rows: Table(rows.tolist()),  # type: ignore[arg-type,return-value]
    )
    closure.model = lambda batch: ModelOutput(batch.logits[None])  # type: ignore[assignment]
    closure.batches = [Table([0, 1, 2, 3, 4, 5], Elsewhere)]  # type: ignore[list-item]
    for chosen in (None, torch.tensor([4, 1, 3])):
        alone = Table([0, 1, 2, 3, 4, 5] if chosen is None else chosen.tolist())
        wanted = closure.objective(ModelOutput(alone.logits[None]), alone.targets, alone.mask)
        torch.testing.assert_close(mean(closure.losses(chosen), closure.weights(chosen)), wanted.detach())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_that_are_not_finite_are_refused_and_no_task_is_dropped(bad: float) -> None:
    target = np.array([[0.0, 1.0], [1.0, np.nan], [2.0, 3.0]])
    prediction = target + 0.5
    prediction[1, 1] = bad  # no label there
    assert score("rmse", prediction, target).mean == pytest.approx(0.5)
    prediction[2, 1] = bad
    with pytest.raises(NumericalError, match=r"task 2 of 2 are not finite .*lower base_optimizer\.lr"):
        score("rmse", prediction, target)
    found = score("rmse", prediction, target, skip=True)
    assert math.isnan(found.mean)
    assert found.per_task == [None, None]


def test_a_clock_tells_the_rate_of_each_epoch() -> None:
    clock = Clock()
    clock.add(10, 2.0)
    clock.add(10, 3.0)
    assert clock.rate == 4.0
    assert clock.end_epoch() == (4.0, 5.0)
    for seconds in (1.0, 400.0, 2.0):  # a machine that slept
        clock.add(8, seconds)
        assert clock.end_epoch() == (8 / seconds, seconds)
    assert clock.summary() == {"graphs_per_s": 4.0, "seconds_per_epoch": 2.0, "first_epoch_seconds": 5.0}
