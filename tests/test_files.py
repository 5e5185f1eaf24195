"""Reading the files of runs that are still training."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from molsam.files import below
from molsam.report.dashboard.collect import Collector, relative_link
from molsam.report.stored import scan
from molsam.sweeping import estimate
from tests.report.figures.synthetic import write_run


def by_the_dashboard(root: Path) -> Iterable[Any]:
    runs: list[Any] = Collector([root], relative_link(root)).collect()["runs"]
    return runs


@pytest.mark.parametrize(
    "read",
    [by_the_dashboard, lambda root: scan([root])[0], lambda root: estimate.Speeds(root).runs()],
    ids=["dashboard", "reports", "sweeps"],
)
def test_a_folder_may_go_while_runs_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], Iterable[Any]]
) -> None:
    gone, listed = tmp_path / "a" / "gone", os.scandir
    gone.mkdir(parents=True)
    write_run(tmp_path)

    def scandir(path: Any) -> Any:
        if Path(path) == gone:
            raise FileNotFoundError(path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert len(list(read(tmp_path))) == 1


def test_files_are_found_by_their_names(tmp_path: Path) -> None:
    for name in ("one", "b/two", "b/c/one", "b/c/three"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert {str(path.relative_to(tmp_path)) for path in below(tmp_path, "one", "two")} == {"one", "b/two", "b/c/one"}
    assert list(below(tmp_path / "nowhere", "one")) == []


def test_cells_that_a_spreadsheet_would_work_out_are_text() -> None:
    from molsam.files import csv_text

    cells = ["=1+1", "+cmd", "-x", "@sum", "-1.5", "+2e3", "C=C", "", 7, -0.5, "\tx", "-1-cmd", "-1+1"]
    (line,) = csv_text([cells], end="\n").splitlines()
    assert line == "'=1+1,'+cmd,'-x,'@sum,-1.5,+2e3,C=C,,7,-0.5,'\tx,'-1-cmd,'-1+1"


def test_numbers_of_other_countries_and_signs_stay_as_they_are() -> None:
    from molsam.files import as_text

    for cell in ("-4,69", "+0,5", "-1.234,5", "-12 000", "-5 %", "-1,5e-3", "-", "+", "+++", "-inf"):
        assert as_text(cell) == cell


@pytest.mark.parametrize("how", ["bytes", "table"])
@pytest.mark.parametrize("kind", ["pipe", "open file"])
def test_a_device_or_pipe_is_written_to_and_stays(tmp_path: Path, how: str, kind: str) -> None:
    """`-o /dev/null` and `-o /dev/stdout` must not put a file in their place."""
    from molsam.files import write_atomic
    from molsam.tracking.tables import writer

    place = tmp_path / "place"
    with open(tmp_path / "open", "w+b") as behind:
        if kind == "pipe":
            os.mkfifo(place)
            reader = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
        else:
            place.symlink_to(f"/proc/self/fd/{behind.fileno()}")
            reader = os.dup(behind.fileno())
        before = os.lstat(place).st_mode, os.lstat(place).st_ino
        if how == "bytes":
            write_atomic(place, b"a\n1\n")
        else:
            with writer(place) as out:
                out.write(["a"], [["1"]])
        assert os.read(reader, 100) == b"a\n1\n"
        os.close(reader)
    assert (os.lstat(place).st_mode, os.lstat(place).st_ino) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["open", "place"]
