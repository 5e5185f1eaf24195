"""The command that the person typed, for hints and errors."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

TYPED = "MOLSAM_TYPED"
"""Environment variable: what the person typed, for a process that molsam starts."""


def program() -> str:
    """Return the words that start this program: `molsam` or `python -m molsam`."""
    if typed := os.environ.get(TYPED):
        return typed
    path = Path(sys.argv[0])
    return "python -m molsam" if (path.parent.name, path.name) == ("molsam", "__main__.py") else "molsam"


def training() -> str:
    """Return the words that start a training: `python train.py` where that was typed, else `molsam train`."""
    path = Path(sys.argv[0])
    script = path.name == "train.py" and path.parent.name != "commands"
    return "python train.py" if script else f"{program()} train"


def shell(words: Iterable[str]) -> str:
    """Return the words as a line for a shell; double quotes around a word with single ones, which people can read."""
    return " ".join(
        f'"{word}"' if "'" in word and not re.search(r'["`$\\!]', word) else shlex.quote(word) for word in words
    )


def override(name: str, value: str | Sequence[str], *, listed: bool = False) -> str:
    """Return `name=value`, or `name=[value]`, as it is typed: in quotes for Hydra and the shell where it needs them.

    Several values are a list.
    """
    values = [value] if isinstance(value, str) else list(value)
    text = ",".join(map(_word, values))
    return shell([f"{name}=[{text}]" if listed or len(values) != 1 else f"{name}={text}"])


def _word(value: str) -> str:
    plain = re.fullmatch(r"[A-Za-z_][\w.-]*", value, re.ASCII) and value.lower() not in (
        "null",
        "true",
        "false",
        "nan",
        "inf",
    )
    return value if plain else "'" + value.replace("'", r"\'") + "'"


def train_arguments() -> list[str]:
    """Return the words that start a training in a process of its own, from any folder."""
    return [sys.executable, "-m", "molsam", "train"]
