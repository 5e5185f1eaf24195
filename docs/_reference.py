"""Write the reference pages that the code knows better: settings, commands, metrics, exit codes (a hook of mkdocs)."""

from __future__ import annotations

import argparse
import importlib
import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GENERATED = ("settings", "commands", "metrics", "exit-codes")
"""Pages of reference/ that this file writes."""
ELSEWHERE = {"ARCHITECTURE.md": "explanation/architecture.md", "results/README.md": "explanation/results.md"}
"""Files of the repository that are pages of the site too."""
HIDDEN = ("defaults", "choices", "hydra", "layouts", "_partial_")
"""Settings that the page on settings leaves out: nobody changes them on a command line."""
OUTSIDE = re.compile(
    r"\[([^\]]*)\]\((?:\.\./)+((?:results|conf|sweeps|README|ARCHITECTURE|CONTRIBUTING|CHANGELOG|src)[^)#]*)[^)]*\)"
)


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    pages = dict(zip(GENERATED, (settings(), commands(), metrics(), exit_codes()), strict=True))
    for name, text in pages.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    for name, place in ELSEWHERE.items():
        text = moved((ROOT / name).read_text(encoding="utf-8"), name)
        files.append(File.generated(config, place, content=text))
    return files


def moved(text: str, name: str) -> str:
    """A file of the repository with its links as they are from explanation/."""

    def link(match: re.Match[str]) -> str:
        inside = os.path.normpath(os.path.join(os.path.dirname(name), match[1]))
        target = f"docs/{ELSEWHERE.get(inside, '')}" if inside in ELSEWHERE else inside
        return f"]({os.path.relpath(target, 'docs/explanation')}{match[2] or ''})"

    return re.sub(r"\]\(([\w./-]+)(#[\w-]+)?\)", link, text)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Name files of the repository that are no pages, instead of linking to them; write fences as the site reads."""
    place = os.path.dirname(page.file.src_uri)
    for name, target in ELSEWHERE.items():
        away = os.path.relpath(name, f"docs/{place}")
        markdown = markdown.replace(f"]({away}", f"]({os.path.relpath(target, place or '.')}")
    return OUTSIDE.sub(r"\1 (`\2`)", fences(markdown))


def fences(markdown: str) -> str:
    """The word behind a fence's language, a file's name or a mark for the tests, as a title or not at all."""

    def fence(match: re.Match[str]) -> str:
        return f'{match[1]} title="{match[2]}"' if "." in match[2] else match[1]

    return re.sub(r"^(```\w+) +([^\n\"]+)$", fence, markdown, flags=re.M)


def settings() -> str:
    """Each config group, its choices and their settings with defaults and comments."""
    parts = ["# Settings\n", "Any setting is changed on the command line: `molsam train training.epochs=50`.\n"]
    parts += ["## Top level\n", _table(ROOT / "conf" / "config.yaml")]
    for group in sorted(path for path in (ROOT / "conf").rglob("*") if path.is_dir()):
        choices = sorted(group.glob("*.yaml"))
        if choices:
            parts.append(f"## {group.relative_to(ROOT / 'conf').as_posix()}\n")
            parts += [f"### `{path.stem}`\n\n{_table(path)}" for path in choices]
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
    from molsam.config.metrics import metric_files

    lines = [
        f"| `{name}` | {one['display']} | {_words(one['task'])} | "
        f"{'lower' if one['direction'] == 'min' else 'higher'} is better |"
        for name, one in metric_files().items()
    ]
    return "# Metrics\n\n| metric | name | task | direction |\n|---|---|---|---|\n" + "\n".join(lines) + "\n"


def exit_codes() -> str:
    """The exit codes, from the module that defines them, as a table."""
    import molsam.errors

    listed = " ".join((molsam.errors.__doc__ or "").split("Exit codes of every command: ")[1].split()).rstrip(".")
    rows = ["| {} | {} |".format(*one.split(" ", 1)) for one in listed.split("; ")]
    return "# Exit codes\n\n| code | meaning |\n|---:|---|\n" + "\n".join(rows) + "\n"


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _table(path: Path) -> str:
    """A file's first comment, and its settings as a table: name, default, and the comment beside or above."""
    intro, rows, above, depth = list[str](), list[list[str]](), list[str](), list[tuple[int, str]]()
    for line in path.read_text(encoding="utf-8").splitlines():
        comment = re.fullmatch(r"\s*#\s?(.*)", line)
        setting = re.fullmatch(r"(\s*)([\w@/.-]+):(?:\s+(.*?))??(?:\s+#\s*(.*))?", line)
        if comment and not rows and not depth:
            intro.append(comment[1])
        elif comment and line.index("#") > 8:  # goes on with the comment beside the setting before
            rows[-1][2] += f" {comment[1]}"
        elif comment:
            above.append(comment[1])
        elif setting:
            indent = len(setting[1])
            depth = [one for one in depth if one[0] < indent] + [(indent, setting[2])]
            name = ".".join(one[1] for one in depth)
            if not name.startswith(HIDDEN) and (setting[3] or setting[4] or above):
                rows.append(
                    [f"`{name}`", f"`{setting[3]}`" if setting[3] else "", " ".join([*above, setting[4] or ""])]
                )
            above = []
    cells = [
        "| " + " | ".join(cell.strip().replace("|", "\\|").replace("<", "&lt;") for cell in row) + " |" for row in rows
    ]
    head = ["| setting | default | meaning |", "|---|---|---|"] if rows else []
    return "\n".join([" ".join(intro), "", *head, *cells, ""])
