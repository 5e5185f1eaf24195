"""The page: markup, style and scripts in one self-contained file."""

from __future__ import annotations

import html
import json
from importlib import resources
from typing import Any

SCRIPTS = (
    "dom.js",
    "data.js",
    "scales.js",
    "plot.js",
    "readout.js",
    "board.js",
    "charts.js",
    "leads.js",
    "sweeps.js",
    "run.js",
    "page.js",
)
UNSAFE = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def build(data: dict[str, Any], *, live: bool = False) -> str:
    """Return the whole page as HTML. `live`: whether it polls its server for changes."""
    scripts = "\n".join(_asset(name) for name in SCRIPTS)
    return (
        _asset("page.html")
        .replace("/*STYLE*/", _asset("style.css"))
        .replace("{{LIVE}}", html.escape("true" if live else "false"))
        .replace("/*SCRIPTS*/", scripts)
        .replace("{{DATA}}", embed(data))
    )


def embed(data: dict[str, Any]) -> str:
    """Return JSON that cannot end the script element around it, whatever the names of runs."""
    text = dump(data)
    for character, escape in UNSAFE.items():
        text = text.replace(character, escape)
    return text


def dump(data: dict[str, Any]) -> str:
    """Return compact JSON."""
    return json.dumps(data, separators=(",", ":"), allow_nan=False)


def _asset(name: str) -> str:
    return resources.files("molsam.report.dashboard").joinpath("assets", name).read_text(encoding="utf-8")
