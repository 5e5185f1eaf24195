"""Every command in the documentation exists; the marked ones are run, and the examples work."""

from __future__ import annotations

import argparse
import csv
import importlib
import importlib.util
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import molsam.models
import molsam.optim
import molsam.training
from molsam.commands.main import COMMANDS
from molsam.commands.train import with_name
from molsam.config.cells import table_cells
from molsam.config.compose import compose, conf_dir, plain
from molsam.report.dashboard.collect import Collector, relative_link
from molsam.report.figures.recipes import RECIPES
from molsam.report.frame import load as load_frame
from molsam.runs import result
from molsam.sweeping.overrides import values_of
from molsam.wiring.run import start
from tests.paths import ROOT

DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "results" / "README.md", *DOCS]
OTHERS = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
STANDS_FOR = {"MODEL": "gcn", "DATASET": "esol", "N": "5", "NAME": "esol", "deepsets": "gcn"}
ELSEWHERE = {"cd", "git", "pytest", "source", "wandb"}


def _reference() -> ModuleType:
    """The hook that writes pages of the site."""
    spec = importlib.util.spec_from_file_location("_reference", ROOT / "docs" / "_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = _reference()


class Block(NamedTuple):
    """A fenced block: its language, the word behind it (a file's name, `run`, `extended`), its text."""

    language: str
    word: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page."""
    found = re.findall(r"^```(\w+) ?([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    return [Block(*parts) for parts in found]


def commands(page: Path) -> list[list[str]]:
    """The words of each command in bash blocks, and of trainings in the text; placeholders are filled in."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line
        for block in blocks(page)
        if block.language == "bash" and block.word not in ("extended", "own")
        for line in block.text.splitlines()
    ]
    lines += re.findall(r"`(molsam train [^`\n]+)`", text)
    split = [shlex.split(line, comments=True) for line in lines]
    names = "|".join(STANDS_FOR)
    return [[re.sub(rf"\b({names})\b", lambda m: STANDS_FOR[m[1]], w) for w in words] for words in split if words]


LINES = [pytest.param(words, id=f"{page.name}: {' '.join(words)}"[:90]) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize("words", LINES)
def test_a_command_is_understood(words: list[str]) -> None:
    while re.match(r"[A-Z_]+=", words[0]):  # a variable of the environment
        words = words[1:]
    if words[0] == "torchrun":  # options of its own, then -m molsam train ...
        words = words[words.index("-m") + 1 :]
    if words[:2] in (["python", "train.py"], ["molsam", "train"]):
        hydra_understands([word for word in with_name(words[2:]) if word not in ("--multirun", "...")])
    elif words[0] == "molsam":
        molsam_understands(words[1:])
    elif words[0] == "python" and words[1].startswith("results/"):
        assert (ROOT / words[1]).exists()
    elif words[0] == "cp":
        assert all((ROOT / word).exists() for word in words[1:])
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M)
    elif words[:2] == ["pip", "install"]:
        extra = re.fullmatch(r"(?:molsam|\.)(?:\[(.+)\])?", words[2])
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert extra is not None
        assert extra[1] is None or extra[1] in extras
    else:
        assert words[0] in ELSEWHERE, f"nothing here knows the command {words[0]}"


def molsam_understands(words: list[str]) -> None:
    """Raises ArgumentError for options that there are not."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(COMMANDS[words[0]][0]).configure(parser)
    args, rest = parser.parse_known_args(words[1:])
    assert not [word for word in rest if word.startswith("-")]
    if words[0] == "figure":
        from molsam.commands.figure import _wanted

        assert _wanted(args.figures)


def hydra_understands(words: list[str]) -> None:
    """Composes the settings of a command line with the first of its choices; looks for the others and its cells."""
    if "--help" in words:
        return
    if any(word.startswith("hydra/launcher=ray") for word in words):
        pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="the extra ray is not installed")
    overrides = OverridesParser.create().parse_overrides(words)
    fixed = [o.input_line or "" for o in overrides if not o.is_sweep_override()]
    swept = {o.get_key_element(): values_of(o) for o in overrides if o.is_sweep_override() and o.is_choice_sweep()}
    for key, values in swept.items():
        group = conf_dir() / key
        assert not group.is_dir() or {f"{value}.yaml" for value in values} <= {path.name for path in group.iterdir()}
    compose_once(*fixed, *(f"{key}={values[0]}" for key, values in swept.items()))


@cache
def compose_once(*overrides: str) -> None:
    """Composing takes a quarter of a second, and pages share commands."""
    cfg = compose(overrides)
    assert cfg.model
    if cfg.get("sweeps") and cfg.sweeps.get("variants"):
        assert table_cells(plain(cfg.sweeps))


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file, a page that the site writes, or a heading of one."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for name, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", text):
        target = (page.parent / name).resolve() if name else page
        if target.parent == ROOT / "docs" / "reference" and target.stem in REFERENCE.GENERATED:
            continue
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), f"{name}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the site and GitHub make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    heads = (re.sub(r"[^\w\s-]", "", head).strip().lower() for head in re.findall(r"^#+ (.*)$", text, re.M))
    return {re.sub(r"\s", "-", head) for head in heads}


def test_the_reference_is_written_from_the_code() -> None:
    pages = REFERENCE.settings(), REFERENCE.commands(), REFERENCE.metrics(), REFERENCE.exit_codes()
    for page, word in zip(pages, ("training.epochs=50", "## molsam predict", "| `rmse` | RMSE |", "70"), strict=True):
        assert word in page
    assert "(../trust.md)" in REFERENCE.moved("[a](docs/trust.md)", "ARCHITECTURE.md")
    assert "(architecture.md#x)" in REFERENCE.moved("[a](../ARCHITECTURE.md#x)", "results/README.md")


def test_settings_and_exit_codes_are_tables() -> None:
    text = REFERENCE.settings()
    assert "```" not in text
    for row in (
        "| `dataset.id` | `null` | the column of your ids, kept in split.json and test_predictions.csv |",
        "reference: its padding row adds to every sum, up to the batch's largest degree; null",
        "| `seed` | `0` |",
    ):
        assert row in text
    assert not re.search(r"<\w+>", re.sub(r"`[^`]*`", "", text)), "a tag would be swallowed"
    assert "hydra.help" not in text
    assert len(re.findall(r"^\| \d+ \| \S", REFERENCE.exit_codes(), re.M)) == 10


def test_the_python_reference_shows_names_in_angle_brackets() -> None:
    listed = re.findall(r"^::: ([\w.]+)", (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8"), re.M)
    for place in listed:
        before, _, last = place.rpartition(".")
        name = before if last[0].isupper() else place
        source = Path(str(importlib.import_module(name).__file__)).read_text(encoding="utf-8")
        for text in re.findall(r'"""(.*?)"""', source, re.S):
            bare = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
            assert not re.search(r"<[a-z]\w*>", bare), f"{name}: {bare}"


@pytest.mark.parametrize("page", DOCS, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_the_site_reads_every_fence(page: Path) -> None:
    text = REFERENCE.fences(page.read_text(encoding="utf-8"))
    wrong = [f for f in re.findall(r"^```(.*)$", text, re.M) if not re.fullmatch(r'\w*( title="[\w./]+")?', f)]
    assert not wrong
    assert text.count("\n```") % 2 == 0


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yaml").read_text(encoding="utf-8")
    listed = set(re.findall(r"([\w/-]+\.md)$", text[text.index("\nnav:") :], re.M))
    written = {f"reference/{name}.md" for name in REFERENCE.GENERATED} | set(REFERENCE.ELSEWHERE.values())
    assert listed == {page.relative_to(ROOT / "docs").as_posix() for page in DOCS} | written


def test_the_table_names_each_figures_runs() -> None:
    text = (ROOT / "docs" / "figures.md").read_text(encoding="utf-8")
    for name, recipe in RECIPES.items():
        assert recipe.sweep is None or f"sweeps={recipe.sweep}" in text
        for setting in recipe.make:
            assert setting in text or setting.startswith("diagnostics.sharpness."), name


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if any(b.word == "run" for b in blocks(p))], ids=lambda p: p.name)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path) -> None:
    write_files(page, tmp_path)
    script = "".join(block.text for block in blocks(page) if block.language == "bash" and block.word == "run")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_examples_extend_molsam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs" / "extend.md"
    write_files(page, tmp_path)
    write_files(ROOT / "docs" / "own-data.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    for room in (molsam.optim, molsam.models):
        monkeypatch.setattr(room, "__path__", [*room.__path__, str(tmp_path / "src" / Path(*room.__name__.split(".")))])
    search = f"hydra.searchpath=[file://{ROOT},file://{tmp_path / 'conf'}]"
    lines = [line for block in blocks(page) if block.word == "extended" for line in block.text.splitlines()]
    assert len(lines) == 4
    if importlib.util.find_spec("dgl") is not None:
        runpy.run_path("make_graphs.py")
    for place, line in enumerate(lines):
        if "model=gin" in line and importlib.util.find_spec("dgl") is None:
            continue  # DGL has no wheel for this Python
        settings = [*shlex.split(line)[2:], "training.threads=1", "training.epochs=1"]
        start(compose([search, *settings]), tmp_path / str(place), settings)
        outcome = result.read(tmp_path / str(place))
        assert outcome is not None
        assert any(f"={outcome[kind]} " in line for kind in ("model", "optimizer", "dataset"))


def test_the_metric_of_the_page_is_recorded_and_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all tasks and of each; in the result, in a table of all runs and on the dashboard."""
    write_files(ROOT / "docs" / "extend.md", tmp_path)
    (tmp_path / "conf" / "metric").mkdir(exist_ok=True)
    for path in (conf_dir() / "metric").glob("*.yaml"):
        shutil.copy(path, tmp_path / "conf" / "metric")
    monkeypatch.setattr("molsam.config.metrics.conf_dir", lambda: tmp_path / "conf")
    monkeypatch.setenv("MOLSAM_TRUSTED", "mylab")
    monkeypatch.chdir(tmp_path)
    own = str(tmp_path / "src" / "molsam" / "training")
    monkeypatch.setattr(molsam.training, "__path__", [*molsam.training.__path__, own])
    data = tmp_path / "two.csv"
    data.write_text("smiles,a,b\n" + "".join(f"{'C' * n}O,{n},{n * n}\n" for n in range(1, 31)))
    words = ["dataset=csv", f"dataset.path={data}", "dataset.targets=[a,b]", "dataset.metric=worst", "model=gcn"]
    start(compose([*words, "training.epochs=2", "training.threads=1"]), tmp_path / "runs" / "one", [])
    outcome = result.read(tmp_path / "runs" / "one")
    frame, _ = load_frame([tmp_path / "runs"])
    shown = Collector([tmp_path / "runs"], relative_link(tmp_path)).collect()
    assert outcome is not None
    with open(tmp_path / "runs" / "one" / "test_predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for task in ("a", "b"):
        gaps = [abs(float(row["target"]) - float(row["prediction"])) for row in rows if row["task"] == task]
        assert outcome["per_task"]["test"]["worst"][task] == pytest.approx(max(gaps))
    mean = outcome["test"]["worst"]
    assert mean == pytest.approx(sum(outcome["test_per_task"].values()) / 2)
    assert outcome["direction"] == "min"
    assert frame["score"].tolist() == [pytest.approx(mean)]
    (run,) = shown["runs"]
    assert run["tests"]["worst"] == pytest.approx(mean, rel=1e-3)
    assert set(run["tasks"]) == {"a", "b"}


def write_files(page: Path, folder: Path) -> None:
    """The blocks of a page that are files."""
    for block in blocks(page):
        if "." in block.word:
            (folder / block.word).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.word).write_text(block.text)
