"""Numbers and sentences that every form of a report shares."""

from __future__ import annotations

from molsam.report.claims import Check
from molsam.report.published import Published
from molsam.report.table import Entry, Stat, Table

NAMES = {
    "bbbp": "BBBP", "tox21": "Tox21", "sider": "Sider", "clintox": "ClinTox", "esol": "ESOL", "freesolv": "FreeSolv",
    "lipophilicity": "Lipophilicity", "qm7": "QM7", "qm8": "QM8", "bace": "BACE", "huuskonen": "Huuskonen",
    "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "accuracy": "accuracy, %",
    "roc_auc": "ROC-AUC", "rmse": "RMSE", "mae": "MAE", "graphs_per_s": "graphs/s", "percent_of_sam": "% of SAM",
    "n_molecules": "molecules", "n_tasks": "tasks", "seconds_per_epoch": "s/epoch",
    "consistent_percent": "% consistent",
}  # fmt: skip


def name(text: str) -> str:
    """How a dataset, metric or column is written."""
    return NAMES.get(text, text)


def column(table: Table, dataset: str, kind: str) -> str:
    """The head of a column: `BBBP ROC-AUC`."""
    metric = next((e.metric for e in table.entries if e.dataset == dataset and e.column == kind and e.ours), kind)
    return name(dataset) if metric == "score" else f"{name(dataset)} {name(metric)}"


def ours(entry: Entry) -> str:
    """`0.511 ± 0.018 (5)`, or a dash; `(3 of 5)` while cells are missing."""
    if entry.ours is None:
        return "–"
    count = str(entry.ours.n) if entry.ours.n == entry.expected else f"{entry.ours.n} of {entry.expected}"
    return f"{_mean_std(entry.ours, entry.decimals)} ({count})"


def paper(entry: Entry) -> str:
    """`0.511 ± 0.018`, or a dash."""
    return "–" if entry.paper is None else _mean_std(entry.paper, entry.decimals)


def difference(entry: Entry) -> str:
    """`+0.004`, with a tick within one printed standard deviation; a dash if one of the two is missing."""
    if entry.difference is None:
        return "–"
    return signed(entry.difference, entry.decimals) + (" ✓" if entry.within else "")


def signed(value: float, decimals: int) -> str:
    """With its sign; nothing is -0."""
    text = f"{value:+.{decimals}f}"
    return text.replace("-", "+") if float(text) == 0 else text.replace("-", "−")


def claim(check: Check) -> str:
    """`ESOL: holds, +0.012 [+0.003, +0.021], 5 pairs; the paper: +0.046`."""
    parts = [f"{name(check.dataset)}: {check.verdict}"]
    if check.mean is not None:
        digits = 1 if check.claim.metric == "graphs_per_s" else 4
        text = signed(check.mean, digits)
        if check.low is not None and check.high is not None:
            text += f" [{signed(check.low, digits)}, {signed(check.high, digits)}]"
        parts.append(f"{text}, {check.n} {'pair' if check.n == 1 else 'pairs'}")
    said = f"; the paper: {signed(check.paper, 3)}" if check.paper is not None else ""
    return ", ".join(parts) + said


CLAIM_NOTE = (
    "Mean difference over pairs of equal dataset, fold and seed, positive where the claim is right, with its 95 % "
    "confidence interval (Student's t)."
)
SCORE_NOTE = (
    "Ours: mean ± standard deviation (number of cells) of the test metric at the epoch that is best on validation; "
    "then the paper's; then the difference, with ✓ within one printed standard deviation."
)
COUNT_NOTE = "Ours: what the cells counted in the file (number of cells); then the paper's; then the difference."


def cell_note(table: Table) -> str:
    """How to read a cell."""
    return SCORE_NOTE if "score" in table.spec.columns else COUNT_NOTE


def state(table: Table) -> str:
    """`12 of 60 cells are done.`"""
    return f"{table.done} of {len(table.spec.cells)} cells are done."


def _mean_std(value: Stat | Published, decimals: int) -> str:
    text = f"{value.mean:.{decimals}f}"
    return text if value.std is None else f"{text} ± {value.std:.{decimals}f}"
