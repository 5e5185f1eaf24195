"""Terminal output of reports: 80 columns in a pipe, and commands that can be copied."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from molsam import terminal

if TYPE_CHECKING:
    from rich.console import RenderableType


def show(parts: Iterable[RenderableType], commands: Iterable[str] = ()) -> None:
    """Print the parts of a report. `commands` are never wrapped, so that they can be copied."""
    from rich.text import Text

    whole = set(commands)
    console = terminal.console()
    for part in parts:
        copied = isinstance(part, Text) and part.plain.strip() in whole
        console.print(part, soft_wrap=copied)
