"""The measurement of large tables measures what it claims."""

from __future__ import annotations

from pathlib import Path

import pytest

from molsam.bench import scale
from molsam.chem.molecule import parse
from molsam.commands import bench as command
from molsam.errors import ConfigError


def test_varied_molecules_are_molecules_and_mostly_new() -> None:
    rows = list(scale.varied(14_000))
    assert len(rows) == 14_000
    assert len(set(rows)) > 9_000
    for smiles in rows[::500]:
        parse(smiles)


@pytest.mark.slow
def test_a_pack_is_made_then_read(tmp_path: Path) -> None:
    made, read = scale.bench_scale("gcn", [80], ["model.hidden_sizes=[8]"], tmp_path / "picture.png")
    assert (made["pack"], read["pack"]) == ("new", "cached")
    assert made["molecules"] == 80
    assert made["disk_mb"] == read["disk_mb"] > 0
    assert 0 < made["load_mb"] <= made["train_mb"] < 5000
    assert (tmp_path / "picture.png").stat().st_size > 0


@pytest.mark.parametrize("text", ["", "0", "100,x", "-5"])
def test_rows_are_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a list of numbers of rows"):
        command._counts(text)
