"""The page in a real browser: no complaint, filters that filter, text that stays text, a thousand runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from molsam.report.dashboard.collect import Collector, relative_link
from molsam.report.dashboard.page import build
from molsam.report.dashboard.serve import Server
from tests.report.dashboard.browser import AVAILABLE, Browser
from tests.report.figures.synthetic import OPTIMIZERS, write_run

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="chromium and chromedriver (Debian's packages) are not installed")
HOSTILE = "<b>bold</b><img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
CHARTS = ("tradeoff", "curves", "cosines", "norms", "rho", "cost")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for optimizer in OPTIMIZERS:
        for fold in range(2):
            write_run(root, "grover", optimizer, fold=fold, test=0.8 + fold / 10)
    write_run(root, "compt", "sam", "esol", test=0.5)
    write_run(root, "compt", "graphsam", "esol", test=0.4, name=HOSTILE, settings={"optimizer.note": HOSTILE})
    return root


def page(root: Path, target: Path) -> str:
    target.write_text(build(Collector([root], relative_link(target.parent)).collect()))
    return target.as_uri()


def rows(browser: Browser, table: str) -> list[str]:
    found: list[str] = browser.run(f"[...document.querySelectorAll('#{table} tbody tr')].map(r => r.innerText)")
    return found


def click(browser: Browser, selector: str) -> None:
    browser.run(f"document.querySelector({selector!r}).click()")


def test_everything_is_drawn_without_a_complaint(browser: Browser, runs: Path, tmp_path: Path) -> None:
    browser.open(page(runs, tmp_path / "page.html"))
    for name in CHARTS:
        browser.run(f"document.getElementById('chart-{name}').scrollIntoView()")
        browser.wait(f"document.querySelectorAll('#chart-{name} .trace').length > 0")
    assert browser.complaints() == []
    assert browser.run("document.getElementById('counts').textContent") == "18 of 20 runs, 9 groups"
    assert "0.850 ± 0.071" in rows(browser, "leaderboard")[0]
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_an_empty_chart_names_the_settings_that_fill_it(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path / "runs", "gcn", "sam", gradients=False)
    browser.open(page(tmp_path / "runs", tmp_path / "page.html"))
    for name in ("norms", "cosines"):
        browser.run(f"document.getElementById('chart-{name}').scrollIntoView()")
        browser.wait(f"document.querySelector('#chart-{name} .empty') !== null")
        assert browser.run(f"document.getElementById('chart-{name}').innerText").endswith("diagnostics=gradients")
    browser.run(
        "(s => { s.value = 'cos_true'; s.dispatchEvent(new Event('change')); })(document.getElementById('cosine'))"
    )
    assert "probe_every" in browser.run("document.getElementById('chart-cosines').innerText")
    click(browser, "#filter-model input[value=gcn]")
    assert "diagnostics" not in browser.run("document.getElementById('chart-cosines').innerText")


def test_filters_filter(browser: Browser, runs: Path, tmp_path: Path) -> None:
    browser.open(page(runs, tmp_path / "page.html"))
    assert len(rows(browser, "leaderboard")) == 9
    click(browser, "#filter-optimizer input[value=adam]")
    assert len(rows(browser, "leaderboard")) == 8
    assert not any("Adam" in row for row in rows(browser, "leaderboard"))
    click(browser, "#filter-model input[value=grover]")
    assert rows(browser, "leaderboard") == []
    click(browser, "#reset")
    click(browser, "#filter-dataset input[value=esol]")
    board = rows(browser, "leaderboard")
    assert ["GraphSAM" in board[0], "0.400" in board[0]] == [True, True], "a lower RMSE leads"
    assert "0.511" in board[0], "the paper's value"
    browser.run(
        "(s => { s.value = 'optimizer.note='; s.dispatchEvent(new Event('input')); })(document.getElementById('search'))"
    )
    assert len(rows(browser, "runs")) == 1
    assert browser.complaints() == []


def test_tables_are_sorted_by_their_heads(browser: Browser, runs: Path, tmp_path: Path) -> None:
    browser.open(page(runs, tmp_path / "page.html"))
    click(browser, "#runs th[data-key=test]")
    values = [float(row.split("\t")[4]) for row in rows(browser, "runs")]
    assert values == sorted(values)
    click(browser, "#runs th[data-key=test]")
    assert [float(row.split("\t")[4]) for row in rows(browser, "runs")] == sorted(values, reverse=True)


def test_a_run_and_what_tells_it_from_another(browser: Browser, runs: Path, tmp_path: Path) -> None:
    browser.open(page(runs, tmp_path / "page.html"))
    click(browser, "#filter-dataset input[value=esol]")
    click(browser, "#runs tbody tr")
    shown = browser.run("document.getElementById('detail').innerText")
    assert "optimizer.rho" in shown
    browser.run(
        "(s => { s.value = [...s.options].find(o => o.text.startsWith('ESOL')).value; "
        "s.dispatchEvent(new Event('change')); })(document.getElementById('compare'))"
    )
    keys = browser.run("[...document.querySelectorAll('#detail tbody tr')].map(r => r.cells[0].innerText)")
    assert set(keys) == {"optimizer._target_", "optimizer.beta", "optimizer.reanchor_epochs", "optimizer.note"}
    href = browser.run("document.querySelector('#detail a').href")
    assert href.startswith("file://")
    assert (Path(href.removeprefix("file://")) / "result.json").exists()


def test_text_stays_text(browser: Browser, tmp_path: Path) -> None:
    for fold in range(2):
        write_run(tmp_path / "runs", "gcn", "sam", fold=fold)
    write_run(tmp_path / "runs", "gcn", "sam", name=HOSTILE, settings={"optimizer.note": HOSTILE})
    browser.open(page(tmp_path / "runs", tmp_path / "page.html"))
    browser.run("(s => { s.value = 'runs'; s.dispatchEvent(new Event('change')); })(document.getElementById('spread'))")
    for row in range(3):
        browser.run(f"document.querySelectorAll('#runs tbody tr')[{row}].click()")
    browser.run("document.getElementById('chart-curves').scrollIntoView()")
    legend = "[...document.querySelectorAll('#chart-curves .legendtext')].map(t => t.textContent).join()"
    browser.wait(f"{legend}.includes('<b>bold')")
    assert any("<img" in row for row in rows(browser, "runs"))
    assert browser.run("document.querySelectorAll('img, main script').length") == 0
    assert browser.run("document.title") == "molsam runs"
    assert browser.complaints() == []


def test_a_thousand_runs(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path / "one", epochs=150, steps=8)
    data = Collector([tmp_path / "one"], relative_link(tmp_path)).collect()
    (run,) = data["runs"]
    data["groups"] = [{**data["groups"][0], "variant": f"rho={place}"} for place in range(100)]
    data["runs"] = [{**run, "group": i % 100, "seed": i, "config": {"seed": str(i)}} for i in range(1000)]
    target = tmp_path / "many.html"
    target.write_text(build(data))
    assert target.stat().st_size < 20e6
    assert min(browser.open(target.as_uri()) for _ in range(3)) < 3
    browser.wait("document.querySelectorAll('#chart-tradeoff .trace').length > 0")
    assert browser.complaints() == []


def test_a_served_page_follows_the_runs(browser: Browser, tmp_path: Path) -> None:
    write_run(tmp_path, "gcn", "adam")
    with Server([tmp_path], 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            browser.open(server.address)
            assert len(rows(browser, "leaderboard")) == 1
            write_run(tmp_path, "gcn", "sam")
            browser.wait("document.querySelectorAll('#leaderboard tbody tr').length === 2")
            assert browser.complaints() == []
        finally:
            server.shutdown()
            thread.join()
