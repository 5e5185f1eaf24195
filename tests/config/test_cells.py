"""Cells: the meaning of a sweep section."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from molsam.config.cells import Cell, cell_name, folds, key_of, quote, rows, slug, table_cells
from molsam.errors import ConfigError


def sweep(**changes: Any) -> dict[str, Any]:
    section = {
        "name": "t",
        "datasets": ["bbbp", "esol"],
        "folds": 2,
        "seeds": [0, 7],
        "variants": {"beta=0.9": {"overrides": ["optimizer.beta=0.9"]}, "Adam": {"overrides": ["optimizer=adam"]}},
    }
    return {**section, **changes}


def test_every_combination_once() -> None:
    cells = table_cells(sweep())
    assert len(cells) == 2 * 2 * 2 * 2
    assert len({cell.name for cell in cells}) == 16
    assert {tuple(cell.values.values()) for cell in cells} == {
        (row, dataset, fold, seed)
        for row in ("beta=0.9", "Adam")
        for dataset in ("bbbp", "esol")
        for fold in (0, 1)
        for seed in (0, 7)
    }


def test_a_cell_says_what_it_is() -> None:
    (cell,) = table_cells(sweep(datasets=["esol"], folds=[3], seeds=[7], rows=["beta=0.9"]))
    assert cell.name == "beta=0.9-esol-f3-s7"
    assert cell.overrides == ("optimizer.beta=0.9", "dataset=esol", "split.fold=3", "seed=7", "++sweeps.row='beta=0.9'")


def test_rows_choose_and_keep_order() -> None:
    assert list(rows(sweep(rows=["Adam"]))) == ["Adam"]
    with pytest.raises(ConfigError, match="Did you mean Adam"):
        rows(sweep(rows=["adam"]))


@pytest.mark.parametrize("bad", [0, -1, True, "3", [], [1.5], None])
def test_folds_that_make_no_sense(bad: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape("sweeps.folds")):
        folds({"folds": bad})


def test_folds_are_a_count_or_a_list() -> None:
    assert folds({"folds": 3}) == [0, 1, 2]
    assert folds({"folds": [4, 1]}) == [4, 1]


def test_rows_that_would_share_a_folder_are_refused() -> None:
    variants: dict[str, Any] = {"a b": {}, "a  b": {}}
    with pytest.raises(ConfigError, match="share the folder"):
        table_cells(sweep(variants=variants))


@pytest.mark.parametrize("key", ["datasets", "seeds"])
def test_lists_that_are_none(key: str) -> None:
    with pytest.raises(ConfigError, match=f"sweeps.{key}"):
        table_cells(sweep(**{key: []}))


@given(st.text(max_size=200))
def test_a_folder_name_is_always_usable(text: str) -> None:
    name = slug(text)
    assert 0 < len(name) <= 100
    assert "/" not in name
    assert name not in (".", "..")
    assert name.isascii()
    assert cell_name(text, "esol", 0, 0).endswith("-esol-f0-s0")


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=40))
def test_hydra_reads_a_quoted_value_back(text: str) -> None:
    override = OverridesParser.create().parse_override(f"key={quote(text)}")
    assert override.value() == text


def test_key_of_an_override() -> None:
    assert [key_of(o) for o in ("a.b=1", "+a=1", "++a=1", "~a", "~a=b", "g@pkg=1")] == ["a.b", "a", "a", "a", "a", "g"]


def test_a_label_tells_a_cell_from_the_others() -> None:
    """Of a grid the swept values alone; the whole name where these are no start of it, as in a table."""
    same = "dataset=csv,dataset.path=c.csv"
    cells = [
        Cell(f"optimizer.rho={rho},split.fold=0,{same}", (), (f"optimizer.rho={rho}", "split.fold=0"))
        for rho in (1, 12)
    ]
    assert [cell.label for cell in cells] == ["optimizer.rho=1,split.fold=0", "optimizer.rho=12,split.fold=0"]
    for name, overrides in (("beta_0.9-esol-f0-s0", ("optimizer.beta=0.9",)), ("model=gcn", ("model=gcn",)),
                            (f"name=a_b,{same}", ("name=a b",)), ("default", ())):  # fmt: skip
        assert Cell(name, (), overrides).label == name
