"""Imports flow one way, files stay small, and the configuration names only what exists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGE = ROOT / "src" / "molsam"
FILES = sorted(PACKAGE.rglob("*.py"))

# room -> rooms (or modules) of molsam it may import
MAY_IMPORT = {
    "errors.py": set(),
    "files.py": {"errors"},
    "config": {"errors", "files", "config"},
    "native": {"errors", "files", "native"},
    "chem": {"errors", "chem"},
    "data": {"errors", "files", "config.identity", "chem", "data"},
    "images": {"errors", "files", "data", "models", "images"},
    "models": {"errors", "native", "chem", "data", "models"},
    "optim": {"errors", "native", "optim"},
    "training": {"errors", "files", "config", "data", "models", "training", "tracking"},
    "tracking": {"errors", "files", "config", "tracking", "training.events"},
    "diagnostics": {"errors", "files", "data", "models", "optim", "training", "diagnostics"},
    "runs": {"errors", "files", "config", "native", "runs"},
    "report": {"errors", "files", "runs", "config", "report", "tracking"},
    "wiring": {
        "errors",
        "files",
        "config",
        "native",
        "chem",
        "data",
        "images",
        "models",
        "optim",
        "training",
        "tracking",
        "diagnostics",
        "runs",
        "wiring",
    },
    "sweeping": {"errors", "files", "config", "runs", "training", "tracking", "wiring", "sweeping"},
}
# third-party package -> where it may be imported
ONLY_IN = {
    "dgl": ("data/", "models/", "bench/peer_worker.py"),  # the peer's own DGL, in the peer's environment
    "wandb": ("tracking/wandb.py", "report/dashboard/"),
    "hydra": ("config/compose.py", "wiring/", "sweeping/", "commands/train.py"),
    "optuna": ("sweeping/",),
}
NEVER = {"chem": {"torch", "dgl"}, "report": {"torch", "dgl"}, "optim": {"rdkit", "dgl", "hydra"}}


def imports(path: Path) -> set[str]:
    return imports_of(ast.parse(path.read_text(encoding="utf-8")), path)


def imports_of(tree: ast.Module, path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_flow_one_way(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    room = place.split("/")[0]
    for name in imports(path):
        top = name.split(".")[0]
        if top == "molsam" and room in MAY_IMPORT and name != "molsam" and not name.startswith("molsam.__"):
            inner = name.removeprefix("molsam.")
            allowed = MAY_IMPORT[room]
            fits = any(inner == a or inner.startswith(f"{a}.") for a in allowed) or f"molsam.{inner}" == "molsam"
            package_attribute = (
                "." not in inner and not (PACKAGE / inner).exists() and not (PACKAGE / f"{inner}.py").exists()
            )
            assert fits or package_attribute, f"{place} imports {name}; {room} may import {sorted(allowed)}"
        if top in ONLY_IN:
            assert any(place.startswith(p) for p in ONLY_IN[top]), f"{place} imports {top}"
        assert top not in NEVER.get(room, set()), f"{place} imports {top}"


def module_of(path: Path) -> str:
    return ".".join(("molsam", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def at_runtime(path: Path) -> set[str]:
    """The imports without those under `if TYPE_CHECKING:`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    return imports_of(tree, path)


def test_no_circle_but_for_types() -> None:
    modules = {module_of(path): at_runtime(path) for path in FILES}
    # `from molsam.optim import state` inside molsam.optim names the package only to find its module.
    left = {
        name: {one for one in found & modules.keys() if not f"{name}.".startswith(f"{one}.")}
        for name, found in modules.items()
    }
    while free := {name for name, found in left.items() if not found}:
        left = {name: found - free for name, found in left.items() if name not in free}
    assert left == {}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_wiring_knows_images(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    if not place.startswith(("wiring/", "images/")):
        assert not any(name.startswith("molsam.images") for name in imports(path)), f"{place} imports molsam.images"


def test_no_circle_of_sweeping() -> None:
    """Each module of the room is loaded by those above it alone, also for types."""
    room = {module_of(path): imports(path) for path in FILES if "sweeping" in path.parts}
    left = {name: found & room.keys() - {name, "molsam.sweeping"} for name, found in room.items()}
    while free := {name for name, found in left.items() if not found}:
        left = {name: found - free for name, found in left.items() if name not in free}
    assert left == {}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"


@pytest.mark.parametrize("path", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda p: str(p.relative_to(ROOT)))
def test_targets_of_the_configuration_exist(path: Path) -> None:
    import importlib

    for target in re.findall(r"^\s*_target_: ([\w.]+)", path.read_text(encoding="utf-8"), re.M):
        module, name = target.rsplit(".", 1)
        assert hasattr(importlib.import_module(module), name), target


def test_nothing_is_unpickled() -> None:
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bpickle\.loads?\(|\bjoblib\.load\(|allow_pickle=True|\beval\(\"|\bexec\(", text), path
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call, f"{path}: {call}"


def test_the_optimizers_import_nothing_of_molecules() -> None:
    code = "import sys, molsam.optim; print(*[m for m in ('dgl', 'rdkit', 'hydra', 'omegaconf') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
