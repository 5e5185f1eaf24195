"""docs/trust.md states the number of tests; they are counted here."""

from __future__ import annotations

from tests.data.test_fuzz import LONG, MANY
from tests.paths import ROOT
from tests.trust import test_faults, test_hostile, test_resume, test_security, test_soak
from tests.trust.helpers import MODELS, OPTIMIZERS


def test_the_page_counts_what_the_tests_try() -> None:
    page = " ".join((ROOT / "docs" / "trust.md").read_text(encoding="utf-8").split())
    code = len(test_security.PLACES) * len(test_security.TARGETS) + len(test_security.HYDRA)
    counts = (
        f"{len(MODELS) * len(OPTIMIZERS)} pairs, {len(test_resume.PAIRS)} of them in the quick part",
        f"started again | {test_resume.KILL_POINTS} points",
        f"datasets | {len(MANY) * LONG.max_examples} cases",
        f"any place | {len(test_hostile.FUZZED) * test_hostile.FUZZ_CASES} cases",
        f"files that are wrong | {len(test_hostile.BAD)} |",
        f"files that only look wrong | {len(test_hostile.GOOD)} |",
        f"settings that do not fit | {len(test_hostile.FIT)} |",
        f"inputs that are not there | {len(test_hostile.INPUTS)} |",
        f"would run code | {code} |",
        f"file handles | {test_soak.RUNS} runs",
        f"full at {['', '', '', '', 'four'][len(test_faults.TAKEN)]} levels",
    )
    for count in counts:
        assert count in page, count
