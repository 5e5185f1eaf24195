"""The overall line of a sweep: what it says, and when."""

from __future__ import annotations

import io

import pytest

from molsam.sweeping.progress import Count, ProgressLine, line


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (Count(12, 0, 2, 60, 2), "table3: 12 of 60 cells, 2 running, 0:10:00 so far, about 0:48:00 left"),
        # A failed cell is not left, and its time counts as time of a cell.
        (Count(11, 1, 2, 60, 2), "table3: 11 of 60 cells, 1 failed, 2 running, 0:10:00 so far, about 0:48:00 left"),
        (Count(12, 0, 2, 60, 2, 1.5), "table3: 12 of 60 cells, 2 running, 0:10:00 so far, about 0:15:00 left"),
        (Count(2, 0, 1, 60, 2), "table3: 2 of 60 cells, 1 running, 0:10:00 so far, time left not known yet"),
        (Count(59, 1, 0, 60, 0), "table3: 59 of 60 cells, 1 failed, 0:10:00 so far"),
    ],
)
def test_what_it_says(count: Count, text: str) -> None:
    assert line("table3", count, 600.0) == text


def test_a_failure_is_news() -> None:
    """Where there is no terminal to write in place, a line comes for every cell that ends, well or not."""
    counts = iter([Count(1, 0, 1, 3, 0), Count(1, 0, 1, 3, 0), Count(1, 1, 1, 3, 0), Count(2, 1, 0, 3, 0)])
    out = io.StringIO()
    progress = ProgressLine("t", lambda: next(counts), in_place=True, stream=out)
    for _ in range(4):
        progress.show()
    said = [text.split(",")[:2] for text in out.getvalue().splitlines()]
    assert said == [
        ["t: 1 of 3 cells", " 1 running"],
        ["t: 1 of 3 cells", " 1 failed"],
        ["t: 2 of 3 cells", " 1 failed"],
    ]
