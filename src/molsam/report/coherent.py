"""Selection of a table's cells that are comparable: of the same data and the same numerics version."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def coherent(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the runs that can be in one table, and remarks on runs that were left out or are doubtful.

    If the cells of a dataset read different files, only those with the newest cell's file are kept. Cells of another
    numerics version are kept only if there are no others.
    """
    said = []
    older = runs["stale"].astype(bool)
    if older.any() and not older.all():
        said.append(
            f"{int(older.sum())} cells were made by another numerics version of molsam and are left out; run the "
            "sweep again under another sweeps.name, or with overwrite=true."
        )
        runs = runs[~older]
    elif older.any():
        said.append("All cells were made by another numerics version of molsam than this one.")
    newest = runs.sort_values("finished", kind="stable").groupby("dataset", sort=False)["data_hash"].last()
    other = runs["data_hash"] != runs["dataset"].map(newest)
    for dataset, count in runs.loc[other, "dataset"].value_counts(sort=False).items():
        said.append(f"{count} cells of {dataset} read another file than the newest cell and are left out.")
    runs = runs[~other]
    if unrecorded := int((~runs["recorded"].astype(bool)).sum()):
        said.append(
            f"{unrecorded} cells do not record all that they read, because they are too old; only their data file's "
            "hash is compared."
        )
    return runs.reset_index(drop=True), said
