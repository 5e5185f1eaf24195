"""The numbers in results/README.md equal those of the runs stored beside it."""

from __future__ import annotations

import re
import shlex
from functools import cache

import pytest

from molsam.report import claims, frame, render, specs, table, verdicts
from molsam.report.stored import scan
from tests.paths import ROOT

RESULTS = ROOT / "results"
PAGE = (RESULTS / "README.md").read_text(encoding="utf-8")
TABLES = re.findall(r"^(molsam report --table .*)$", PAGE, re.MULTILINE)
BLOCK = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
NOTE = re.compile(r"Repeat noise on [^)]*\)\.|The cells are not comparable[^.]*\.")
LEAD = r"[+−]\d\.\d{4} \[[+−]\d\.\d{4}, [+−]\d\.\d{4}\]"


@cache
def runs() -> object:
    return frame.load([RESULTS])[0]


def test_every_stored_run_is_whole() -> None:
    found, damaged = scan([RESULTS])
    assert not damaged
    assert len(found) >= 213
    assert not [path for path in RESULTS.rglob("*") if path.is_dir()]


@pytest.mark.parametrize("command", TABLES)
def test_a_table_is_what_its_command_renders(command: str) -> None:
    words = shlex.split(command)
    changes = tuple(word for word in words if word.startswith("sweeps."))
    score = "late" if "late" in words else "score"
    built = table.build(specs.load(words[3], changes), runs(), score)  # type: ignore[arg-type]
    rendered = render.markdown(built, verdicts.check(built))
    blocks = BLOCK.findall(rendered)
    assert len(blocks) == 2
    after = PAGE[PAGE.index(command) :]
    assert BLOCK.findall(after)[:2] == blocks
    section = re.split(r"^```bash\n|^## ", after, maxsplit=1, flags=re.MULTILINE)[0]
    assert NOTE.findall(" ".join(section.split())) == NOTE.findall(" ".join(rendered.split()))


def test_every_lead_in_the_text_is_on_the_page_of_claims() -> None:
    found = claims.find(runs())  # type: ignore[arg-type]
    said = re.findall(LEAD, " ".join(BLOCK.sub("", PAGE).split()))
    assert said
    page = claims.markdown(found).replace("\\", "")
    assert [lead for lead in said if lead not in page] == []
    assert claims.summary(found) in " ".join(PAGE.split())
