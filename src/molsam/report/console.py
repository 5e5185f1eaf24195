"""The terminal of a report: 80 columns in a pipe, and only characters that it can write."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

SPARE = 6
"""Columns kept free where a sign becomes two (`±` as `+-`)."""
PLAIN = str.maketrans({"±": "+-", "−": "-", "–": "-", "✓": "*", "…": "~", "×": "x"})


class _Writable:
    """A stream that gets ASCII for what it cannot encode."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.encoding = stream, stream.encoding or "ascii"

    def write(self, text: str) -> int:
        try:
            text.encode(self.encoding)
        except UnicodeEncodeError:
            text = text.translate(PLAIN).encode(self.encoding, "replace").decode(self.encoding)
        return self.stream.write(text)

    def flush(self) -> None:
        self.stream.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()


def show(parts: Iterable[RenderableType], commands: Iterable[str] = ()) -> None:
    """Print what a report shows; `commands` are never broken, so that they can be copied."""
    from rich.console import Console
    from rich.text import Text

    whole = set(commands)
    console = Console(file=_Writable(sys.stdout), highlight=False)  # type: ignore[arg-type]
    if not console.encoding.startswith("utf"):
        console.width = max(40, console.width - SPARE)
    for part in parts:
        copied = isinstance(part, Text) and part.plain.strip() in whole
        console.print(part, soft_wrap=copied)
