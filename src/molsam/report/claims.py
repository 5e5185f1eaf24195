"""All claims of the paper on one page: the section, our verdict, and the commands that reproduce it."""

from __future__ import annotations

import csv
import html
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from itertools import groupby
from typing import TYPE_CHECKING

import yaml

from molsam import terminal as screen
from molsam.config.command import program
from molsam.report import escape, render, specs, table, verdicts, words
from molsam.report.specs import Spec
from molsam.report.verdicts import VERDICTS, Check

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import RenderableType

SECTIONS = {
    "main_claim": "5.2.1, Table 1", "main_claim_more": "5.2.1, Table 1", "Table 1": "5.2.1", "Table 2": "5.2.2",
    "Table 3": "5.2.3", "Table 6": "A.3", "Table 7": "5.2.2, A.5", "Table 8": "5.2.3, A.6", "Table 9": "5.2.3, A.6",
    "Table 10": "A.7", "Table 11": "A.8", "Figure 1": "3.2", "Figure 3": "4.1, 4.2", "Figure 6": "5.2.3",
    "Figure 7": "A.6",
}  # fmt: skip
"""Sections of the paper with the claims about a table or figure."""
EXTRA = "not in the paper"
FIRST = ("main_claim", "main_claim_more")
"""Sweeps that take precedence if two test the same claim on equally many splits."""
LINE_HEADS = (*render.CLAIM_HEADS[:-1], "late score", "")
INTRODUCTION = (
    "Each claim compares two rows of a table on one dataset. "
    + words.CLAIM_NOTE
    + " Late score: the same verdict with the test metric averaged over the last fifth of the epochs."
)
STYLE = (
    "<style>body{font:15px sans-serif;margin:2em;max-width:80em}table{border-collapse:collapse}"
    "td,th{border-bottom:1px solid #ccc;padding:.2em .6em;text-align:left}"
    ".confirmed{background:#dff0e4}.contradicted{background:#f6dfdc}</style>"
)


@dataclass(frozen=True)
class Finding:
    """A claim with its verdicts on both scores, the sweep that tested it, and its section of the paper."""

    spec: Spec
    section: str
    check: Check
    late: Check

    @property
    def place(self) -> str:
        """Section and table: `5.2.3, Table 3`."""
        label = self.spec.label
        return (
            self.section
            if self.spec.extra or label == self.spec.name or label in self.section
            else f"{self.section}, {label}"
        )

    def fields(self) -> list[str]:
        """Return its fields as text, in the order of LINE_HEADS."""
        *front, after = render.claim_fields(self.check)
        return [*front, late_words(self.late), after]


@dataclass(frozen=True)
class Statement:
    """A statement of the paper that no pair of rows tests: what is known about it, and a command that shows it."""

    text: str
    section: str
    answer: str
    command: str = ""


def find(frame: pd.DataFrame) -> list[Finding]:
    """Return the claims of all sweep files. If two sweeps test the same claim, the one with more splits counts."""
    found: dict[tuple[str, ...], Finding] = {}
    for name in sorted(specs.names(), key=lambda name: name not in FIRST):
        spec = specs.load(name)
        if spec.trials is not None or not spec.claims:
            continue
        both = [verdicts.check(table.build(spec, frame, score)) for score in ("score", "late")]
        for check, late in zip(*both, strict=True):
            claim = check.claim
            alone = spec.extra or " + " not in claim.better
            key = (name if alone else "", claim.better, claim.than, claim.metric, check.dataset)
            section = EXTRA if spec.extra else claim.section or SECTIONS.get(spec.label, "")
            if key not in found or check.estimate.n > found[key].check.estimate.n:
                found[key] = Finding(spec, section, check, late)
    return list(found.values())


def statements() -> list[Statement]:
    """Return the paper's statements that are not comparisons of two rows."""
    text = resources.files("molsam.report").joinpath("statements.yaml").read_text(encoding="utf-8")
    return [Statement(**entry) for entry in yaml.safe_load(text)]


def late_words(check: Check) -> str:
    """Return a verdict such as `undecided, +0.0065 [−0.0065, +0.0194] (7)`; a dash if no run tested every epoch."""
    if check.estimate.mean is None:
        return "–"
    return f"{check.verdict}, {words.lead(check)} ({check.estimate.n})"


def summary(found: Iterable[Finding]) -> str:
    """Return the counts of verdicts on the paper's claims: `Of 120 claims 3 are confirmed, ...`."""
    counts = Counter(one.check.verdict for one in found if not one.spec.extra)
    parts = []
    for verdict in VERDICTS:
        one = counts[verdict] == 1
        lacks, is_ = ("has", "is") if one else ("have", "are")
        what = f"{lacks} no pair of runs" if verdict == verdicts.NO_PAIR else f"{is_} {verdict}"
        parts.append(f"{counts[verdict]} {what}")
    total, listed = sum(counts.values()), ", ".join(parts[:-1])
    return f"Of {total} claims (a claim on a dataset counts as one), {listed}, and {parts[-1]}."


def commands(spec: Spec) -> list[str]:
    """Return the commands that train a sweep and print its verdicts."""
    return [spec.command, f"{program()} report --table {spec.file}"]


def _sections(found: Iterable[Finding]) -> list[tuple[str, Spec, list[Finding]]]:
    groups = []
    for name, own in groupby(sorted(found, key=_order), key=lambda one: one.spec.file):
        members = list(own)
        groups.append((f"{members[0].place}: {specs.load(name).title}", members[0].spec, members))
    return groups


def _order(one: Finding) -> tuple[bool, bool, int]:
    return one.spec.extra, one.spec.file not in FIRST, specs.names().index(one.spec.file)


def terminal(found: list[Finding]) -> list[RenderableType]:
    """Return the page for the terminal: the verdicts, except those without a pair of runs."""
    parts: list[RenderableType] = [screen.text(summary(found))]
    for title, _, members in _sections(found):
        pairs = [one for one in members if one.check.verdict != verdicts.NO_PAIR]
        if not pairs:
            parts.append(screen.text(f"{title}: no pair of runs", style="yellow"))
            continue
        parts.append(screen.text(title, style="bold"))
        for text, own in groupby(pairs, key=lambda one: one.check.claim.text):
            parts += [
                screen.text(f"Claim: {text}"),
                *(screen.text(f"  {line}") for one in own for line in words.claim(one.check)),
            ]
    return [*parts, screen.text(words.CLAIM_NOTE, style="dim")]


def markdown(found: list[Finding]) -> str:
    """Return the page as Markdown."""
    lines = ["# The paper's claims and our verdicts", "", summary(found), "", INTRODUCTION]
    for title, spec, members in _sections(found):
        lines += ["", f"## {escape.markdown(title)}", "", "```bash", *commands(spec), "```", ""]
        lines += ["| " + " | ".join(LINE_HEADS) + " |", "|---|---|---|---:|---:|---:|---:|---:|---|"]
        lines += ["| " + " | ".join(map(escape.markdown, one.fields())) + " |" for one in members]
    lines += [
        "",
        "## Statements that no pair of rows tests",
        "",
        "| statement | section | what is known | command |",
        "|---|---|---|---|",
    ]
    for one in statements():
        command = f"`{one.command}`" if one.command else ""
        cells = [escape.markdown(text) for text in (one.text, one.section, one.answer)]
        lines.append("| " + " | ".join([*cells, command]) + " |")
    return "\n".join(lines) + "\n"


def comma_separated(found: list[Finding]) -> str:
    """Return CSV with a line for each claim and dataset, in full precision."""
    records = [_record(one) for one in found]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: " ".join(v) if isinstance(v, list) else v for key, v in record.items()} for record in records
    )
    return text.getvalue()


def _record(one: Finding) -> dict[str, object]:
    late = one.late.estimate
    return {
        "place": one.place, "sweep": one.spec.file, **render.claim_numbers(one.check), "section": one.section,
        "late_verdict": one.late.verdict, "late_n": late.n, "late_lead": late.mean, "late_low": late.low,
        "late_high": late.high, "command": one.spec.command,
    }  # fmt: skip


def as_json(found: list[Finding]) -> str:
    """Return claims and statements as JSON."""
    body = {"claims": [_record(one) for one in found], "statements": [vars(one) for one in statements()]}
    return json.dumps(body, indent=1, allow_nan=False) + "\n"


def latex(found: list[Finding]) -> str:
    """Return a LaTeX longtable with a line for each claim and dataset."""
    heads = ("section", *LINE_HEADS[:-1])
    lines = [
        f"% {escape.latex(summary(found))}",
        r"\begin{longtable}{lp{4cm}llrrrrr}",
        " & ".join(map(escape.latex, heads)) + r" \\ \hline \endhead",
    ]
    for one in found:
        cells = [one.place, *one.fields()[:-1]]
        lines.append(" & ".join(escape.latex(text.replace("–", "--")) for text in cells) + r" \\")
    return "\n".join([*lines, r"\end{longtable}"]) + "\n"


def as_html(found: list[Finding]) -> str:
    """Return the page as HTML, in one file without scripts."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>The paper's claims and our verdicts</title>",
        STYLE,
        f"<h1>The paper's claims and our verdicts</h1><p>{html.escape(summary(found))}</p>",
        f"<p>{html.escape(INTRODUCTION)}</p>",
    ]
    for title, spec, members in _sections(found):
        parts.append(f"<h2>{html.escape(title)}</h2><pre>{html.escape(chr(10).join(commands(spec)))}</pre><table>")
        parts.append(_html_row("th", LINE_HEADS, ""))
        parts += [_html_row("td", one.fields(), one.check.verdict) for one in members]
        parts.append("</table>")
    parts.append("<h2>Statements that no pair of rows tests</h2><table>")
    parts += [_html_row("td", (one.text, one.section, one.answer, one.command), "") for one in statements()]
    return "\n".join([*parts, "</table></html>"]) + "\n"


def _html_row(tag: str, cells: Iterable[str], kind: str) -> str:
    inner = "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)
    return f'<tr class="{kind.replace(" ", "-")}">{inner}</tr>'


FORMS: dict[str, Callable[[list[Finding]], str]] = {
    "md": markdown,
    "csv": comma_separated,
    "tex": latex,
    "json": as_json,
    "html": as_html,
}
"""Suffix of a file -> the function that writes its format."""
