"""Output of a table to the terminal, and as Markdown, CSV, LaTeX and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from molsam import terminal as screen
from molsam.files import csv_text
from molsam.report import escape, words
from molsam.report.table import Entry, Table
from molsam.report.verdicts import Check

if TYPE_CHECKING:
    from rich.console import RenderableType

SHOWN_MISSING = 12
"""Number of missing cells named in the terminal; the files name all."""
CLAIM_HEADS = ("claim", "dataset", "verdict", "lead [95 % interval]", "n", "p (Holm)", "paper", "")


def terminal(table: Table, checks: Sequence[Check]) -> list[RenderableType]:
    """Return the table, verdicts and missing cells for the terminal, at most 80 columns wide."""
    found: list[RenderableType] = [screen.text(f"{table.spec.label}: {table.spec.title}", style="bold")]
    found += [_grid(table, list(entries)) for _, entries in _quantities(table)]
    found += [screen.text(words.cell_note(table), style="dim"), screen.text(words.state(table))]
    found += [screen.text(f"Note: {remark}") for remark in table.remarks]
    found += [screen.text(words.noise(one)) for one in table.noise]
    for text, group in groupby(checks, key=lambda check: check.claim.text):
        found.append(screen.text(f"Claim: {text}", style="bold"))
        found += [screen.text(f"  {line}") for check in group for line in words.claim(check)]
    found += [screen.text(words.CLAIM_NOTE, style="dim")] if checks else []
    if table.missing:
        shown = [*table.missing[:SHOWN_MISSING], *(["..."] if len(table.missing) > SHOWN_MISSING else [])]
        found += [
            screen.text("Missing: " + ", ".join(shown)),
            *(screen.text(sentence) for sentence in table.spec.needs),
        ]
        found.append(screen.text(f"  {table.spec.command}"))
    return found


def _grid(table: Table, entries: list[Entry]) -> RenderableType:
    from rich import box
    from rich.table import Table as RichTable

    title = words.column(table, entries[0].dataset, entries[0].column)
    grid = RichTable(title=screen.text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    labels = [label for label in words.LABELS if label != "s.e." or entries[0].column == "score"]
    for label in labels:
        grid.add_column(screen.text(label), justify="left" if label == "row" else "right", no_wrap=label != "row")
    for entry in entries:
        fields = dict(zip(words.LABELS, _fields(entry), strict=True))
        grid.add_row(*(screen.text(fields[label]) for label in labels))
    return grid


def markdown(table: Table, checks: Sequence[Check]) -> str:
    """Return a section in Markdown: the table, remarks, claims and missing cells."""
    lines = [f"## {escape.markdown(table.spec.label)}: {escape.markdown(table.spec.title)}", "", *entry_lines(table)]
    lines += ["", words.cell_note(table), "", words.state(table)]
    lines += [escape.markdown(remark) for remark in table.remarks]
    lines += [escape.markdown(words.noise(one)) for one in table.noise]
    lines += ["", *claim_lines(checks), "", words.CLAIM_NOTE] if checks else []
    if table.missing:
        lines += ["", *map(escape.markdown, table.spec.needs), "Missing cells:", ""]
        lines += [f"- {escape.markdown(name)}" for name in table.missing]
        lines += ["", "They are run by", "", f"    {table.spec.command}"]
    return "\n".join(lines) + "\n"


def entry_lines(table: Table) -> list[str]:
    """Return the numbers as a Markdown table, with a line for each dataset and row."""
    lines = ["| | " + " | ".join(words.LABELS) + " |", "|---|---|" + "---:|" * (len(words.LABELS) - 1)]
    for title, entries in _quantities(table):
        for place, entry in enumerate(entries):
            row, *numbers = _fields(entry)
            head = escape.markdown(title) if place == 0 else ""
            lines.append(f"| {head} | {escape.markdown(row)} | " + " | ".join(numbers) + " |")
    return lines


def claim_lines(checks: Sequence[Check]) -> list[str]:
    """Return the verdicts as a Markdown table."""
    lines = ["| " + " | ".join(CLAIM_HEADS) + " |", "|---|---|---|---:|---:|---:|---:|---|"]
    for check in checks:
        lines.append("| " + " | ".join(escape.markdown(text) for text in claim_fields(check)) + " |")
    return lines


def claim_fields(check: Check) -> list[str]:
    """Return a verdict as text, in the order of CLAIM_HEADS."""
    return [
        check.claim.text,
        words.name(check.dataset),
        check.verdict,
        words.lead(check),
        str(check.estimate.n),
        words.p_value(check.holm),
        words.stated(check),
        words.outlook(check),
    ]


def comma_separated(table: Table) -> str:
    """Return CSV with a line for each row, dataset and column: ours, the paper's, the difference, and the cost."""
    lines: list[list[Any]] = [
        ["table", "row", "dataset", "metric", "mean", "std", "standard_error", "n", "expected", "paper_mean",
         "paper_std", "difference", "within_one_std", "seconds_mean", "gradient_passes_mean"]
    ]  # fmt: skip
    for entry in table.entries:
        values = _numbers(table, entry).values()
        lines.append([table.spec.folder, *("" if value is None else value for value in values)])
    return csv_text(lines, end="\n")


def _numbers(table: Table, e: Entry) -> dict[str, Any]:
    own = table.runs[(table.runs["row"] == e.row) & (table.runs["dataset"] == e.dataset)]
    mean, std, n = e.ours or (None, None, 0)
    paper_mean, paper_std = (e.paper.mean, e.paper.std) if e.paper else (None, None)
    seconds, passes = (float(own[key].astype(float).mean()) if len(own) else None
                       for key in ("seconds", "gradient_passes"))  # fmt: skip
    return {
        "row": e.row, "dataset": e.dataset, "metric": e.metric, "mean": mean, "std": std, "standard_error": e.error,
        "n": n, "expected": e.expected, "paper_mean": paper_mean, "paper_std": paper_std, "difference": e.difference,
        "within_one_std": e.within, "seconds_mean": seconds, "gradient_passes_mean": passes,
    }  # fmt: skip


def as_json(table: Table, checks: Sequence[Check]) -> str:
    """Return the numbers, verdicts, repeat noise and missing cells as JSON."""
    found = {
        "table": table.spec.folder,
        "title": table.spec.title,
        "score": table.score,
        "command": table.spec.command,
        "entries": [_numbers(table, entry) for entry in table.entries],
        "claims": [claim_numbers(check) for check in checks],
        "repeat_noise": [vars(one) for one in table.noise],
        "missing": list(table.missing),
    }
    return json.dumps(found, indent=1, allow_nan=False) + "\n"


def claim_numbers(check: Check) -> dict[str, Any]:
    """Return a verdict in full precision."""
    found = check.estimate
    return {
        "claim": check.claim.text, "section": check.claim.section, "better": check.claim.better,
        "than": check.claim.than, "metric": check.claim.metric, "dataset": check.dataset, "verdict": check.verdict,
        "n": found.n, "lead": found.mean, "low": found.low, "high": found.high, "p": found.p, "p_holm": check.holm,
        "paper": check.paper, "margin": check.margin, "within_margin": check.equal,
        "one_test_set": check.fixed, "splits_needed": check.needed, "missing": list(check.missing),
    }  # fmt: skip


def latex(table: Table) -> str:
    """Return a LaTeX tabular with a line for each dataset and row."""
    lines = [
        f"% {escape.latex(table.spec.label)}: {escape.latex(table.spec.title)}. {escape.latex(words.state(table))}",
        r"\begin{tabular}{ll" + "r" * (len(words.LABELS) - 1) + "}",
        r"\hline",
        " & " + " & ".join(escape.latex(label) for label in words.LABELS) + r" \\",
    ]
    for title, entries in _quantities(table):
        lines.append(r"\hline")
        for place, entry in enumerate(entries):
            # No tick, because the difference says the same in numbers.
            cells = [escape.latex(text.replace(" ✓", "").replace("–", "--")) for text in _fields(entry)]
            lines.append(f"{escape.latex(title) if place == 0 else ''} & " + " & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\hline", r"\end{tabular}"]) + "\n"


def _fields(entry: Entry) -> list[str]:
    """Return an entry as text, in the order of words.LABELS."""
    return [
        entry.row,
        words.ours(entry),
        words.error(entry),
        words.count(entry),
        words.paper(entry),
        words.difference(entry),
    ]


def _quantities(table: Table) -> list[tuple[str, list[Entry]]]:
    """Return each quantity's title (`BBBP ROC-AUC`) with its entries, row by row."""
    found = []
    for dataset in table.spec.datasets:
        for column in table.spec.columns:
            own = [entry for entry in table.entries if (entry.dataset, entry.column) == (dataset, column)]
            found.append((words.column(table, dataset, column), own))
    return found
