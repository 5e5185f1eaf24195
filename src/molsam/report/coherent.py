"""Cells of a table that belong together: made of the same data, by the same mathematics."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def coherent(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the runs that may stand in one table, and a sentence for those that were left out or deserve a word.

    Of a dataset whose cells read different files those of the newest cell's file stay. Cells that another numerics
    version made stay only where there are no others.
    """
    said = []
    older = runs["stale"].astype(bool)
    if older.any() and not older.all():
        said.append(
            f"{int(older.sum())} cells were made by another numerics version of molsam and are left out; the sweep's "
            "command makes them again under another sweeps.name, or with overwrite=true."
        )
        runs = runs[~older]
    elif older.any():
        said.append("All cells were made by another numerics version of molsam than this one.")
    newest = runs.sort_values("finished", kind="stable").groupby("dataset", sort=False)["data_hash"].last()
    other = runs["data_hash"] != runs["dataset"].map(newest)
    for dataset, count in runs.loc[other, "dataset"].value_counts(sort=False).items():
        said.append(f"{count} cells of {dataset} were made of another file than the newest and are left out.")
    runs = runs[~other]
    if unrecorded := int((~runs["recorded"].astype(bool)).sum()):
        said.append(
            f"{unrecorded} cells are older than the record of what they read; their file is told by its hash alone."
        )
    return runs.reset_index(drop=True), said
