"""The rows of every sweep file share all settings except those that a row is about."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from molsam.config.cells import rows
from molsam.config.compose import compose
from molsam.report import specs

FREE = ("optimizer", "model", "featurizer", "choices", "sweeps")
"""Sections in which rows may differ; `shared` looks into `optimizer` itself."""

RHO = ("rho_schedule",)
VARIED: dict[str, tuple[str, ...]] = {
    "table8": RHO,
    "table9": RHO,
    "fig7": RHO,
    "perturbation": RHO,
    "released": (*RHO, "lr_schedule", "training"),
    "equal_time": ("training",),
    "averaging": ("training",),
}
"""Further sections that the rows of a sweep are about."""

QUICK = {"table6", "table11"}

TABLES = [name for name in specs.names() if specs.load(name).trials is None]


def shared(name: str, overrides: list[str]) -> dict[Any, Any]:
    """The settings of a row that all rows of its sweep have to share."""
    settings = OmegaConf.to_container(compose([f"sweeps={name}", "dataset.root=x", *overrides]), resolve=True)
    assert isinstance(settings, dict)
    optimizer, schedule = settings["optimizer"], settings["rho_schedule"]
    # Whatever a row's optimizer is, its base and its schedule are those that stand for all rows.
    assert optimizer["base"] == settings["base_optimizer"]
    assert optimizer.get("rho_schedule", schedule) == schedule
    return {key: value for key, value in settings.items() if key not in (*FREE, *VARIED.get(name, ()))}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TABLES]
)
def test_rows_share_schedule_base_optimizer_split_and_training(name: str) -> None:
    section = specs.load(name).section
    found = {row: shared(name, variant["overrides"]) for row, variant in rows(section).items()}
    for settings in found.values():
        settings.get("training", {}).pop("threads", None)  # changes no number, beyond rounding
    # Rows of two models are not compared: each may have its own number of epochs.
    first: dict[str, Any] = {}
    for row, variant in rows(section).items():
        model = (
            next((text for text in variant["overrides"] if text.startswith("model=")), "")
            if section.get("models")
            else ""
        )
        assert found[row] == first.setdefault(model, found[row]), row
    common = {"base_optimizer", "lr_schedule", "split", "training", "dataset", "diagnostics"}
    assert common - set(VARIED.get(name, ())) <= set(found[next(iter(found))])
