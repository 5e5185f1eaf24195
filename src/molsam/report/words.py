"""Numbers and sentences as text, shared by all output formats of a report."""

from __future__ import annotations

from molsam.report import verdicts
from molsam.report.names import label
from molsam.report.pairs import Noise
from molsam.report.published import Published
from molsam.report.table import Entry, Stat, Table
from molsam.report.verdicts import Check

COLUMNS = {
    "graphs_per_s": "graphs/s", "percent_of_sam": "% of SAM",
    "n_molecules": "molecules", "n_tasks": "tasks", "seconds_per_epoch": "s/epoch",
    "consistent_percent": "% consistent",
}  # fmt: skip

DIGITS = {"graphs_per_s": 1, "consistent_percent": 1, "seconds_per_epoch": 2}
"""Number of decimals of a lead that is not a score."""
LABELS = ("row", "ours", "s.e.", "n", "paper", "ours − paper")


def name(text: str) -> str:
    """Return the display name of a dataset, metric or column."""
    return COLUMNS.get(text) or label(text)


def column(table: Table, dataset: str, kind: str) -> str:
    """Return the title of a column: `BBBP ROC-AUC`."""
    metric = next((e.metric for e in table.entries if e.dataset == dataset and e.column == kind and e.ours), kind)
    return name(dataset) if metric == "score" else f"{name(dataset)} {name(metric)}"


def ours(entry: Entry) -> str:
    """Return our value as `0.511 ± 0.018`, or a dash."""
    return "–" if entry.ours is None else _mean_std(entry.ours, entry.decimals)


def error(entry: Entry) -> str:
    """Return our standard error, or a dash."""
    return "–" if entry.error is None else f"{entry.error:.{entry.decimals}f}"


def count(entry: Entry) -> str:
    """Return the number of values: `5`, or `3 of 5` if cells are missing."""
    n = entry.ours.n if entry.ours else 0
    return str(n) if n == entry.expected else f"{n} of {entry.expected}"


def paper(entry: Entry) -> str:
    """Return the paper's value as `0.511 ± 0.018`, or a dash."""
    return "–" if entry.paper is None else _mean_std(entry.paper, entry.decimals)


def difference(entry: Entry) -> str:
    """Return `+0.004`, with a tick if within one printed standard deviation; a dash if a value is missing."""
    if entry.difference is None:
        return "–"
    return signed(entry.difference, entry.decimals) + (" ✓" if entry.within else "")


def signed(value: float, decimals: int) -> str:
    """Return a number with its sign; zero is never negative."""
    text = f"{value:+.{decimals}f}"
    return text.replace("-", "+") if float(text) == 0 else text.replace("-", "−")


def claim(check: Check) -> list[str]:
    """Return the verdict and its numbers in two lines; one line if there is no pair of runs."""
    after = outlook(check)
    head = f"{name(check.dataset)}: {check.verdict}" + (f"; {after}" if after else "")
    if check.verdict == verdicts.NO_PAIR:
        return [head]
    n = check.estimate.n
    unit = ("seed" if check.fixed else "split") + ("" if n == 1 else "s")
    facts = f"lead {lead(check)}, {n} {unit}, Holm p {p_value(check.holm)}; paper {stated(check)}"
    return [head, f"  {facts}"]


def lead(check: Check) -> str:
    """Return the mean difference and its interval: `+0.0120 [+0.0030, +0.0210]`."""
    found, digits = check.estimate, DIGITS.get(check.claim.metric, 4)
    if found.mean is None:
        return "–"
    text = signed(found.mean, digits)
    if found.low is None or found.high is None:
        return text
    return f"{text} [{signed(found.low, digits)}, {signed(found.high, digits)}]"


def stated(check: Check) -> str:
    """Return the paper's difference."""
    return "–" if check.paper is None else signed(check.paper, 3)


def p_value(value: float | None) -> str:
    """Return `0.031`, or `< 0.001`, or a dash."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def outlook(check: Check) -> str:
    """Return remarks on a verdict: the number of splits that would decide it, or the missing cells."""
    if check.verdict == verdicts.NO_PAIR:
        shown = ", ".join(check.missing[:2]) + (", ..." if len(check.missing) > 2 else "")
        return f"missing: {shown}" if check.missing else "no run of both rows on one split"
    notes = ["training noise alone"] if check.fixed else []
    if check.verdict == verdicts.UNDECIDED:
        notes.append(more(check))
    if check.equal and not check.claim.equal:
        notes.append(f"equal within {check.margin:.3f}")
    high, paper = check.estimate.high, check.paper
    if check.verdict == verdicts.CONFIRMED and high is not None and paper is not None and 0 < high < paper / 2:
        notes.append("less than half of the paper's")
    return "; ".join(notes)


def more(check: Check) -> str:
    """Return a remark on the number of splits that would decide a claim."""
    if check.estimate.spread is None:
        return "needs 2 splits for an interval"
    return (
        "not by more splits"
        if check.needed is None
        else f"needs about {max(check.needed, check.estimate.n + 1)} splits"
    )


def noise(found: Noise) -> str:
    """Return a sentence such as `Repeat noise on BBBP: 0.013 ROC-AUC (standard deviation between repeats ...).`"""
    settings = "1 setting" if found.settings == 1 else f"{found.settings} settings"
    return (
        f"Repeat noise on {name(found.dataset)}: {found.spread:.4f} {name(found.metric)} (standard deviation between "
        f"repeats of {settings}, {found.runs} runs)."
    )


CLAIM_NOTE = (
    "Lead: mean difference over n splits (training seeds and repeats averaged first), positive where the claim is "
    "right, with its 95 % interval corrected for overlapping splits (Nadeau and Bengio 2003). Confirmed: the lead is "
    "above zero after Holm's correction for the claims of the table. Contradicted: it is below zero, or the interval "
    "rules out even half of the paper's difference. The number of splits is for power 0.8 at the level that Holm "
    "leaves."
)
SCORE_NOTE = (
    "Ours: mean ± standard deviation of the test metric{where}; s.e.: its standard error, corrected for overlapping "
    "splits; n: cells; ✓: within one of the paper's standard deviations."
)
WHERE = {
    "score": " at the epoch that is best on validation",
    "late": ", averaged over the last fifth of the epochs",
}
COUNT_NOTE = "Ours: what the cells counted in the file; n: cells."


def cell_note(table: Table) -> str:
    """Return a note on how to read an entry."""
    return SCORE_NOTE.format(where=WHERE[table.score]) if "score" in table.spec.columns else COUNT_NOTE


def state(table: Table) -> str:
    """Return `12 of 60 cells are done.`"""
    return f"{table.done} of {len(table.spec.cells)} cells are done."


def _mean_std(value: Stat | Published, decimals: int) -> str:
    text = f"{value.mean:.{decimals}f}"
    return text if value.std is None else f"{text} ± {value.std:.{decimals}f}"
