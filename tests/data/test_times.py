"""The column of a split by time: numbers, or dates, in one form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from molsam.data.times import times_of
from molsam.errors import DataError
from tests.data.helpers import load_rows


def of(tmp_path: Path, cells: list[str]) -> np.ndarray:
    rows = [("C" * (i + 1), i % 4 + 0.5, cell) for i, cell in enumerate(cells)]
    data = load_rows(tmp_path, rows, "smiles,y,when", targets=["y"])
    return times_of(data.table, data.split_column("when"), "when", data.where)


@pytest.mark.parametrize(
    "cells",
    [
        ["12.2019", "01.2020", "10.2020", "02.2021"],
        ["9.2019", "12.2019", "1.2020"],
        ["12/2019", "01/2020", "02/2021"],
        ["12.2019", "05.01.2020", "2020-02-01"],
        ["2019-12", "2020-01-05", "2020-01-05 12:00", "2020-01-05T13:00:00Z"],
        ["2019-12-31T23:30:00-05:00", "2020-01-01T05:00:00+00:00"],
        ["20191231", "20200101"],
        ["201912", "202001"],
        ["1999", "2000", "2000.0"],
        ["43830", "43831", "43900.5"],
        ["1.2019", "1.2021", "4.5", "7.25"],  # numbers, of which some look like a month
        ["31011999", "99999999"],  # numbers, of which some look like a date
    ],
)
def test_times_rise(tmp_path: Path, cells: list[str]) -> None:
    assert (np.diff(of(tmp_path, cells)) >= 0).all()
    assert (np.diff(of(tmp_path, cells[::-1])) <= 0).all()


@pytest.mark.parametrize(
    ("cells", "row", "why"),
    [
        (
            ["2019-05-05", "2019", "2019-07-01"],
            1,
            "'2019' is a number among dates such as '2019-05-05'; write all rows",
        ),
        (["2019", "2020", "2019-07-01"], 2, "'2019-07-01' is a date among numbers such as '2019'; write all rows"),
        (["2019-05-05", "44918"], 1, "'44918' is a number among dates"),
        (["20190505", "2019-05-06", "31.05.2019"], 0, "'20190505' is a number among dates"),
        (["12.2019", "01.2020", "2019"], 2, "'2019' is a number among dates such as '12.2019'"),
        (["2019", "20190505"], 1, "'20190505' is a date of another form than '2019'"),
        (["201905", "2019"], 1, "'2019' is a date of another form"),
        (["23122022", "01032024"], 0, "'23122022' looks like a date such as 31052024, .* write it as 2024-05-31"),
        (["23122022", "1032024"], 0, "'23122022' looks like a date such as 31052024"),
        (["12232022", "01302024"], 0, "'12232022' looks like a date such as 05312024"),
        (["120", "1.500"], 1, "'1.500' is ambiguous"),
        (["2019", ""], 1, "'' is neither a number nor a date"),
        (["2019", "nan"], 1, "'nan' is neither a number nor a date"),
        (["13.2019", "12.2019", "13/2019"], 2, "'13/2019' is neither a number nor a date"),
    ],
)
def test_a_column_of_several_kinds_is_refused(tmp_path: Path, cells: list[str], row: int, why: str) -> None:
    with pytest.raises(DataError, match=rf"row {row} \(line {row + 2}\), column 'when': {why}"):
        of(tmp_path, cells)
