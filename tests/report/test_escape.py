"""User text in Markdown, LaTeX and the terminal."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from molsam.commands.main import main
from molsam.report import escape
from molsam.report.words import signed

NASTY = r"a|b_c*d*[e](f)<i>`x`$y$ 50% #1 {z} \n ~t^2 & \input{x}"


def test_markdown_leaves_no_mark_of_its_own() -> None:
    text = escape.markdown(NASTY)
    assert not re.search(r"(?<!\\)[|_*`<>\[\]#{}]", text)
    # Removing the escapes gives the text back.
    assert re.sub(r"\\([\\`*_{}\[\]<>#|~!&])", r"\1", text) == NASTY


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=60))
def test_a_table_row_stays_one_row(text: str) -> None:
    escaped = escape.markdown(text)
    assert "\n" not in escaped
    assert not re.search(r"(?<!\\)(\\\\)*\|", escaped.replace(r"\|", ""))


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=60))
def test_latex_leaves_no_command(text: str) -> None:
    escaped = escape.latex(text)
    own = r"\\(textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar|textquotedbl)\{\}"
    rest = re.sub(own + r"|\\ensuremath\{(\\pm|-)\}|\\[{}&%$#_]", "", escaped)
    assert not re.search(r"[\\{}&%$#_~^]", rest)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    source = rf"\documentclass{{article}}\begin{{document}}{escape.latex(NASTY)}\end{{document}}"
    (tmp_path / "a.tex").write_text(source)
    subprocess.run(["pdflatex", "-halt-on-error", "a.tex"], cwd=tmp_path, check=True, capture_output=True)


def test_a_sweep_with_nasty_names_renders(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    section = {
        "name": "mine",
        "datasets": ["esol"],
        "variants": {NASTY: {"overrides": ["optimizer=adam"]}, "[bold]b[/bold]": {"overrides": ["optimizer=sam"]}},
        "report": {
            "title": NASTY,
            "claims": [{"text": NASTY, "better": NASTY, "than": "[bold]b[/bold]"}],
        },
    }
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text("# @package _global_\n" + yaml.safe_dump({"sweeps": section}))
    monkeypatch.setenv("PROJECT_ROOT", str(tmp_path))
    assert main(["report", "--table", "mine", "--outputs", str(tmp_path), "--to", str(tmp_path / "to")]) == 1
    out = capsys.readouterr().out
    assert "[bold]b[/bold]" in out
    page = (tmp_path / "to" / "mine.md").read_text()
    found = [block.splitlines() for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)]
    assert len(found) == 2  # the numbers, and the claims
    for rows in found:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in rows}) == 1
    assert r"\textbackslash{}input\{x\}" in (tmp_path / "to" / "mine.tex").read_text()


def test_signs() -> None:
    assert [signed(v, 3) for v in (0.0, -0.0001, 0.0123, -0.0456)] == ["+0.000", "+0.000", "+0.012", "−0.046"]
