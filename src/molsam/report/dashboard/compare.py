"""Comparison of groups of runs: scores with intervals, leads over a reference, verdicts, and equal time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from statistics import fmean, median
from typing import Any

from molsam.report import inference
from molsam.report.inference import LEVEL, Estimate
from molsam.report.pairs import FIXED_TEST, Paired, Units, averaged, matched
from molsam.report.specs import Claim
from molsam.report.stored import Row, StoredRun
from molsam.report.verdicts import MARGINS, RELATIVE, UNDECIDED, Check

MOST = 24
"""Largest number of groups of a benchmark that are compared; those with the most runs are chosen."""


@dataclass(frozen=True, eq=False)
class Scored:
    """A finished run with the scores that comparisons need.

    Attributes:
        run: the run.
        late: the mean test metric over the last fifth of the epochs, if known.
        valid, test: the metric at every epoch; None where it was not computed.
    """

    run: StoredRun
    late: float | None
    valid: tuple[float | None, ...]
    test: tuple[float | None, ...]

    @classmethod
    def of(cls, run: StoredRun, epochs: list[Row]) -> Scored:
        """Return a run with the scores in its epoch lines."""
        metric = run.result["metric"]
        columns = [tuple(row.get(f"{part}/{metric}") for row in epochs) for part in ("valid", "test")]
        return cls(run, run.late_of(epochs), *columns)

    @property
    def unit(self) -> tuple[str, int]:
        """Its split and its training seed."""
        split = self.run.result["split"].get("hash") or self.run.pair
        return f"{(self.run.result.get('data') or {}).get('hash')} {split}", int(self.run.result["seed"])

    @property
    def pace(self) -> float:
        """Seconds per epoch; 0 if they were not measured."""
        return float(self.run.result.get("seconds_per_epoch") or 0.0)

    def within(self, allowed: int) -> float | None:
        """Return the test metric at the epoch that is best on validation among the first `allowed`.

        None if that epoch was not tested (training.test_each_epoch=false).
        """
        best = int(self.run.result["best_epoch"])
        if best < allowed:
            return self.run.test
        known = [(value, place) for place, value in enumerate(self.valid[:allowed]) if value is not None]
        if not known:
            return None
        sign = 1 if self.run.result["direction"] == "max" else -1
        _, place = max(known, key=lambda one: (sign * one[0], -one[1]))
        return self.test[place] if place < len(self.test) else None


@dataclass(frozen=True)
class Group:
    """The finished runs of one group. `paper` is the paper's score for it."""

    runs: tuple[Scored, ...]
    paper: float | None = None

    @property
    def sign(self) -> int:
        """1 if larger scores are better, else -1."""
        return 1 if self.runs[0].run.result["direction"] == "max" else -1

    @property
    def fixed(self) -> bool:
        """Whether all splits have the same test set."""
        return str(self.runs[0].run.setting("split.kind")) in FIXED_TEST

    @cached_property
    def ratio(self) -> float:
        """Ratio of the number of test molecules to that of training molecules."""
        sizes = [one.run.result["split"]["sizes"] for one in self.runs]
        return fmean(size[-1] / size[0] for size in sizes)

    @cached_property
    def seconds(self) -> float:
        """Duration of a run: epochs times seconds per epoch, median over the runs."""
        return median(one.pace * one.run.result["epochs"] for one in self.runs)

    @cached_property
    def best(self) -> Units:
        """The test metric at the epoch best on validation, by split and seed."""
        return _units((one.unit, one.run.test) for one in self.runs)

    @cached_property
    def late(self) -> Units:
        """The mean test metric over the last fifth of the epochs."""
        return _units((one.unit, one.late) for one in self.runs)

    def within(self, seconds: float) -> Units:
        """Return the test metric within a time (`Scored.within`), by split and seed.

        All runs are given the same number of epochs, by their median pace: one that was interrupted is no worse for it.
        """
        pace = median(one.pace for one in self.runs)
        return _units((one.unit, one.within(int(seconds / pace + 1e-6))) for one in self.runs)

    def level(self, values: Units) -> Paired:
        """Return the mean of the values for each split."""
        by_split: dict[str, list[float]] = {}
        for (split, _), value in sorted(values.items()):
            by_split.setdefault(split, []).append(value)
        return averaged(by_split, self.ratio, fixed=self.fixed)

    def score(self, values: Units) -> dict[str, Any] | None:
        """Return mean, standard deviation, number of splits and 95 % interval; None without a value."""
        found = self.level(values)
        return None if not found.differences else _plain(found.estimate)


def _units(values: Any) -> Units:
    """Return values by split and seed; repeats (runs of equal split and seed) are averaged."""
    found: dict[tuple[str, int], list[float]] = {}
    for unit, value in values:
        if value is not None and math.isfinite(value):
            found.setdefault(unit, []).append(float(value))
    return {unit: fmean(own) for unit, own in found.items()}


def table(groups: Mapping[int, Group]) -> dict[int, list[dict[str, Any]]]:
    """Return for each group, as the reference, the leads of all others over it, positive if they are better.

    Groups are identified by their numbers. The p values of one reference's comparisons are corrected by Holm's method.
    """
    ranked = sorted((key for key, one in groups.items() if one.best), key=lambda key: (-len(groups[key].best), key))
    kept = sorted(ranked[:MOST])
    equal = {(a, b): _pair(groups[a], groups[b]) for i, a in enumerate(kept) for b in kept[i + 1 :]}
    timed = {(a, b): _timed(groups[a], groups[b]) for a, b in equal}
    found = {}
    for reference in kept:
        others = [key for key in kept if key != reference and _turned(equal, key, reference).differences]
        if others:
            sides = [_against(groups, reference, others, pairs) for pairs in (equal, timed)]
            found[reference] = [
                # Runs without a tested epoch are not a random sample, so if one is missing, there is no comparison.
                {"group": other, **whole, "time": time if time["n"] == whole["n"] else None}
                for other, whole, time in zip(others, *sides, strict=True)
            ]
    return found


def _pair(one: Group, two: Group) -> Paired:
    return matched(one.best, two.best, one.sign, one.ratio, fixed=one.fixed)


def _timed(one: Group, two: Group) -> Paired:
    """Return the comparison within the time of the faster group; empty if one was not timed (a baseline)."""
    if not (one.seconds and two.seconds):
        return Paired((), 0.0, False)
    budget = min(one.seconds, two.seconds)
    # In the faster group all epochs count, even of runs that are slower than its median.
    first, second = (group.best if group.seconds <= budget else group.within(budget) for group in (one, two))
    return matched(first, second, one.sign, one.ratio, fixed=one.fixed)


def _turned(pairs: Mapping[tuple[int, int], Paired], one: int, two: int) -> Paired:
    if (one, two) in pairs:
        return pairs[one, two]
    found = pairs[two, one]
    return Paired(tuple(-value for value in found.differences), found.ratio, found.fixed)


def _against(
    groups: Mapping[int, Group], reference: int, others: Sequence[int], pairs: Mapping[tuple[int, int], Paired]
) -> list[dict[str, Any]]:
    own = [_turned(pairs, other, reference) for other in others]
    estimates = [one.estimate for one in own]
    adjusted = inference.holm([one.p for one in estimates])
    margin = margin_of(groups[reference])
    # Holm's method divides the level among those that are not decided yet.
    open_ones = sum(p is not None and p >= LEVEL for p in adjusted)
    found = []
    for other, paired, one, p in zip(others, own, estimates, adjusted, strict=True):
        paper = _paper(groups[other], groups[reference])
        verdict = judge(one, p, margin)
        effect = abs(paper) if paper else margin
        needed = _needed(effect, one, paired.ratio, open_ones) if verdict == UNDECIDED else None
        stated = None if paper is None else on_paper(one, p, paper)
        found.append(
            {**_plain(one), "p": _round(p), "verdict": verdict, "needed": needed, "effect": _round(effect),
             "fixed": paired.fixed, "margin": _round(margin), "paper": _round(paper), "stated": stated}
        )  # fmt: skip
    return found


def judge(found: Estimate, p: float | None, margin: float) -> str:
    """Return better or worse (after Holm's correction), equal (the interval is within the margin) or undecided."""
    if found.mean is None:
        return "no pair"
    if found.low is None or found.high is None or p is None:
        return UNDECIDED
    if p < LEVEL:
        return "better" if found.mean > 0 else "worse"
    return "equal" if -margin < found.low and found.high < margin else UNDECIDED


def on_paper(found: Estimate, p: float | None, paper: float) -> str:
    """Return the verdict on the paper's difference: confirmed, contradicted or undecided."""
    turned = found if paper > 0 else _other_way(found)
    return Check(Claim("", "", ""), "", turned, abs(paper), None, holm=p).verdict


def _other_way(found: Estimate) -> Estimate:
    """Return the difference with the opposite sign."""
    return replace(found, mean=_minus(found.mean), low=_minus(found.high), high=_minus(found.low))


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def margin_of(group: Group) -> float:
    """Return the smallest difference to a group that matters: 0.01 of a ROC-AUC, 2 % of an error."""
    metric = group.runs[0].run.result["metric"]
    return MARGINS.get(metric) or RELATIVE * abs(fmean(group.best.values()))


def _paper(one: Group, two: Group) -> float | None:
    if one.paper is None or two.paper is None or one.paper == two.paper:
        return None
    return one.sign * (one.paper - two.paper)


def _needed(effect: float, found: Estimate, ratio: float, open_ones: int) -> int | None:
    """Return the number of splits that would decide, 0 if no number can; None if it is unknown."""
    if found.spread is None or not effect:
        return None
    return _splits(float(f"{effect / max(found.spread, 1e-12):.2g}"), round(ratio, 3), open_ones) or 0


@lru_cache(maxsize=4096)
def _splits(effect: float, ratio: float, open_ones: int) -> int | None:
    return inference.splits_for(effect, 1.0, ratio, LEVEL / max(1, open_ones))


def _plain(found: Estimate) -> dict[str, Any]:
    return {"n": found.n, "mean": _round(found.mean), "std": _round(found.spread), "low": _round(found.low),
            "high": _round(found.high)}  # fmt: skip


def _round(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
