"""Scores of a fingerprint forest on a table's splits, as a line under the table, if `molsam baseline` was run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from molsam.config.metrics import display

if TYPE_CHECKING:
    import pandas as pd

MODEL = "forest"


def remarks(runs: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    """Return a sentence with the baselines on the table's splits, in a list; empty if there are none.

    Args:
        runs: the cells of the table.
        frame: all runs.
    """
    own = frame[(frame["model"] == MODEL) & frame["split"].isin(set(runs["split"]))]
    own = own.drop_duplicates(["dataset", "split", "metric"], keep="last")
    found = []
    for (dataset, metric), some in own.groupby(["dataset", "metric"], sort=False):
        cells = runs[runs["dataset"] == dataset]
        if metric not in set(cells["metric"]):
            continue
        mean, count = some["score"].mean(), len(some)
        spread = f" ± {some['score'].std(ddof=1):.3f}" if count > 1 else ""
        found.append(
            f"{dataset} {display(str(metric))} {mean:.3f}{spread} ({count} of {cells['split'].nunique()} splits)"
        )
    return [f"Baseline, a random forest on Morgan fingerprints: {'; '.join(found)}."] if found else []
