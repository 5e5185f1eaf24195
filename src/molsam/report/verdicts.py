"""Verdicts on the paper's claims from our runs: confirmed, contradicted, undecided, or no pair of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from molsam.report import inference, published
from molsam.report.inference import LEVEL, Estimate
from molsam.report.pairs import paired

if TYPE_CHECKING:
    from molsam.report.specs import Claim
    from molsam.report.table import Table

CONFIRMED, CONTRADICTED, UNDECIDED, NO_PAIR = "confirmed", "contradicted", "undecided", "no pair"
VERDICTS = (CONFIRMED, CONTRADICTED, UNDECIDED, NO_PAIR)
MARGINS = {"roc_auc": 0.01, "accuracy": 1.0}
"""Largest differences that do not matter, if the paper has no difference to halve; errors use RELATIVE."""
RELATIVE = 0.02
"""Largest difference of an error that does not matter, relative to the error."""


@dataclass(frozen=True)
class Check:
    """The test of a claim on one dataset.

    Differences are positive if the claim is right (those of errors and times are negated).

    Attributes:
        estimate: mean difference over splits with its corrected 95 % interval.
        paper: the same difference of the printed means; None if the paper prints none.
        margin: differences within +-margin do not matter; None if it is unknown.
        fixed: whether all runs share one test set, so that the interval covers only training noise.
        holm: the p value, corrected for all claims of the table.
        level: the significance level for this claim by Holm's method.
        ratio: n_test/n_train of the splits.
        missing: names of the missing cells.
    """

    claim: Claim
    dataset: str
    estimate: Estimate
    paper: float | None
    margin: float | None
    fixed: bool = False
    holm: float | None = None
    level: float = LEVEL
    ratio: float = 0.0
    missing: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """One of VERDICTS."""
        found = self.estimate
        if found.mean is None:
            return NO_PAIR
        if found.low is None or found.high is None or self.holm is None:
            return UNDECIDED
        return self._of_equality(found.low, found.high) if self.claim.equal else self._of_order(found.mean, found.high)

    @property
    def equal(self) -> bool:
        """Whether the whole interval is within the margin."""
        low, high = self.estimate.low, self.estimate.high
        if low is None or high is None or self.margin is None:
            return False
        return -self.margin < low and high < self.margin

    @property
    def needed(self) -> int | None:
        """Number of splits that would decide on the paper's difference with power 0.8; None if no number can."""
        spread = self.estimate.spread
        if spread is None:
            return None
        if self.claim.equal:
            return inference.splits_for_equality(self.margin, spread, self.ratio) if self.margin else None
        effect = self.paper if self.paper is not None and self.paper > 0 else self.margin
        return inference.splits_for(effect, spread, self.ratio, self.level) if effect else None

    @property
    def rejected(self) -> bool:
        """Whether a difference of zero is rejected after Holm's correction."""
        return self.holm is not None and self.holm < LEVEL

    def _of_order(self, mean: float, high: float) -> str:
        if self.rejected and mean > 0:
            return CONFIRMED
        half_excluded = self.paper is not None and self.paper > 0 and high < self.paper / 2
        return CONTRADICTED if half_excluded or (self.rejected and mean < 0) else UNDECIDED

    def _of_equality(self, low: float, high: float) -> str:
        if self.equal:
            return CONFIRMED
        outside = self.margin is not None and (low > self.margin or high < -self.margin)
        return CONTRADICTED if outside and self.rejected else UNDECIDED


def check(table: Table) -> list[Check]:
    """Return the tests of all claims of a table on all datasets, with Holm's correction."""
    found = [
        _check(table, claim, dataset)
        for claim in table.spec.claims
        for dataset in claim.datasets or table.spec.datasets
        if dataset in table.spec.datasets
    ]
    return corrected(found)


def corrected(checks: Sequence[Check]) -> list[Check]:
    """Return the checks of one table with Holm's p values, and the level for those that are undecided."""
    adjusted = inference.holm([one.estimate.p for one in checks])
    tested = sum(p is not None for p in adjusted)
    decided = sum(p is not None and p < LEVEL for p in adjusted)
    level = LEVEL / max(1, tested - decided)
    return [replace(one, holm=p, level=level) for one, p in zip(checks, adjusted, strict=True)]


def _check(table: Table, claim: Claim, dataset: str) -> Check:
    pairs = paired(table.runs, claim.better, claim.than, claim.metric, dataset)
    paper = _paper(table, claim, dataset)
    return Check(
        claim,
        dataset,
        pairs.estimate,
        paper,
        _margin(table, claim, dataset, paper),
        fixed=pairs.fixed,
        ratio=pairs.ratio,
        missing=_missing(table, claim, dataset),
    )


def _paper(table: Table, claim: Claim, dataset: str) -> float | None:
    if claim.metric not in table.spec.columns:
        return None
    numbers = [table.entry(row, dataset, claim.metric).paper for row in (claim.better, claim.than)]
    if numbers[0] is None or numbers[1] is None:
        return None
    less_is_better = claim.metric == "score" and published.is_error(dataset)
    return (-1 if less_is_better else 1) * (numbers[0].mean - numbers[1].mean)


def _margin(table: Table, claim: Claim, dataset: str, paper: float | None) -> float | None:
    """Return half of the paper's difference; for claims of equality, or without one, `margin_of`."""
    if paper and not claim.equal:
        return abs(paper) / 2
    return margin_of(table, claim.than, dataset) if claim.metric == "score" else None


def margin_of(table: Table, row: str, dataset: str) -> float | None:
    """Return the largest difference to a row that does not matter: 0.01 of a ROC-AUC, 2 % of an error."""
    entry = table.entry(row, dataset, "score")
    if entry.metric in MARGINS:
        return MARGINS[entry.metric]
    level = entry.paper.mean if entry.paper else entry.ours.mean if entry.ours else None
    return None if level is None or entry.metric == "score" else RELATIVE * level


def _missing(table: Table, claim: Claim, dataset: str) -> tuple[str, ...]:
    gone = set(table.missing)
    wanted = (cell for cell in table.spec.cells if cell.values["dataset"] == dataset)
    return tuple(c.name for c in wanted if c.name in gone and c.values["row"] in (claim.better, claim.than))
