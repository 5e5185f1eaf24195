"""The page in a real browser: at every width, in both themes, by mouse and keyboard, with few and many runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from molsam.commands.dashboard import study
from molsam.report.dashboard.collect import Collector, relative_link
from molsam.report.dashboard.page import build
from molsam.report.dashboard.serve import Server
from tests.report.dashboard.browser import ABOVE, AVAILABLE, NAMELESS, OVERLAPS, Browser
from tests.report.dashboard.test_sweeps import add, make_study
from tests.report.figures.synthetic import OPTIMIZERS, write_run

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="chromium and chromedriver (Debian's packages) are not installed")
HOSTILE = "<b>bold</b><img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
WIDTHS = (420, 768, 1280, 1920)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


def predictions(folder: Path, tasks: tuple[str, ...], values: list[tuple[float, float]]) -> None:
    lines = [f"{7 * i},C,{task},{target},{value}" for task in tasks for i, (target, value) in enumerate(values)]
    (folder / "test_predictions.csv").write_text("\n".join(["row,smiles,task,target,prediction", *lines]) + "\n")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine optimizers on BBBP, three groups on ESOL (one far off), a search."""
    root = tmp_path_factory.mktemp("runs")
    for place, optimizer in enumerate(OPTIMIZERS):
        for fold in range(2):
            split = {"kind": "random", "hash": f"s{fold}", "sizes": [80, 10, 10]}
            write_run(root, "grover", optimizer, fold=fold, test=0.8 + fold / 10 - place / 1000, split=split)
    folder = write_run(root, "compt", "sam", "esol", test=0.5)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text('["model=compt", "optimizer.rho=0.05"]')
    (folder / "best").mkdir()
    predictions(folder, ("solubility",), [(-2.0, -1.9), (-4.0, -3.0)])
    write_run(root, "compt", "graphsam", "esol", test=0.4, name=HOSTILE, settings={"optimizer.note": HOSTILE})
    for fold, score in enumerate((0.45, 0.46, 0.47, 0.48, 90.0)):
        write_run(root, "compt", "adam", "esol", fold=fold, test=score, settings={"base_optimizer.lr": 10.0**-fold})
    made = make_study(root / "tune", 30)
    for place in range(6):
        add(made, "COMPLETE", value=2 - place / 10, rho=0.005 * 2**place)
    add(made, "FAIL", rho=0.5, error=HOSTILE)
    (root / "tune" / "trial-00005").mkdir()
    return root


@pytest.fixture(scope="module")
def page(runs: Path) -> str:
    return written(runs, runs / "page.html")


def written(root: Path, target: Path) -> str:
    target.write_text(build(Collector([root], relative_link(target.parent), study).collect()))
    return target.as_uri()


def text(browser: Browser, selector: str) -> list[str]:
    found: list[str] = browser.run(f"[...document.querySelectorAll({selector!r})].map(r => r.innerText)")
    return found


def click(browser: Browser, selector: str) -> None:
    browser.run(f"document.querySelector({selector!r}).click()")


def choose(browser: Browser, name: str, label: str) -> None:
    """The option of a select whose text begins with `label`."""
    browser.run(
        f"(s => {{ s.value = [...s.options].find(o => o.text.startsWith({label!r})).value; "
        f"s.dispatchEvent(new Event('change')); }})(document.getElementById({name!r}))"
    )


def search(browser: Browser, words: str, groups: int) -> None:
    browser.run(
        f"(s => {{ s.value = {words!r}; s.dispatchEvent(new Event('input')); }})(document.getElementById('search'))"
    )
    browser.wait(f"document.querySelectorAll('#board tbody tr').length === {groups}")


def draw_all(browser: Browser) -> None:
    browser.run(
        "Object.keys(CHARTS).forEach(n => document.getElementById('card-' + n).hidden || CHARTS[n].draw(now.groups))"
    )


@pytest.mark.parametrize("dark", [False, True])
def test_every_width_in_both_themes(browser: Browser, page: str, tmp_path: Path, dark: bool) -> None:
    papers = set()
    for width in WIDTHS:
        browser.look(width, dark=dark)
        browser.open(page)
        draw_all(browser)
        assert browser.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0, width
        assert browser.run(ABOVE) == [], width
        assert browser.run(OVERLAPS) == [], width
        browser.screenshot(tmp_path / f"{width}.png", whole=True)
        assert (tmp_path / f"{width}.png").stat().st_size > 30_000
        papers.add(browser.run("getComputedStyle(document.querySelector('section')).backgroundColor"))
    assert papers == {"rgb(26, 32, 40)" if dark else "rgb(255, 255, 255)"}
    browser.look(420, dark=dark)
    browser.run("openRun(now.runs[0])")
    left, right = browser.run("(box => [box.left, box.right])(document.getElementById('run').getBoundingClientRect())")
    assert left >= 0
    assert right <= 420
    assert browser.complaints() == []
    browser.look(1280)


def test_everything_has_a_name_for_those_who_listen(browser: Browser, page: str) -> None:
    browser.open(page)
    draw_all(browser)
    click(browser, "#runs button.plain")
    assert browser.run(NAMELESS) == []
    assert "ends at" in browser.run("document.querySelector('#chart-curves svg').getAttribute('aria-label')")
    levels = browser.run("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_eight_groups_have_a_colour_and_keep_it(browser: Browser, page: str) -> None:
    browser.open(page)
    draw_all(browser)
    colours = "Object.fromEntries([...slots].map(([key, slot]) => [key, slot]))"
    before: dict[str, int] = browser.run(colours)
    assert len(set(before.values())) == 8
    assert browser.run("document.querySelectorAll('#chart-curves .faint').length") == 1
    assert text(browser, "#legend .quiet") == ["1 more in grey"]
    click(browser, '#board .group[aria-pressed="false"]')
    assert "8 groups are in colour" in text(browser, "#said")[0]
    assert browser.run(colours) == before
    click(browser, "#legend .chip:nth-child(3)")
    click(browser, '#board .group[aria-pressed="false"]')
    after: dict[str, int] = browser.run(colours)
    assert sum(after.get(key) == slot for key, slot in before.items()) >= 7
    choose(browser, "filter-optimizer", "Adam")
    choose(browser, "filter-optimizer", "All")
    assert browser.run(colours) == after, "what is filtered for a moment keeps its colour"
    click(browser, "#eight")
    assert browser.run(colours) == before
    choose(browser, "filter-optimizer", "GraphSAM (release)")
    assert browser.run("slots.size") == 1, "the best of what is left"
    choose(browser, "filter-optimizer", "All")
    assert browser.run(colours) == before


def test_one_benchmark_at_a_time(browser: Browser, page: str) -> None:
    browser.open(page)
    assert len(text(browser, "#board tbody tr")) == 9
    assert "0.850 ± 0.071" in text(browser, "#board tbody tr")[0], "a higher ROC-AUC leads"
    click(browser, '#board th button[data-key="score"]')
    assert "Adam" in text(browser, "#board tbody tr")[0]
    choose(browser, "benchmark", "ESOL")
    first = text(browser, "#board tbody tr")[0]
    assert ["GraphSAM" in first, "0.400" in first, "0.511" in first] == [True, True, True], "a lower RMSE leads"
    assert "Lower is better" in text(browser, "#board-note")[0]
    assert len(text(browser, "#runs tbody tr")) == 7
    search(browser, "optimizer.note=", 1)
    assert len(text(browser, "#runs tbody tr")) == 1
    assert text(browser, "#benchmarks tbody tr")[0].startswith("BBBP")
    assert browser.complaints() == []


def test_an_empty_chart_is_a_line_that_says_what_fills_it(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "gcn", "adam", gradients=False)
    browser.open(written(tmp_path / "runs", tmp_path / "page.html"))
    assert browser.run("['cosines', 'norms'].map(n => document.getElementById('card-' + n).offsetHeight)") == [0, 0]
    assert "gradient cosines and gradient norms (train with diagnostics=gradients)" in text(browser, "#missing")[0]
    assert browser.run("document.getElementById('section-leads').offsetHeight") < 60
    assert "needs two groups" in text(browser, "#section-leads")[0]


def test_an_outlier_is_marked_and_flattens_nothing(browser: Browser, page: str) -> None:
    browser.open(page)
    choose(browser, "benchmark", "ESOL")
    draw_all(browser)
    ticks = "[...document.querySelectorAll('#chart-cost .axes text[text-anchor=end]')]"
    top = f"Math.max(...{ticks}.map(t => Number(t.textContent)))"
    assert browser.run(top) < 1
    assert browser.run("document.querySelectorAll('#chart-cost .beyond').length") == 1
    assert "up to 90" in text(browser, "#chart-cost .note")[0]
    click(browser, "#chart-cost .note button")
    assert browser.run(top) > 50


def test_the_good_side_of_an_axis_is_never_cut_and_few_values_hardly(browser: Browser, page: str) -> None:
    browser.open(page)
    values = "[0.9, ...Array(30).fill(0).map((_, i) => 1.762 + i / 5000), 9]"
    assert browser.run(f"robust({values}, false, 'low')[0]") == 0.9
    assert browser.run(f"robust({values}, false, 'low')[1]") < 2
    assert browser.run(f"robust({values}, false, 'high')[1]") == 9
    assert browser.run(f"robust({values}, false)[0]") > 1.7
    assert browser.run("robust([1.724, 1.762, 1.765, 1.766, 1.768, 1.83], false, 'low')") == [1.724, 1.83]
    lines = "[0, 1, 2, 3].map(i => ({ x: [1, 2], y: [90 + i, 1 + i / 10] }))"
    assert browser.run(f"settled({lines}, false, 'low')") == [1, 93]


def test_a_search_shows_its_best_trial(browser: Browser, tmp_path: Path) -> None:
    made = make_study(tmp_path / "tune", 40)
    for place in range(24):
        add(made, "COMPLETE", value=1.762 + place / 4000, rho=0.01)
    add(made, "COMPLETE", value=1.2, rho=0.02)
    browser.open(written(tmp_path, tmp_path / "page.html"))
    assert browser.run("document.querySelectorAll('.history .beyond').length") == 0
    assert "1.2" in browser.run("document.querySelector('.parallel').textContent")


def test_a_search_word_that_fits_nothing_leaves_one_line(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.run("(s => { s.value = 'zzz'; s.dispatchEvent(new Event('input')); })(document.getElementById('search'))")
    browser.wait("document.getElementById('missing').textContent.startsWith('No run fits')")
    assert browser.run("[...document.querySelectorAll('#board, #runs, #leads')].map(n => n.offsetHeight)") == [0, 0, 0]


def test_times_are_written_in_one_way(browser: Browser, page: str) -> None:
    browser.open(page)
    shown = browser.run("[4.25, 45.2, 59.9, 75.2, 180, 601, 3600 * 3].map(duration)")
    assert shown == ["4.3 s", "45.2 s", "1 min", "1 min 15 s", "3 min", "10 min", "3 h 0 min"]


def test_unusual_settings_are_those_of_the_benchmark(browser: Browser, tmp_path: Path) -> None:
    usual = {"training.extra": 1, "optimizer.many": [1, 2], "dataset.url": "https://example.org"}
    for fold in range(5):
        write_run(tmp_path / "runs", "gcn", "adam", "bbbp", fold=fold, settings=usual)
    for fold in range(2):
        own = {"training.extra": 2, "optimizer.many": [fold], "optimizer.note": "odd" if fold else "even"}
        write_run(tmp_path / "runs", "gcn", "adam", "esol", fold=fold, settings={**usual, **own, "dataset.url": "b"})
    browser.open(written(tmp_path / "runs", tmp_path / "page.html"))
    choose(browser, "benchmark", "ESOL")
    told = browser.run("now.runs.map(run => unusualOf(run, settings(run)))")
    assert not {"training.extra", "dataset.url", "optimizer.many"} & {key for keys in told for key in keys}
    assert "optimizer.note" in {key for keys in told for key in keys}


def test_the_comparison_is_that_of_the_report(browser: Browser, page: str) -> None:
    browser.open(page)
    assert browser.run("document.getElementById('reference').selectedOptions[0].text").endswith("Adam")
    rows = text(browser, "#leads tbody tr")
    assert len(rows) == 8
    assert [words in rows[0] for words in ("GROVER · SAM", "−0.0010", "worse")] == [True, True, True], (
        "the closest first"
    )
    choose(browser, "reference", "GROVER · SAM-One")
    assert any("better" in row and row.startswith("GROVER · Adam") for row in text(browser, "#leads tbody tr"))


def test_a_run_tells_all_of_itself(browser: Browser, page: str) -> None:
    browser.open(page)
    choose(browser, "benchmark", "ESOL")
    search(browser, "optimizer.rho=0.05 compt-sam", 1)
    click(browser, "#runs button.plain")
    shown = browser.run("document.getElementById('run').innerText")
    for words in (
        "Test RMSE\n0.5",
        "Settings given for this run",
        "optimizer.rho\t0.05",
        "molsam predict ",
        "2 molecules",
    ):
        assert words in shown
    assert shown.index("Settings given") < shown.index("All settings")
    assert browser.run("document.querySelectorAll('#run-predictions .dot').length") == 2
    assert browser.run("document.querySelectorAll('#run-metric .curve').length") == 2
    href = browser.run("document.querySelector('#run .path a').href")
    assert (Path(href.removeprefix("file://")) / "result.json").exists()
    choose(browser, "rival", "GraphSAM")
    keys = text(browser, "#run > div:last-child tbody th")
    assert {"optimizer._target_", "optimizer.beta", "optimizer.note", "test score"} <= set(keys)
    browser.press("Escape")
    browser.wait("!document.getElementById('run').open")


@pytest.mark.parametrize(
    ("task", "values", "shown"),
    [("classification", [(1.0, 0.9), (0.0, 0.2), (1.0, 0.1)], "Area 0.500; 2 of 3"),
     ("multiclass", [(2.0, 2.0), (0.0, 1.0)], "2 rows")],
)  # fmt: skip
def test_predictions_of_several_tasks(
    browser: Browser, tmp_path: Path, task: str, values: list[tuple[float, float]], shown: str
) -> None:
    folder = write_run(tmp_path / "runs", "gcn", "sam", task=task, test_per_task={"a": 0.5, "b": None})
    predictions(folder, ("a", "b"), values)
    browser.open(written(tmp_path / "runs", tmp_path / "page.html"))
    click(browser, "#runs button.plain")
    assert "Result by task (2)" in browser.run("document.getElementById('run').innerText")
    choose(browser, "task", "b")
    assert shown in text(browser, "#run-predictions-note")[0]
    assert browser.complaints() == []


def test_a_sweep_and_its_search(browser: Browser, page: str) -> None:
    browser.open(page)
    (card,) = text(browser, ".sweep")
    for words in (
        "6 of 30 trials, 1 failed, about 24 min of computing left",
        "Best: trial 5",
        "rho 0.16",
        "molsam rerun ",
    ):
        assert words in card
    assert browser.run("document.querySelectorAll('.history circle.dot').length") == 6
    assert browser.run("document.querySelectorAll('.parallel path').length") == 7
    assert len(text(browser, ".sweep tbody tr")) == 6


def test_the_keyboard_is_enough(browser: Browser, page: str) -> None:
    browser.open(page)
    draw_all(browser)
    browser.run("document.querySelector('#board th button[data-key=\"seconds\"]').focus()")
    browser.press("Enter")
    assert browser.run("document.activeElement.dataset.key") == "seconds", "the focus stays on the head"
    assert browser.run("document.querySelectorAll('#board th[aria-sort=ascending]').length") == 1
    browser.run("document.querySelector('#chart-curves svg').focus()")
    browser.press("ArrowRight")
    assert "epoch 1" in text(browser, "#chart-curves .tip")[0]
    browser.press("ArrowRight")
    assert "epoch 2" in text(browser, "#chart-curves .tip")[0]
    browser.run("document.querySelector('#runs button.plain').focus()")
    browser.press("Enter")
    assert browser.run("document.getElementById('run').open") is True
    browser.press("Escape")
    browser.wait("document.activeElement.closest('#runs') !== null")


def test_text_stays_text(browser: Browser, page: str) -> None:
    browser.open(page)
    choose(browser, "benchmark", "ESOL")
    choose(browser, "spread", "every run")
    for place in range(7):
        browser.run(f"(openRun(now.runs[{place}]), document.getElementById('run').close())")
    assert any("<img" in row for row in text(browser, "#runs tbody tr"))
    assert browser.run("document.querySelectorAll('img, main script').length") == 0
    assert browser.run("document.title") == "molsam runs"
    assert browser.complaints() == []


def many(root: Path, count: int) -> dict[str, Any]:
    """A run with long curves, many times over, in groups of five."""
    folder = write_run(root, epochs=100, steps=4)
    predictions(folder, ("active",), [(i % 2, i / 60) for i in range(60)])
    data = Collector([root], relative_link(root)).collect()
    (run,), (group,) = data["runs"], data["groups"]
    score = {"n": 5, "mean": 0.8, "std": 0.01, "low": 0.79, "high": 0.81}
    data["groups"] = [
        {**group, "key": str(place), "variant": f"rho {place}", "score": {**score, "mean": 0.8 - place / 1e4},
         "counts": {"complete": 5}}
        for place in range(count // 5)
    ]  # fmt: skip
    data["runs"] = [{**run, "group": i // 5, "seed": i, "config": {"seed": str(i)}} for i in range(count)]
    return data


@pytest.mark.parametrize("count", [5, 2000])
def test_few_runs_and_many(browser: Browser, tmp_path: Path, count: int) -> None:
    target = tmp_path / "page.html"
    target.write_text(build(many(tmp_path / "runs", count)))
    assert target.stat().st_size < count * 10_000 + 200_000
    for width in (420, 1280):
        browser.look(width)
        assert browser.open(target.as_uri()) < 3
        draw_all(browser)
        assert browser.run("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
        assert browser.run(OVERLAPS) == []
    assert len(text(browser, "#board tbody tr")) == min(20, count // 5)
    assert browser.run("document.querySelectorAll('#chart-curves .curve').length") == min(8, count // 5)
    assert browser.complaints() == []


def test_a_served_page_follows_the_runs(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path, "gcn", "adam")
    with Server([tmp_path], 0, study) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            browser.open(server.address)
            assert len(text(browser, "#board tbody tr")) == 1
            write_run(tmp_path, "gcn", "sam")
            browser.wait("document.querySelectorAll('#board tbody tr').length === 2")
            assert browser.complaints() == []
        finally:
            server.shutdown()
            thread.join()
