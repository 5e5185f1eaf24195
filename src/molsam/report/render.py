"""A table in the terminal, as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from molsam.report import escape, words
from molsam.report.claims import Check
from molsam.report.table import Entry, Table

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN_MISSING = 12
"""Names of missing cells in the terminal; the files name all."""


def terminal(table: Table, checks: Sequence[Check], width: int = 80) -> list[RenderableType]:
    """What a person sees; a table too wide for the terminal comes in parts."""
    from rich.text import Text

    title = Text(f"{table.spec.label}: {table.spec.title}", style="bold")
    found: list[RenderableType] = [
        title,
        *_grids(table, width),
        Text(words.cell_note(table), style="dim"),
        Text(words.state(table)),
    ]
    found += [Text(f"Note: {remark}") for remark in table.remarks]
    for text, group in groupby(checks, key=lambda check: check.claim.text):
        found += [Text(f"Claim: {text}"), *(Text(f"  {words.claim(check)}") for check in group)]
    found += [Text(words.CLAIM_NOTE, style="dim")] if checks else []
    if table.missing:
        shown = [*table.missing[:SHOWN_MISSING], *(["..."] if len(table.missing) > SHOWN_MISSING else [])]
        found += [Text("Missing: " + ", ".join(shown)), *(Text(sentence) for sentence in table.spec.needs)]
        found.append(Text(f"  {table.spec.command}"))
    return found


def _grids(table: Table, width: int) -> list[RenderableType]:
    """The table as one or several of at most `width` characters, each with all rows."""
    from rich.table import Table as RichTable
    from rich.text import Text

    lines = {row: ["\n".join([words.ours(e), words.paper(e), words.difference(e)]) for e in own]
             for row, own in _rows(table)}  # fmt: skip
    heads = [words.column(table, dataset, column).replace(" ", "\n", 1) for dataset, column in _columns(table)]
    sizes = [max(map(len, "\n".join([head, *(cells[i] for cells in lines.values())]).split("\n")))
             for i, head in enumerate(heads)]  # fmt: skip
    parts: list[list[int]] = []
    room = 0
    for place, size in enumerate(sizes):
        if size + 3 > room:
            parts.append([])
            room = width - max(map(len, lines)) - 4
        parts[-1].append(place)
        room -= size + 3
    grids: list[RenderableType] = []
    for part in parts:
        grid = RichTable(show_lines=True)
        grid.add_column("", no_wrap=True)
        for place in part:
            grid.add_column(Text(heads[place]), justify="right", no_wrap=True)
        for row, cells in lines.items():
            grid.add_row(Text(row), *(Text(cells[place]) for place in part))
        grids.append(grid)
    return grids


def markdown(table: Table, checks: Sequence[Check]) -> str:
    """A page section: the table, remarks, claims and missing cells."""
    heads = [escape.markdown(words.column(table, dataset, column)) for dataset, column in _columns(table)]
    lines = [f"## {escape.markdown(table.spec.label)}: {escape.markdown(table.spec.title)}", ""]
    lines += ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for row, entries in _rows(table):
        cells = [f"{words.ours(e)}<br>{words.paper(e)}<br>{words.difference(e)}" for e in entries]
        lines.append(f"| {escape.markdown(row)} | " + " | ".join(cells) + " |")
    lines += ["", words.cell_note(table), "", words.state(table)]
    lines += [escape.markdown(remark) for remark in table.remarks]
    for text, group in groupby(checks, key=lambda check: check.claim.text):
        lines += ["", f"Claim: {escape.markdown(text)}.", ""]
        lines += [f"- {escape.markdown(words.claim(check))}" for check in group]
    lines += ["", words.CLAIM_NOTE] if checks else []
    if table.missing:
        lines += ["", *map(escape.markdown, table.spec.needs), "Missing cells:", ""]
        lines += [f"- {escape.markdown(name)}" for name in table.missing]
        lines += ["", "They are run by", "", f"    {table.spec.command}"]
    return "\n".join(lines) + "\n"


def comma_separated(table: Table) -> str:
    """A line for each row, dataset and column: ours, the paper's, the difference, and what it cost."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["table", "row", "dataset", "metric", "mean", "std", "n", "expected", "paper_mean", "paper_std", "difference",
         "within_one_std", "seconds_mean", "gradient_passes_mean"]
    )  # fmt: skip
    for e in table.entries:
        own = table.runs[(table.runs["row"] == e.row) & (table.runs["dataset"] == e.dataset)]
        mean, std, n = e.ours or (None, None, 0)
        paper_mean, paper_std = (e.paper.mean, e.paper.std) if e.paper else (None, None)
        cost = [own[key].astype(float).mean() if len(own) else None for key in ("seconds", "gradient_passes")]
        values = [mean, std, n, e.expected, paper_mean, paper_std, e.difference, e.within, *cost]
        writer.writerow([table.spec.folder, e.row, e.dataset, e.metric, *("" if v is None else v for v in values)])
    return text.getvalue()


def latex(table: Table) -> str:
    """A tabular: three lines a row (ours, the paper's, the difference)."""
    columns = _columns(table)
    heads = [escape.latex(words.column(table, dataset, column)) for dataset, column in columns]
    lines = [
        f"% {escape.latex(table.spec.label)}: {escape.latex(table.spec.title)}. {escape.latex(words.state(table))}",
        r"\begin{tabular}{ll" + "r" * len(columns) + "}",
        r"\hline",
        " & & " + " & ".join(heads) + r" \\",
        r"\hline",
    ]
    for row, entries in _rows(table):
        for place, (label, form) in enumerate(
            (("ours", words.ours), ("paper", words.paper), ("difference", words.difference))
        ):
            # The difference says in numbers what the tick says in the terminal.
            cells = [escape.latex(form(entry).replace(" ✓", "").replace("–", "--")) for entry in entries]
            lines.append(f"{escape.latex(row) if place == 0 else ''} & {label} & " + " & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def _columns(table: Table) -> list[tuple[str, str]]:
    return [(dataset, column) for dataset in table.spec.datasets for column in table.spec.columns]


def _rows(table: Table) -> list[tuple[str, list[Entry]]]:
    return [(row, list(group)) for row, group in groupby(table.entries, key=lambda entry: entry.row)]
