"""Report of a search: its trials, best first, and the importance of each setting."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from molsam import terminal as screen
from molsam.report import escape

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN = 20
"""Number of trials shown in the terminal; the files have all."""
NOTE = "Value: the validation metric that is searched for. Importance: the share of its spread that a setting explains."


def heads(trials: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the columns: number, state, value, then each setting."""
    return list(dict.fromkeys(key for trial in trials for key in trial))


def terminal(title: str, trials: Sequence[Mapping[str, Any]], importances: Mapping[str, float]) -> list[RenderableType]:
    """Return the report for the terminal."""
    from rich import box
    from rich.table import Table

    names = heads(trials)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        short = name.rpartition(".")[2]
        alone = [one.rpartition(".")[2] for one in names].count(short) == 1
        grid.add_column(screen.text(short if alone else name.replace(".", ".\n", 1)), justify="right")
    for trial in trials[:SHOWN]:
        grid.add_row(*(screen.text(_shown(trial.get(name))) for name in names))
    more = [screen.text(f"... and {len(trials) - SHOWN} more in the files")] if len(trials) > SHOWN else []
    share = screen.text("Importance: " + _importance_words(importances))
    return [screen.text(title, style="bold"), grid, *more, share, screen.text(NOTE, style="dim")]


def markdown(title: str, trials: Sequence[Mapping[str, Any]], importances: Mapping[str, float]) -> str:
    """Return the report as Markdown."""
    names = heads(trials)
    lines = [f"## {escape.markdown(title)}", "", "| " + " | ".join(map(escape.markdown, names)) + " |"]
    lines.append("|" + "---:|" * len(names))
    lines += ["| " + " | ".join(escape.markdown(_shown(t.get(name))) for name in names) + " |" for t in trials]
    return "\n".join([*lines, "", f"Importance: {escape.markdown(_importance_words(importances))}", "", NOTE]) + "\n"


def comma_separated(trials: Sequence[Mapping[str, Any]]) -> str:
    """Return CSV with a line per trial."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, heads(trials), lineterminator="\n")
    writer.writeheader()
    writer.writerows(trials)
    return text.getvalue()


def as_json(title: str, trials: Sequence[Mapping[str, Any]], importances: Mapping[str, float]) -> str:
    """Return the report as JSON."""
    return json.dumps({"title": title, "trials": list(trials), "importances": dict(importances)}, indent=1) + "\n"


def _importance_words(importances: Mapping[str, float]) -> str:
    if not importances:
        return "too few complete trials."
    return ", ".join(f"{name} {share:.2f}" for name, share in importances.items()) + "."


def _shown(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
