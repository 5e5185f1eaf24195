"""Escaping of users' text for Markdown and LaTeX."""

from __future__ import annotations

import re

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"\ensuremath{\pm}", "−": r"\ensuremath{-}",
}  # fmt: skip


def markdown(text: str) -> str:
    """Return text as one line of Markdown, also within a table."""
    flat = " ".join(text.split())
    escaped = re.sub(r"([\\`*_{}\[\]<>#|~!&])", r"\\\1", flat)
    # These begin a list only at the start of a line.
    return re.sub(r"^([+\-]|\d+(?=[.)]))", r"\\\1", escaped) if re.match(r"[+\-] ", escaped) else escaped


def latex(text: str) -> str:
    """Return text as one line of LaTeX."""
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
