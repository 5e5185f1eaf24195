"""Imports flow one way, files stay small, and the configuration names only what exists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGE = ROOT / "src" / "molsam"
FILES = sorted(PACKAGE.rglob("*.py"))

# A room may import itself and those before it, and no other: the order in which settings become a report.
ORDER = (
    "errors", "files", "terminal", "config", "native", "chem", "data", "optim", "models", "images", "training",
    "diagnostics", "tracking", "runs", "wiring", "sweeping", "report", "bench", "api", "commands", "__init__",
    "__main__",
)  # fmt: skip
# room -> all that it may import, where that is less than what stands before it
FEWER = {
    "native": {"errors", "files"},
    "chem": {"errors"},
    "data": {"errors", "files", "terminal", "config", "native", "chem"},
    "optim": {"errors", "native"},
    "models": {"errors", "native", "chem", "data"},
    "training": {"errors", "files", "config", "data", "models"},
    "runs": {"errors", "files", "terminal", "config", "native"},
    "report": {"errors", "files", "terminal", "config", "runs"},
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
    """What a file imports, at its top or in a function, but for what only a type checker reads."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return names


def module(path: Path) -> str:
    """The name under which a file is imported."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in FILES}


def room(name: str) -> str:
    """The room of a module of molsam."""
    return name.split(".")[1] if "." in name else "__init__"


def test_every_room_has_its_place() -> None:
    assert {room(name) for name in MODULES} == set(ORDER)
    assert set(FEWER) < set(ORDER)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_flow_one_way(path: Path) -> None:
    place, own = path.relative_to(PACKAGE).as_posix(), room(module(path))
    before = {*ORDER[: ORDER.index(own)]}
    for name in imports(path):
        top = name.split(".")[0]
        if name in MODULES and name != "molsam":
            assert room(name) in {own, "__init__"} | (FEWER.get(own, before) & before), f"{place} imports {name}"
        if top in ONLY_IN:
            assert any(place.startswith(p) for p in ONLY_IN[top]), f"{place} imports {top}"
        assert top not in NEVER.get(own, set()), f"{place} imports {top}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    """But for types. `from molsam.optim import state` inside molsam.optim names the package only to find its module."""
    graph = {
        name: {other for other in imports(path) & MODULES.keys() if not f"{name}.".startswith(f"{other}.")}
        for name, path in MODULES.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_wiring_knows_images(path: Path) -> None:
    place = path.relative_to(PACKAGE).as_posix()
    if not place.startswith(("wiring/", "images/")):
        assert not any(name.startswith("molsam.images") for name in imports(path)), f"{place} imports molsam.images"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{path}: {node.name}"


def test_lines_keep_to_120_columns() -> None:
    """What ruff does not read; it holds Python to the same."""
    patterns = [f"{room}/**/*.{end}" for room in ("conf", "sweeps", "src") for end in ("yaml", "c", "h")]
    found = [path for pattern in patterns for path in ROOT.glob(pattern)]
    assert len(found) > 100
    for path in (*found, ROOT / "Makefile", ROOT / "mkdocs.yaml", ROOT / ".ci" / "run"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert len(line) <= 120, f"{path}:{number}"


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
