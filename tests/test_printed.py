"""Every command that a page prints is run as printed; the few exceptions are listed here with their reason."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from molsam.commands import main as cli
from molsam.config.compose import compose
from molsam.wiring.run import start
from tests.paths import MOLECULENET, ROOT, needs_moleculenet
from tests.test_docs import PAGES, blocks, write_files

QUICK = (
    r"molsam data (list|check esol)",
    r"molsam predict outputs/assay assay\.csv.*",
    r"molsam (embed|explain) outputs/assay .*",
    r"molsam rerun outputs/assay",
    r"molsam baseline .*",
    r"molsam report --table 3",
    r"molsam report --table tune_graphsam",
    r"molsam results (pack|unpack) .*",
    r"molsam campaign (pause|resume)",
    r"molsam dashboard( outputs/.*)?",
    r"molsam figure (3|5|8|9|10|[1-9][abc]?)( --runs results)?( --models [a-z,]+)?( --datasets [a-z,]+)?",
    r"molsam figure 5 --runs outputs/fig3 --output paper_figures",
)
"""In this process, in seconds all together. What is missing (a table's cells, a figure's runs) is exit code 1."""

SLOW = (
    r"(molsam train|python train\.py)( [^ ]*=.*| --help)?",
    r"molsam train --multirun .*(dry_run|smoke)=true",
    r"molsam report --(all|claims|table (1|3|8|9|main_claim)).*",
    r"molsam campaign status",
    r"molsam dashboard results .*",
    r"molsam figure all",
    r"molsam figure 5 --make .* --set smoke=true",
    r"molsam (predict|explain) outputs/mine .*",
)
"""In a shell of its own each, for minutes; `make test-slow` runs them."""

PLANNED = (r"molsam train --multirun .*",)
"""Hours. The long tests run each with dry_run=true, which composes every cell."""

NOT_RUN = {
    r"make .*|pip install .*|source .*|cp .*": "sets up a machine; .ci/run does it",
    r"pytest .*": "the test suite itself",
    r"molsam train logger=wandb logger\.mode=online|wandb sync .*|wandb leet .*": "needs an account, or a person; "
    "tests/tracking/test_wandb.py reads an offline run with `wandb leet inspect`",
    r"molsam dashboard --serve": "does not end; tests/report/dashboard does the same",
    r".*hydra/(launcher=(slurm|ray_local)|sweeper/storage=postgresql).*": "needs a scheduler, Ray or a database; "
    "tests/sweeping/test_storage.py and tests/integration/test_sweeps.py do the same where they are",
    r"torchrun .*": "needs several machines; tests/wiring/test_processes.py starts several processes on one",
    r"molsam campaign run .*": "a day",
    r"molsam bench.*": "minutes of measurement each; tests/bench measures one round of each",
    r"molsam figure (3 5|7) --make.*": "trains for an hour; the example with smoke=true is run",
    r"MOLSAM_TRUSTED=.*": "tests/integration/test_installed.py runs it with the files of its page",
    r".*dataset\.metric=worst.*|.*model=gin.*|.*optimizer=random_sam.*|.*dataset=assay .*": (
        "needs the files of its page; tests/test_docs.py runs them with those"
    ),
    r"PYTHONPATH=outputs/\.peers.*|python results/chemprop_dmpnn\.py .*": (
        "needs another package's environment, which `molsam bench --against` makes"
    ),
}
"""Pattern -> why."""
UNKNOWN = "no test runs it, and nothing says why"


def printed() -> list[str]:
    """The lines of all bash blocks, without comments, each once; the pages' assay.csv comes first."""
    found = [
        re.sub(r"\s+# .*|\s+#$", "", line).strip()
        for page in PAGES
        for block in blocks(page)
        if block.language == "bash"
        for line in block.text.splitlines()
    ]
    return list(dict.fromkeys(line for line in found if line and not line.startswith("#")))


def rule(line: str) -> str:
    """Which of the lists above a line belongs to."""
    for why in (one for pattern, one in NOT_RUN.items() if re.fullmatch(pattern, line)):
        return why
    for name, patterns in {"quick": QUICK, "slow": SLOW, "planned": PLANNED}.items():
        if any(re.fullmatch(pattern, line) for pattern in patterns):
            return name
    return UNKNOWN


LINES = printed()


def test_every_line_has_a_rule_and_every_rule_a_line() -> None:
    unknown = [line for line in LINES if rule(line) == UNKNOWN]
    assert not unknown, "add a pattern to QUICK, SLOW or NOT_RUN above"
    assert {"quick", "slow", "planned", *NOT_RUN.values()} == set(map(rule, LINES))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages have made before: assay.csv and its run, a run of a sweep, the clone's files."""
    folder = tmp_path_factory.mktemp("printed")
    write_files(ROOT / "docs" / "own-data.md", folder)
    (folder / "kept").mkdir()
    (folder / "molecules.csv").write_text("smiles\nCCO\nCCCO\n")
    for name in ("results", "train.py", "conf", "sweeps"):
        (folder / name).symlink_to(ROOT / name)
    settings = ["dataset=csv", f"dataset.path={folder}/assay.csv", "dataset.targets=[pIC50]"]
    settings += ["model=gcn", "optimizer=graphsam", "training.epochs=3", "training.threads=1"]
    start(compose(settings), folder / "outputs" / "assay", settings)
    (folder / "outputs" / "tune_graphsam").mkdir()
    study = optuna.create_study(
        storage=f"sqlite:///{folder}/outputs/tune_graphsam/study.db", study_name="tune_graphsam"
    )
    space = {"optimizer.beta": FloatDistribution(0.5, 0.999)}
    values = 0.6, 0.8, 0.9
    study.add_trials([create_trial(value=one, params={"optimizer.beta": one}, distributions=space) for one in values])
    shutil.copytree(folder / "outputs" / "assay", folder / "outputs" / "table3" / "cell")
    return folder


@pytest.mark.parametrize("line", [line for line in LINES if rule(line) == "quick"])
def test_a_quick_line(
    line: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    words = shlex.split(line)[1:]
    code = cli.main(words)
    told = capsys.readouterr()
    assert code in ((0, 1) if words[0] in ("report", "figure") else (0,)), told.err
    assert words[0] in ("campaign", "results", "dashboard") or told.out + told.err


def test_the_page_of_files_names_what_a_run_leaves(place: Path) -> None:
    page = (ROOT / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    run = place / "outputs" / "assay"
    left = [path.relative_to(run) for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    assert left
    for path in left:
        assert f"`{path}`" in page or f"`{path.parts[0]}/`" in page, path


@pytest.mark.parametrize(
    "page", [ROOT / "docs" / "notebook.md", pytest.param(ROOT / "README.md", marks=pytest.mark.slow)]
)
def test_the_python_of_a_page(page: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    code = [block.text for block in blocks(page) if block.language == "python"]
    names: dict[str, object] = {}
    for text in code:
        exec(compile(text, page.name, "exec"), names)  # noqa: S102 - our own page
    assert code
    assert "run" in names


@pytest.fixture(scope="module")
def downloaded(cache: Path) -> None:
    """What the first run of a dataset fetches lies in the cache."""
    folder = cache / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    for path in MOLECULENET.glob("*.csv"):
        shutil.copy(path, folder / path.name)


@pytest.mark.slow
@needs_moleculenet
@pytest.mark.usefixtures("downloaded")
@pytest.mark.parametrize("line", [line for line in LINES if rule(line) in ("slow", "planned")])
def test_a_slow_line(line: str, place: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    more = " dry_run=true paths.outputs=planned" if rule(line) == "planned" else ""
    done = subprocess.run(
        ["bash", "-c", line + more],
        cwd=place,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    asks = line.split()[1] in ("report", "figure", "campaign")
    assert done.returncode in ((0, 1) if asks else (0,)), done.stderr
    assert "Traceback" not in done.stderr
