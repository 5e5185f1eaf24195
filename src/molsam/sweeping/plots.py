"""Optuna's plots of a study as HTML pages: history, importances, parallel coordinates, contours."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.study import Study

log = logging.getLogger(__name__)

NAMES = ("optimization_history", "param_importances", "parallel_coordinate", "contour")


def save(study: Study, folder: str | Path) -> list[Path]:
    """Write folder/plots/<name>.html, which work offline, and return them. Plots that need more trials are left out."""
    import optuna

    target = Path(folder) / "plots"
    target.mkdir(parents=True, exist_ok=True)
    saved = []
    for name in NAMES:
        try:
            with warnings.catch_warnings():
                # Optuna warns if there are few trials; their plot is still wanted.
                warnings.simplefilter("ignore")
                figure: Any = getattr(optuna.visualization, f"plot_{name}")(study, **_single_objective(study))
        except (ValueError, RuntimeError) as error:
            log.info(f"no {name} plot: {error}")
            continue
        path = target / f"{name}.html"
        figure.write_html(path, include_plotlyjs="directory")
        saved.append(path)
    return saved


def _single_objective(study: Study) -> dict[str, Any]:
    # With several objectives the plots show the first one.
    if len(study.directions) == 1:
        return {}
    return {"target": lambda trial: trial.values[0], "target_name": "objective 0"}
