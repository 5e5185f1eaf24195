"""A campaign runs what is missing, in order, at the lowest priority, and frees the machine on request."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from molsam.commands.main import main
from molsam.config.cells import table_cells
from molsam.config.compose import sweep_section
from molsam.errors import ConfigError
from molsam.report import specs
from molsam.sweeping import campaign
from molsam.sweeping.campaign import Campaign, Job
from tests.report.conftest import fill  # noqa: F401 - a fixture

SHORT = ("sweeps.datasets=[esol]", "sweeps.folds=1", "sweeps.rows=[gamma=0.5,gamma=0.2]")
JOB = Job("table9", "short", SHORT)


def one(tmp_path: Path) -> Campaign:
    return Campaign([campaign.Step(1, "a try", (JOB,))], tmp_path / "outputs", tmp_path / "results")


def finish(place: Campaign, count: int) -> None:
    for cell in JOB.cells()[:count]:
        folder = place.outputs / JOB.name / cell.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").write_text("{}")


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)


def test_the_steps_name_sweeps_and_cells_that_there_are() -> None:
    found = campaign.steps()
    assert [step.number for step in found] == [1, 2, 3, 4, 5, 6, 7]
    for job in (job for step in found for job in step.jobs):
        assert job.sweep in specs.names()
        assert job.cells()
    section, _ = sweep_section("main_claim")
    assert [cell.name for cell in found[0].jobs[-1].cells()] == [cell.name for cell in table_cells(section)]
    assert [len(found[0].jobs[i].cells()) for i in (0, -1)] == [120, 300]


def test_a_job_is_the_products_own_command() -> None:
    assert JOB.overrides == ["sweeps=table9", "sweeps.name=short", *SHORT, "training.test_each_epoch=true"]
    assert Job("table9", "table9").overrides == ["sweeps=table9", "training.test_each_epoch=true"]


def test_cores_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    for told, expected in (("0", 6), ("2", 4), ("9", 1)):
        monkeypatch.setenv(campaign.FREE, told)
        assert campaign.workers() == expected
    monkeypatch.setenv(campaign.FREE, "some")
    with pytest.raises(ConfigError, match="CAMPAIGN_WORKERS=some"):
        campaign.workers()


def test_what_is_finished_is_not_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = one(tmp_path)
    finish(place, 2)
    monkeypatch.setattr(campaign, "launch", lambda *_: pytest.fail("it was started"))
    assert place.progress(JOB) == (2, 2)
    assert campaign.run_job(place, JOB, lambda _: None) == 0


def test_a_pause_ends_the_sweep_and_its_end_starts_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, started, told = one(tmp_path), [], []
    monkeypatch.setattr(
        campaign,
        "launch",
        lambda *_: started.append(sleeper()) or started[-1],  # type: ignore[func-returns-value]
    )

    def wait(_: float) -> None:
        if len(told) == 1:
            place.pause(True)
        elif told and "paused" in told[-1]:
            assert started[0].poll() is not None  # the processor is free
            place.pause(False)
        elif len(started) == 2:
            started[1].kill()

    assert campaign.run_job(place, JOB, told.append, wait) != 0
    assert [line.split(": ")[1] for line in told[:2]] == ["0 of 2 cells", "paused, 0 of 2 cells"]
    assert len(started) == 2


def test_whoever_leaves_takes_the_sweep_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, started = one(tmp_path), []
    monkeypatch.setattr(
        campaign,
        "launch",
        lambda *_: started.append(sleeper()) or started[-1],  # type: ignore[func-returns-value]
    )

    def wait(_: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        campaign.run_job(place, JOB, lambda _: None, wait)
    assert started[0].poll() is not None


def test_a_sweep_has_the_lowest_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = [sys.executable, "-c", "import time; time.sleep(600)"]
    monkeypatch.setattr(campaign, "train_arguments", lambda: program)
    process = campaign.launch(one(tmp_path), JOB)
    try:
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 19
        assert os.getpgid(process.pid) == process.pid
        group = Path(f"/proc/{process.pid}/autogroup")
        if group.exists() and os.access(group, os.W_OK):
            assert group.read_text().split()[-1] == "19"
    finally:
        campaign.stop(process)
    assert process.returncode is not None


def test_only_one_process_runs_it(tmp_path: Path, capsys: Any) -> None:
    place = one(tmp_path)
    assert not place.running()
    with place.claimed():
        assert place.running()
        assert main(["campaign", "run", "--outputs", str(place.outputs), "--results", str(place.results)]) == 5
    assert "Another process" in capsys.readouterr().err
    assert not place.running()


def test_the_commands(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.yaml"
    changes = ", ".join(f'"{change}"' for change in SHORT)
    file.write_text(f"- step: 7\n  title: a try\n  sweeps: [{{sweep: table9, name: short, set: [{changes}]}}]\n")
    place, arguments = one(tmp_path), ["--outputs", str(tmp_path / "outputs"), "--file", str(file)]
    finish(place, 1)
    assert main(["campaign", "status", *arguments]) == 1
    assert "short 1 of 2 cells" in capsys.readouterr().out
    assert main(["campaign", "pause", *arguments]) == 0
    assert place.paused
    assert main(["campaign", "resume", *arguments]) == 0
    assert not place.paused
    assert "molsam campaign run" in capsys.readouterr().out
    file.write_text("- step: one\n")
    assert main(["campaign", "status", *arguments]) == 2


def test_a_finished_sweep_is_packed_and_a_failure_is_told(
    fill: Callable[..., Any],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
) -> None:
    fill("table9", keep=lambda cell: cell.values["fold"] == 0)
    monkeypatch.setattr(campaign, "run_job", lambda *_: 3)
    file = tmp_path / "mine.yaml"
    file.write_text("- {step: 1, title: a try, sweeps: [{sweep: table9}]}\n")
    results = tmp_path / "results"
    arguments = ["campaign", "run", "--outputs", str(tmp_path / "outputs"), "--results", str(results), "--file"]
    assert main([*arguments, str(file)]) == 1
    assert len((results / "table9.jsonl").read_text().splitlines()) == 12
    assert "exit code 3" in capsys.readouterr().err
