"""Output fits the terminal: its characters, its width, and a terminal that closes."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from molsam import terminal
from molsam.commands import main as cli
from molsam.config.command import shell
from molsam.config.compose import compose
from molsam.config.metrics import metric_files
from molsam.sweeping.ending import next_line
from molsam.tracking.console import ConsoleProgress, print_next
from molsam.wiring.run import start
from tests.paths import PATIENCE

RUN = "outputs/läufe"
COMMANDS = {
    "train --help": 0,
    "train --multirun sweeps=table3 smoke=true dry_run=true sweeps.datasets=[esol]": 0,
    "train model=gcm": 2,
    "baseline dataset=csv dataset.path='größe.csv' hydra.run.dir='outputs/é'": 0,
    "data list": 0,
    "data check größe.csv --targets höhe": 0,
    "data check größe": 2,
    f"predict {RUN} größe.csv": 0,
    f"predict {RUN} größe.csv --nearest -o vorhergesagt-é.csv": 0,
    f"embed {RUN} größe.csv -o é.parquet": 0,
    f"explain {RUN} CCO -o é.svg": 0,
    f"rerun {RUN}": 0,
    "report --table 3 sweeps.datasets=[esol] sweeps.folds=1": 1,
    "report --all": 1,
    "report --claims": 1,
    "results pack outputs -o é.jsonl": 0,
    "campaign status": 1,
    "figure 4": 0,
    "figure 3": 1,
    "dashboard outputs -o é.html": 0,
    "bench --help": 0,
}
SLOW = ("campaign status", "report --all", "report --claims", f"rerun {RUN}", "figure 4")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and a run whose names are beyond ASCII."""
    folder = tmp_path_factory.mktemp("pläce")
    rows = "".join(f"{'C' * n}O,{n * 0.5},{n * n * 0.1}\n" for n in range(1, 21))
    (folder / "größe.csv").write_text("smiles,höhe,b\n" + rows, encoding="utf-8")
    path = folder / "größe.csv"
    settings = ["dataset=csv", f"dataset.path='{path}'", "debug=fast", "model=gcn", "training.threads=1"]
    start(compose(settings), folder / RUN, settings)
    return folder


def screen(encoding: str) -> io.TextIOWrapper:
    """A stream that fails at a character that it does not have."""
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict", write_through=True)


@pytest.mark.parametrize(
    ("command", "encoding"),
    [
        *(pytest.param(one, "ascii", marks=pytest.mark.slow if one in SLOW else ()) for one in COMMANDS),
        *((one, "latin-1") for one in COMMANDS if one.startswith(("data list", "report --table", "explain"))),
    ],
)
def test_a_command_under_a_terminal_of_few_signs(
    command: str, encoding: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = screen(encoding), screen(encoding)
    words = command.split()
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "argv", ["molsam", *words])
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    try:
        code: Any = cli.main(words)
    except SystemExit as exit_:
        code = exit_.code
    said = [stream.buffer.getvalue() for stream in (out, err)]  # type: ignore[attr-defined]
    assert code == COMMANDS[command], said
    if command == f"predict {RUN} größe.csv":
        assert "höhe_pred" in said[0].decode(), "a table is UTF-8, whatever the terminal"
        return
    text = b"".join(said).decode(encoding)
    assert text.strip()
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if re.match(r"[|+┃│├┌└━]", line)]
    assert max((len(line) for line in lines), default=0) <= 80, "tables fit"


def test_the_end_of_a_run_says_what_comes_next(capsys: pytest.CaptureFixture[str]) -> None:
    print_next("outputs/a b", molecules=True)
    print_next("outputs/cifar", molecules=False)
    molecules, images = capsys.readouterr().out.splitlines()
    assert "molsam predict 'outputs/a b' molecules.csv" in molecules
    assert "predict" not in images
    assert all("molsam dashboard" in line for line in (molecules, images))


def test_the_end_of_a_sweep_says_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hydra = {"runtime": {"choices": {"sweeps": "table3"}}, "overrides": {"task": ["sweeps.folds=2", "seed=1"]}}
    outputs = tmp_path / "outputs"
    sweep: Any = SimpleNamespace(
        config=OmegaConf.create({"hydra": hydra}),
        smoke=True,
        name="x",
        outputs=outputs,
        folder=outputs / "table3-smoke",
    )
    line = next_line(sweep)
    assert line == "next: molsam report --table table3 sweeps.folds=2 --smoke; molsam dashboard outputs/table3-smoke"
    sweep.config.hydra.runtime.choices.sweeps = None
    assert next_line(sweep, "outputs/x/trial-00001").startswith(
        "next: molsam predict outputs/x/trial-00001 molecules.csv"
    )
    assert "report" not in next_line(sweep)


def test_every_command_is_tried() -> None:
    assert {command.split()[0] for command in COMMANDS} == {"train", *cli.COMMANDS}


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("0.5 ± 0.1 – ✓", "ascii", "0.5 +- 0.1 - *"), ("0.5 ± 0.1 – ✓", "latin-1", "0.5 ± 0.1 - *"),
        ("R² ≤ é", "ascii", "R2 <= \\xe9"), ("0.5 ± 0.1 – ✓", "utf-8", "0.5 ± 0.1 – ✓"),
        ("a\udce9", "utf-8", "a\\udce9"),
    ],
)  # fmt: skip
def test_signs_are_spelled(text: str, encoding: str, shown: str) -> None:
    assert terminal.spelled(text, encoding) == shown


def test_columns_stay_straight_where_a_sign_becomes_two(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.table import Table

    out = screen("ascii")
    monkeypatch.setattr(sys, "stdout", out)
    table = Table("a", "b")
    table.add_row("0.5 ± 0.1", "x")
    table.add_row("0.5", "✓")
    terminal.console().print(table)
    lines = out.buffer.getvalue().decode().splitlines()  # type: ignore[attr-defined]
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("metric", metric_files())
@pytest.mark.parametrize("color", [{}, {"NO_COLOR": "1"}], ids=["color", "no color"])
def test_the_bar_fits_and_obeys_no_color(metric: str, color: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"COLUMNS": "80", "TERM": "xterm-256color", **color}.items():
        monkeypatch.setenv(name, value)
    err = screen("utf-8")
    monkeypatch.setattr(err, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", err)
    bar = ConsoleProgress(metric, 100, 40)
    trainer = SimpleNamespace(step=0, epoch=99, loss=0.12345, clock=SimpleNamespace(rate=13161.0))
    bar.on_fit_start(trainer)
    trainer.step, bar.valid = 3955, 0.98765
    bar.on_train_batch_end(trainer)
    bar.close()
    text = err.buffer.getvalue().decode()  # type: ignore[attr-defined]
    drawn = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))
    assert max(map(len, drawn)) <= 80
    assert any(f"{metric} 0.9877" in line and "13161 graphs/s" in line for line in drawn)
    colors = [code for codes in re.findall(r"\x1b\[([0-9;]*)m", text) for code in codes.split(";")]
    assert not [code for code in colors if 30 <= int(code or 0) < 50], "weight alone tells what is done"


STOPPED = """
import os, signal, sys
from molsam.sweeping.ending import next_line
from molsam.tracking.console import ConsoleProgress, print_next
real = ConsoleProgress.on_train_batch_end
def stop(self, trainer):
    real(self, trainer)
    if trainer.step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
ConsoleProgress.on_train_batch_end = stop
sys.argv = ["molsam", *sys.argv[1:]]
from molsam.commands.main import main
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["2>&-", ">&-"])
def test_a_training_outlives_its_terminal(closed: str, place: Path) -> None:
    """SIGTERM with one stream closed and the other read by nobody any more: a checkpoint and its exit code."""
    folder = f"outputs/{len(closed)}"
    words = ["train", "debug=fast", "model=gcn", "training.batch_size=4", f"hydra.run.dir={folder}"]
    script = f"exec {shlex.join([sys.executable, '-c', STOPPED, *words])} {closed}"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(["bash", "-c", script], cwd=place, stdout=write, stderr=write, timeout=PATIENCE, check=False)
    os.close(write)
    assert done.returncode == 143
    assert (place / folder / "last" / "checkpoint.safetensors").exists()
    assert "Traceback" not in (place / folder / "run.log").read_text() + (place / folder / "train.log").read_text()


def test_a_reader_that_stops_early_is_no_error(place: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "molsam", "data", "list"], cwd=place, stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_line_for_the_shell_can_be_read() -> None:
    words = ["a", "b c", "sweeps.rows=['beta=0.9']", "it's $5"]
    assert shell(words) == """a 'b c' "sweeps.rows=['beta=0.9']" 'it'"'"'s $5'"""
    done = subprocess.run(["bash", "-c", f"printf '%s\\n' {shell(words)}"], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == words


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("command", [f"predict {RUN} größe.csv", "data list", "figure 4 -o /dev/full/x"])
def test_a_full_disk_is_one_sentence(command: str, place: Path) -> None:
    with open("/dev/full", "w") as full:
        program = [sys.executable, "-m", "molsam", *command.split()]
        done = subprocess.run(program, cwd=place, stdout=full, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
    assert done.returncode == 5
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("molsam: ")
    assert len(done.stderr.splitlines()) == 1


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_a_sentence_fits_the_screen_and_stays_whole_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    words = "note: 12 molecules of validation or test are also in the training part, as another row of the file."
    assert terminal.fitted(words, io.StringIO()) == words
    assert terminal.fitted(words, None) == words
    lines = terminal.fitted(words, Screen()).split("\n")
    assert max(map(len, lines)) <= 40
    assert " ".join(lines) == words
    long = "a/" * 40
    assert terminal.fitted(long, Screen()) == long, "a path can be copied"
    listed = terminal.fitted("a\n  " + "word " * 12, Screen()).split("\n")
    assert listed[0] == "a"
    assert all(line.startswith("  word") for line in listed[1:])


def test_a_command_that_comes_next_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    short = "next: molsam predict a b; molsam dashboard"
    assert terminal.fitted(short, Screen(), between="; ") == short
    run = "molsam predict outputs/2026-12-01/compt-graphsam-lipophilicity molecules.csv"
    shown = terminal.fitted(f"next: {run}; molsam dashboard", Screen(), between="; ")
    assert shown == f"next: {run}\n      molsam dashboard"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_signs_are_spelled_before_a_table_is_laid_out(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a column of `±` is too narrow for `+-`: lines are crooked, and names are cut."""
    from rich.table import Table

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=terminal.ERRORS))
    grid = Table()
    grid.add_column("row")
    for _ in range(5):
        grid.add_column("±")
    grid.add_row(*(terminal.text(word) for word in ("beta=0.999", *["0.5 ± 0.1 ✓"] * 5)))
    terminal.console().print(grid)
    sys.stdout.flush()
    lines = sys.stdout.buffer.getvalue().decode(encoding).rstrip("\n").split("\n")  # type: ignore[attr-defined]
    assert len({len(line) for line in lines}) == 1
    assert "beta=0.999" in "".join(lines)


def test_a_c_locale_that_lets_any_byte_through_is_an_ascii_terminal(place: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:surrogateescape"}
    program = [sys.executable, "-m", "molsam", "report", "--table", "3", "sweeps.datasets=[esol]"]
    done = subprocess.run(program, cwd=place, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "+-" in done.stdout


def test_help_fits_80_columns() -> None:
    for command in ("train --help", "bench --help"):
        program = [sys.executable, "-m", "molsam", *command.split()]
        done = subprocess.run(
            program, env={**os.environ, "COLUMNS": "80"}, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0
        assert [line for line in done.stdout.splitlines() if len(line) > 80] == []
