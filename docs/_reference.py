"""Write the reference pages that the code knows better: settings, commands, metrics, exit codes (a hook of mkdocs)."""

from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = re.compile(
    r"\[([^\]]*)\]\((?:\.\./)+((?:results|conf|sweeps|README|ARCHITECTURE|CONTRIBUTING|CHANGELOG|src)[^)#]*)[^)]*\)"
)


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    pages = {"settings": settings(), "commands": commands(), "metrics": metrics(), "exit-codes": exit_codes()}
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Name files of the repository that are no pages, instead of linking to them."""
    return OUTSIDE.sub(r"\1 (`\2`)", markdown)


def settings() -> str:
    """Each config group, its choices and their settings with defaults and comments."""
    parts = ["# Settings\n", "Any setting is changed on the command line: `python train.py training.epochs=50`.\n"]
    parts += ["## Top level\n", _yaml(ROOT / "conf" / "config.yaml")]
    for group in sorted(path for path in (ROOT / "conf").rglob("*") if path.is_dir()):
        choices = sorted(group.glob("*.yaml"))
        if choices:
            parts.append(f"## {group.relative_to(ROOT / 'conf').as_posix()}\n")
            parts += [f"### `{path.stem}`\n\n{_yaml(path)}" for path in choices]
    return "\n".join(parts)


def commands() -> str:
    """What `molsam COMMAND --help` prints."""
    from molsam.commands.main import COMMANDS

    parts = ["# Commands\n"]
    for name, (module, text) in COMMANDS.items():
        parser = argparse.ArgumentParser(prog=f"molsam {name}", description=text)
        importlib.import_module(module).configure(parser)
        parts.append(f"## molsam {name}\n\n```text\n{parser.format_help()}```\n")
    return "\n".join(parts)


def metrics() -> str:
    """Each metric, its task and its direction."""
    from molsam.training.metrics import DIRECTION

    lines = [f"| `{name}` | {'lower' if way == 'min' else 'higher'} is better |" for name, way in DIRECTION.items()]
    return "# Metrics\n\n| metric | direction |\n|---|---|\n" + "\n".join(lines) + "\n"


def exit_codes() -> str:
    """The exit codes, from the module that defines them."""
    import molsam.errors

    return f"# Exit codes\n\n{(molsam.errors.__doc__ or '').split('Exit codes of every command: ')[1].strip()}\n"


def _yaml(path: Path) -> str:
    return f"```yaml\n{path.read_text(encoding='utf-8').strip()}\n```\n"
