"""Numbers that the paper states, from the table of published numbers."""

from __future__ import annotations

import re
from functools import cache

from molsam.report.published import rows

FIELDS = ("table", "model", "optimizer", "variant", "dataset", "metric")


@cache
def plain_name(name: str) -> str:
    """Return a name in a form that is equal for the paper's names and ours: SAM-One, sam_one -> samone."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def stated(**wanted: str) -> float | None:
    """Return the mean printed in the paper for the given ones of table, model, optimizer, variant, dataset and metric.

    None unless the paper prints exactly one value for them.
    """
    keys = {key: plain_name(value) for key, value in wanted.items()}
    assert set(keys) <= set(FIELDS)
    found = {float(row["mean"]) for row in rows() if all(plain_name(row[k]) == v for k, v in keys.items())}
    return found.pop() if len(found) == 1 else None


@cache
def stated_score(model: str, optimizer: str, dataset: str, metric: str | None = None) -> float | None:
    """Return the paper's test metric of a model and optimizer with its default settings (Tables 1, 2, 6 and 7).

    `metric`: None for whichever metric the paper has.
    """
    for table in ("1", "2", "6", "7"):
        for name in ("roc_auc", "rmse", "mae") if metric is None else (metric,):
            value = stated(table=table, model=model, optimizer=optimizer, dataset=dataset, metric=name, variant="")
            if value is not None:
                return value
    return None
