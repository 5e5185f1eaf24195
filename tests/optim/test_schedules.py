"""Schedules of rho."""

from __future__ import annotations

import math
from typing import Any

import pytest

from molsam.errors import ConfigError
from molsam.optim.schedules import Constant, Continuous, Cosine, Cutoff, Release, Staircase


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(), [0.05] * 5),
        (Staircase(0.5, 1), [0.05, 0.025, 0.0125, 0.00625, 0.003125]),
        (Staircase(0.5, 3), [0.05, 0.05, 0.05, 0.025, 0.025]),
        (Cutoff(0.5, 1, 0.0125), [0.05, 0.025, 0.0125, 0.0, 0.0]),
        (Continuous(0.5, 1), [0.05, 0.025, 0.0125, 0.00625, 0.003125]),
        (Continuous(0.5, 3), [0.05 * 0.5 ** (e / 3) for e in range(5)]),
        (Release(0.5, 1), [0.05, 0.025, 0.00625, 0.00078125, 0.05 / 1024]),
        (Release(0.5, 2), [0.05, 0.05, 0.025, 0.025, 0.00625]),
        (Cosine(), [0.05 * (1 + math.cos(math.pi * e / 5)) / 2 for e in range(5)]),
        (Cosine(0.2), [0.01 + 0.04 * (1 + math.cos(math.pi * e / 5)) / 2 for e in range(5)]),
    ],
)
def test_rho_by_epoch(schedule: Any, expected: list[float]) -> None:
    assert [schedule(0.05, epoch, 5) for epoch in range(5)] == pytest.approx(expected, rel=1e-14)


def test_the_cosine_stays_at_its_end() -> None:
    assert Cosine(0.2)(0.05, 8, 5) == pytest.approx(0.01, rel=1e-14)


def test_the_release_multiplies_what_it_has_already_reduced() -> None:
    """step_rho of the released code, literally."""
    for lam in (1, 3):
        rho = 0.05
        for epoch in range(12):
            if epoch % lam == 0:
                rho = rho * pow(0.9, epoch / lam)
            assert Release(0.9, lam)(0.05, epoch) == pytest.approx(rho, rel=1e-12)


@pytest.mark.parametrize("kind", [Staircase, Cutoff, Continuous, Release])
def test_ranges(kind: Any) -> None:
    for gamma, lam in ((0.0, 1), (1.1, 1), (0.5, 0), (0.5, 1.5)):
        with pytest.raises(ConfigError, match=r"rho_schedule\.(gamma|lam)"):
            kind(gamma, lam)
    with pytest.raises(ConfigError, match=r"rho_schedule\.least"):
        Cutoff(least=-1.0)
    with pytest.raises(ConfigError, match=r"rho_schedule\.final"):
        Cosine(1.5)
    with pytest.raises(ConfigError, match="total_steps"):
        Cosine()(0.05, 1)
