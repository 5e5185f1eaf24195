"""docs/identity.md lists every caller of identity, and no other code compares hashes."""

from __future__ import annotations

import re

from tests.paths import ROOT
from tests.test_architecture import FILES, PACKAGE, imports

PAGE = (ROOT / "docs" / "identity.md").read_text(encoding="utf-8")
ASKED = ("molsam.config.identity", "molsam.wiring.identify")


def test_the_page_lists_the_callers() -> None:
    table = PAGE[PAGE.index("## Who asks") :]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    callers = {
        path.relative_to(PACKAGE).as_posix()
        for path in FILES
        if any(name.startswith(ASKED) for name in imports(path)) and path.parent.name != "config"
    }
    assert {name for name in callers if not any(name.startswith(one) for one in listed)} == set(), "not on the page"
    assert {one for one in listed if not any(name.startswith(one) for name in callers)} == set(), "ask no more"


def test_nobody_compares_hashes_of_his_own() -> None:
    pattern = re.compile(r"""(\["config_hash"\]|\["digest"\]|\.get\("config_hash"\))\s*(==|!=)""")
    for path in FILES:
        assert not pattern.search(path.read_text(encoding="utf-8")), path
