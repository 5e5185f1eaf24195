"""A table never mixes files or numerics versions."""

from __future__ import annotations

import pandas as pd

from molsam.report.coherent import coherent


def frame(*cells: tuple[str, str, bool, bool]) -> pd.DataFrame:
    """(dataset, hash of its file, made by another version, identity recorded), from the oldest to the newest."""
    keys = ["dataset", "data_hash", "stale", "recorded"]
    runs = pd.DataFrame(cells, columns=keys)
    return runs.assign(finished=[f"2030-01-{day:02d}" for day in range(1, len(runs) + 1)])


def test_the_second_half_after_an_upgrade() -> None:
    kept, said = coherent(frame(("esol", "a", True, True), ("esol", "a", False, True), ("bbbp", "b", False, True)))
    assert kept["stale"].tolist() == [False, False]
    assert len(said) == 1
    assert "1 cells were made by another numerics version" in said[0]
    kept, said = coherent(frame(("esol", "a", True, True), ("bbbp", "b", True, True)))
    assert len(kept) == 2, "what is there can be read"
    assert len(said) == 1


def test_a_file_that_was_replaced_half_way() -> None:
    kept, said = coherent(frame(("esol", "a", False, True), ("bbbp", "x", False, True), ("esol", "b", False, True)))
    assert sorted(kept["data_hash"]) == ["b", "x"]
    assert said == ["1 cells of esol read another file than the newest cell and are left out."]


def test_older_results_are_marked() -> None:
    kept, said = coherent(frame(("esol", "a", False, False), ("esol", "a", False, True)))
    assert len(kept) == 2
    assert "1 cells do not record all that they read" in said[0]
    assert coherent(frame())[1] == []
