"""One page with the state of every table and figure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from molsam import terminal as screen
from molsam.config.command import program
from molsam.report import escape, specs, table, verdicts
from molsam.report.specs import SMOKE_NOTE, Spec
from molsam.report.verdicts import VERDICTS

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table as RichTable

HEADS = ("", "what", "cells done", "within one published std", *VERDICTS, "command")

NONE = (0,) * len(VERDICTS)


@dataclass(frozen=True)
class State:
    """State of a table or figure."""

    label: str
    title: str
    done: int
    total: int
    within: int
    comparable: int
    verdicts: tuple[int, ...]
    command: str

    @property
    def complete(self) -> bool:
        """Whether no cell is missing."""
        return self.done >= self.total

    def fields(self) -> list[str]:
        """Return the fields as text, in the order of HEADS."""
        return [
            self.label,
            self.title,
            f"{self.done} of {self.total}",
            f"{self.within} of {self.comparable}" if self.comparable else "–",
            *(str(count) if sum(self.verdicts) else "–" for count in self.verdicts),
            self.command,
        ]


def states(frame: pd.DataFrame, roots: Iterable[Path], figures: Path, *, smoke: bool = False) -> list[State]:
    """Return the state of every sweep file, and of the figures without a sweep file of their own."""
    found = [_of_sweep(specs.load(name, smoke=smoke), frame, list(roots)) for name in specs.names()]
    return sorted(found + _other_figures(figures), key=_order)


def _order(state: State) -> tuple[int, int, str]:
    """Return a sort key: tables by number, figures by number, the rest by name."""
    kind, _, number = state.label.partition(" ")
    digits = "".join(character for character in number if character.isdigit())
    return {"Table": 0, "Figure": 1}.get(kind, 2), int(digits or 0), state.label


def _of_sweep(spec: Spec, frame: pd.DataFrame, roots: list[Path]) -> State:
    if spec.trials is not None:
        done = sum(_finished_trials(root / spec.folder) for root in roots)
        return State(spec.label, spec.title, done, spec.trials, 0, 0, NONE, spec.command)
    built = table.build(spec, frame)
    within = [entry.within for entry in built.entries if entry.within is not None]
    reached = Counter(check.verdict for check in verdicts.check(built))
    return State(
        spec.label,
        spec.title,
        built.done,
        len(spec.cells),
        sum(within),
        len(within),
        tuple(reached[verdict] for verdict in VERDICTS),
        spec.command,
    )


def _finished_trials(folder: Path) -> int:
    """Return the number of a search's finished trials, from its results file or, without one, from the runs."""
    try:
        return int(yaml.safe_load((folder / "optimization_results.yaml").read_text(encoding="utf-8"))["over"])
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        pass
    count = 0
    for path in folder.glob("trial-*/run.json"):
        try:
            count += json.loads(path.read_text(encoding="utf-8")).get("status") == "complete"
        except (OSError, ValueError, AttributeError):
            continue
    return count


def _other_figures(folder: Path) -> list[State]:
    from molsam.report.figures.recipes import RECIPES

    return [
        State(f"Figure {name}", recipe.title, int((folder / f"figure{name}.png").is_file()), 1, 0, 0, NONE,
              f"{program()} figure {name} --make -o {folder}")
        for name, recipe in RECIPES.items()
        if recipe.sweep is None or recipe.sweep.removeprefix("fig") not in name
    ]  # fmt: skip


def markdown(found: list[State], *, smoke: bool) -> str:
    """Return the page as Markdown."""
    lines = ["# Tables and figures of the paper, and where ours stand", ""]
    lines += [SMOKE_NOTE, ""] if smoke else []
    lines += ["| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    for state in found:
        cells = [escape.markdown(text) for text in state.fields()[:-1]]
        lines.append("| " + " | ".join([*cells, f"`{state.command}`"]) + " |")
    return "\n".join([*lines, "", _sum(found)]) + "\n"


def terminal(found: list[State], *, smoke: bool) -> tuple[RichTable, str]:
    """Return the page for the terminal: a table and a sentence."""
    from rich.table import Table as RichTable

    grid = RichTable(
        caption="within: cells within one published standard deviation; yes, no, open: claims confirmed, contradicted, "
        "undecided; none: without a pair of runs"
    )
    heads = (("", 17), ("cells", 11), ("within", 10), ("yes", 4), ("no", 4), ("open", 4), ("none", 4))
    for head, width in heads:
        grid.add_column(head, no_wrap=True, width=width, overflow="ellipsis")
    for state in found:
        label, _, *counts, _ = state.fields()
        grid.add_row(*(screen.text(text, style="" if state.complete else "yellow") for text in (label, *counts)))
    return grid, _sum(found) + (f" {SMOKE_NOTE}" if smoke else "")


def _sum(found: list[State]) -> str:
    complete = sum(state.complete for state in found)
    return f"{complete} of {len(found)} are complete."
