"""The tensors of a pass grow with the number of atoms, never with molecules x largest^2 x width."""

from __future__ import annotations

from functools import cache

import pytest
from torch import nn

from molsam.bench.size import Traffic, measure, polymer
from molsam.data.batch import MoleculeBatch
from molsam.data.packed import PackedMolecules
from molsam.models.api import ModelOutput
from tests.batteries.test_models import MODELS, WITHOUT_CHANCE, subject

SIZES = [10, 100, 200, 245, 490]
SMALL = 0
PAIRS = [(1, 2), pytest.param((3, 4), marks=pytest.mark.slow)]
"""a middle molecule and one twice as large"""


@cache
def molecules(name: str) -> PackedMolecules:
    return subject(name).pack([polymer(n) for n in SIZES])


@cache
def traffic(name: str, rows: tuple[int, ...]) -> Traffic:
    model = subject(name).build(n_tasks=1, **WITHOUT_CHANCE).train()
    return measure(model, molecules(name).batch(list(rows)))


def test_a_polymer_has_as_many_atoms_as_asked() -> None:
    assert molecules("gcn").node_offset.diff().tolist() == SIZES


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pair", PAIRS)
def test_a_large_molecule_costs_the_small_ones_beside_it_nothing(name: str, pair: tuple[int, int]) -> None:
    """A batch makes no larger tensor, and keeps no more, than its parts do apart; padding would, ten times over."""
    large, small, both = (traffic(name, rows) for rows in (pair[1:], (SMALL,) * 10, (pair[1], *(SMALL,) * 10)))
    assert both.largest <= large.largest + small.largest
    assert both.kept_bytes <= large.kept_bytes + small.kept_bytes


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("pair", PAIRS)
def test_twice_the_atoms_keep_twice_the_bytes(name: str, pair: tuple[int, int]) -> None:
    """Beyond a few numbers for each pair of atoms, which CoMPT's distance kernel has (not times the width)."""
    middle, large = traffic(name, pair[:1]), traffic(name, pair[1:])
    pairs = SIZES[pair[1]] ** 2 if molecules(name).distances is not None else 0
    assert large.kept_bytes <= 2.05 * middle.kept_bytes + 16 * pairs
    assert large.largest <= 2.05 * middle.largest + 2 * pairs


def test_the_meter_sees_padding() -> None:
    class Padding(nn.Linear):
        def forward(self, batch: MoleculeBatch) -> ModelOutput:
            largest = batch.max_size
            return ModelOutput(
                (batch.nodes.new_ones(len(batch), largest, largest, 1) * self.weight[0]).sum((1, 2))[None]
            )

    batch = molecules("gcn").batch([2, SMALL])
    found = measure(Padding(64, 1), batch)  # type: ignore[arg-type]
    assert found.largest == 2 * SIZES[2] ** 2 * 64
