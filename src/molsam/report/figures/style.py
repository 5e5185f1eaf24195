"""Style of the figures: one column wide, legible at that size and without colour vision."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from molsam.files import write_atomic
from molsam.report.names import label

WIDTH = 3.3
"""Column width in inches."""

# Okabe and Ito's palette. As in the paper, SAM is purple, GraphSAM green and Adam orange.
COLOURS = {
    "adam": "#E69F00",
    "sam": "#CC79A7",
    "graphsam": "#009E73",
    "sam_one": "#56B4E9",
    "sam_k": "#0072B2",
    "looksam": "#D55E00",
    "aesam": "#F0E442",
    "rst": "#999999",
    "graphsam_release": "#000000",
}
MARKERS = {"adam": "o", "sam": "s", "graphsam": "^", "sam_one": "v", "sam_k": "D", "looksam": "P", "aesam": "X"}
PAPER: dict[str, Any] = {"marker": "_", "color": "#000000", "markersize": 9, "linestyle": "none", "label": "paper"}
"""Keywords of `Axes.plot` for the paper's values."""
_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.linewidth": 0.4,
    "grid.color": "#DDDDDD",
    "axes.axisbelow": True,
    "hatch.linewidth": 0.5,
    "savefig.dpi": 300,
    "svg.fonttype": "none",
    "svg.hashsalt": "molsam",
}


def a(name: str) -> str:
    """Return the label with the article for its pronunciation: a SAM, an Adam, an RST."""
    text = label(name)
    spelt = text.upper() == text and text[:2].upper() in ("RS", "FS", "F-", "SG")
    return f"an {text}" if text[:1].upper() in "AEIO" or spelt else f"a {text}"


def colour(optimizer: str) -> str:
    """Return the colour of an optimizer; grey for those without one."""
    return COLOURS.get(optimizer, "#666666")


def styled() -> Any:
    """Return the context in which figures are drawn and saved."""
    return rc_context(_RC)


def panels(rows: int, columns: int = 1, *, height: float = 1.7, **options: Any) -> tuple[Figure, Any]:
    """Return a figure of column width and its axes [rows, columns]; `height`: inches per row."""
    figure = Figure(figsize=(WIDTH, height * rows + 0.2), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write stem.png (300 dpi) and stem.svg, and return their paths. Equal figures give equal bytes."""
    paths = []
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        data = io.BytesIO()
        figure.savefig(data, format=suffix, metadata=metadata)
        path = stem.with_name(f"{stem.name}.{suffix}")
        write_atomic(path, data.getvalue())
        paths.append(path)
    return paths
