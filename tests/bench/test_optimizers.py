"""The costs of optimizers relative to Adam."""

from __future__ import annotations

import pytest

from molsam.bench.optimizers import Step, cost


def test_rare_steps_count_for_what_they_cost_and_hiccups_for_nothing() -> None:
    adam = [Step(1.0 + 0.1 * (i % 5), 1) for i in range(50)]
    graphsam = [Step(1.02 * step.seconds, 1) for step in adam]
    graphsam[0] = Step(2.0 * adam[0].seconds, 2)
    expected = (49 * 1.02 + 2.0) / 50
    assert cost(graphsam, adam) == pytest.approx(expected)
    graphsam[7] = Step(30.0, 1)
    assert cost(graphsam, adam) == pytest.approx(expected)
    assert cost(adam, adam) == 1.0
