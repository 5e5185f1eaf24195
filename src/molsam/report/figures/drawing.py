"""Types of the figures: request, drawing, recipe, and the error for missing runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from molsam.errors import MolsamError
from molsam.report.stored import StoredRun


@dataclass(frozen=True)
class Request:
    """Which panels to draw, from which runs."""

    runs: list[StoredRun]
    models: tuple[str, ...]
    datasets: tuple[str, ...]


@dataclass(frozen=True)
class Drawing:
    """A figure, the numbers it shows (written beside it as JSON), and a sentence on where they come from."""

    figure: Figure
    numbers: dict[str, Any]
    caption: str


@dataclass(frozen=True)
class Recipe:
    """Recipe of one figure: the function that draws it from stored runs, and how to train these runs.

    Either `sweep` names a sweep file, or `make` has the overrides besides model and dataset.
    """

    draw: Callable[[Request], Drawing]
    title: str
    models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    sweep: str | None = None
    make: tuple[str, ...] = ()


class MissingRuns(MolsamError):  # noqa: N818 - reads as the sentence it raises
    """A figure lacks runs; the message names them."""

    exit_code = 1
