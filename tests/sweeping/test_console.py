"""What a sweep prints: about each cell, about the whole sweep, and warnings."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from pathlib import Path

import pytest

from molsam.sweeping.console import LOG, CapturedOutput, Console, Count, Ended, line


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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


LOOKS = [
    (Count(1, 0, 1, 3, 1), []),
    (Count(1, 1, 1, 3, 1), [Ended("b", "failed: why", 2.0, ("old file",))]),
    (Count(2, 1, 0, 3, 1), [Ended("c", "0.5", 3.0, ("old file", "slow disk"))]),
    (Count(2, 1, 0, 3, 1), []),
]


def test_a_line_for_each_cell_that_ends_and_each_warning_once() -> None:
    looks, out = iter(LOOKS), io.StringIO()
    console = Console("t", lambda: next(looks), stream=out)
    for _ in LOOKS:
        console.show()
    assert out.getvalue().splitlines() == [
        "[2/3] b: failed: why (0:00:02)",
        "WARNING: old file (b; shown once)",
        "[3/3] c: 0.5 (0:00:03)",
        "WARNING: slow disk (c; shown once)",
    ]


def test_a_terminal_has_one_line_of_the_whole_below_the_cells() -> None:
    looks, out = iter(LOOKS), Terminal()
    console = Console("t", lambda: next(looks), stream=out, every=3600)
    for _ in LOOKS:
        console.show()
    written = out.getvalue()
    # What stands before the last return to the line's start on each line was written over.
    seen = [text.rpartition("\r\x1b[K")[2] for text in written.split("\n")]
    assert seen[0].startswith("[2/3] b")
    assert seen[-1].startswith("t: 2 of 3 cells, 1 failed")
    assert sum(text.startswith("t: ") for text in seen) == 1


def test_the_live_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    Console("a-sweep-with-a-long-name", lambda: (Count(10, 1, 2, 600, 2), []), stream=out, every=3600).show()
    (written,) = out.getvalue().removeprefix("\r\x1b[K").split("\n")
    assert len(written) == 79


def test_what_a_run_prints_goes_to_its_folder_and_its_warnings_to_the_sweep(tmp_path: Path) -> None:
    warned: list[list[str]] = []
    logger = logging.getLogger("molsam.somewhere")
    for _ in range(2):
        with contextlib.redirect_stdout(io.StringIO()) as out, CapturedOutput(tmp_path, warned.append):
            print("epoch 1")
            print("epoch 2", file=sys.stderr)
            logger.warning("old file")
            logger.warning("old file")
        assert out.getvalue() == ""
    assert (tmp_path / LOG).read_text().count("epoch") == 4
    assert warned == [["old file"], ["old file"]]
    logger.warning("after")
    assert len(warned) == 2
