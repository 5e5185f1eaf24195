"""Every figure shows the numbers that other code finds in the run folders."""

from __future__ import annotations

import argparse
import json
import shlex
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from molsam.commands import figure as command
from molsam.report.figures import schematic
from molsam.report.figures.gradients import running_median
from molsam.report.figures.recipes import RECIPES
from tests.report.figures.synthetic import OPTIMIZERS, write_run


def figure(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return command.run(parser.parse_args(list(arguments)))


def draw(name: str, runs: Path, output: Path, *more: str) -> dict[str, Any]:
    assert figure(name, "--runs", str(runs), "-o", str(output), *more) == 0
    stem = output / f"figure{name}"
    width, height = struct.unpack(">II", stem.with_suffix(".png").read_bytes()[16:24])
    assert abs(width / 300 - 3.3) < 0.02, "column width"
    assert 1 < height / 300 < 9
    assert stem.with_suffix(".svg").read_text().lstrip().startswith("<?xml")
    return json.loads(stem.with_suffix(".json").read_text())["numbers"]


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str, int], Path]:
    root = tmp_path_factory.mktemp("runs")
    found = {}
    for dataset, models in {"bbbp": ("grover", "compt"), "tox21": ("grover",), "sider": ("grover",)}.items():
        for model in models:
            for optimizer in OPTIMIZERS:
                for fold in range(2):
                    path = write_run(root, model, optimizer, dataset, fold=fold)
                    _artifacts(path, len(found))
                    found[model, optimizer, dataset, fold] = path
    return found


def _artifacts(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    phi = np.linspace(-1, 1, 5)
    losses = [(0.1 + rng.uniform(1, 2) * phi**2).tolist() for _ in range(3)]
    earlier = json.dumps({"epoch": 0, "phis": [-2, 0, 2], "landscape": [[9, 0, 9]]})
    (path / "sharpness.jsonl").write_text(
        earlier + "\n" + json.dumps({"epoch": 3, "phis": phi.tolist(), "landscape": losses}) + "\n"
    )
    weights = rng.dirichlet(np.ones(3), size=3)
    np.savez(path / "attention.npz", map=weights, entropy=rng.uniform(1, 3), smiles=np.str_("CCO"))


@pytest.fixture
def runs(folders: dict[tuple[str, str, str, int], Path]) -> Path:
    return next(iter(folders.values())).parent


def test_every_figure_of_the_paper_has_a_recipe() -> None:
    assert list(RECIPES) == ["1", "2", "3a", "3b", "3c", "4", "5", "6", "7a", "7b", "8", "9", "10"]


def test_consistent_pairs_by_both_definitions(runs: Path, folders: Any, tmp_path: Path) -> None:
    rows = draw("3c", runs, tmp_path)["compt/bbbp"]
    assert [rows[name]["paper"] for name in rows] == [67.45, 72.46, 56.74, 40.05]
    keys = {"sam": "cos_next", "graphsam": "cos_sam_omega", "sam_k": "cos_sam_omega", "sam_one": "cos_sam_omega"}
    for name, key in keys.items():
        for reading, field in (("caption", key), ("text", "cos_true")):
            shares = []
            for fold in range(2):
                cosines = [r.get(field) for r in lines(folders["compt", name, "bbbp", fold], "gradients.jsonl")]
                cosines = [c for c in cosines if c is not None]
                shares.append(100 * sum(c >= 0 for c in cosines) / len(cosines))
            assert rows[name][reading]["mean"] == pytest.approx(sum(shares) / 2)
            assert rows[name][reading]["n"] == 2


def test_a_cosine_of_zero_is_consistent(tmp_path: Path) -> None:
    from molsam.report.figures.consistency import share
    from molsam.report.stored import StoredRun

    (tmp_path / "gradients.jsonl").write_text('{"c": 0.0}\n{"c": -0.1}\n{"c": null}\n{}\n')
    assert share([StoredRun(tmp_path, {})], "c")["mean"] == 50


def test_bars_are_means_over_folds_beside_the_paper(runs: Path, folders: Any, tmp_path: Path) -> None:
    numbers = draw("3b", runs, tmp_path)["compt/bbbp"]["bars"]
    assert list(numbers) == ["adam", "sam", "sam_one", "sam_k"]
    values = [
        json.loads((folders["compt", "sam_k", "bbbp", f] / "result.json").read_text())["test"]["roc_auc"]
        for f in (0, 1)
    ]
    assert numbers["sam_k"]["mean"] == pytest.approx(np.mean(values))
    assert numbers["sam_k"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert [numbers[name]["paper"] for name in numbers] == [0.948, 0.962, 0.922, 0.941]


def test_figure_1_shows_pre_training_only_if_it_was_run(runs: Path, tmp_path: Path) -> None:
    plain = draw("1", runs, tmp_path)
    assert list(plain) == ["grover/bbbp", "grover/tox21", "grover/sider"]
    assert "pre-trained" not in plain["grover/bbbp"]["bars"]
    assert len(plain["grover/bbbp"]["bars"]) == 8
    write_run(tmp_path / "more", settings={"model.pretrained": "grover.pt"}, test=0.99)
    more = draw("1", runs, tmp_path, "--runs", str(runs), str(tmp_path / "more"))
    assert more["grover/bbbp"]["bars"]["pre-trained"]["mean"] == 0.99
    assert more["grover/bbbp"]["bars"]["pre-trained"]["paper"] == 0.93
    assert more["grover/bbbp"]["bars"]["adam"] == plain["grover/bbbp"]["bars"]["adam"]


def test_gradient_norms_and_changes(runs: Path, folders: Any, tmp_path: Path) -> None:
    changes = draw("3a", runs, tmp_path)["grover/bbbp"]
    norms = draw("9", runs, tmp_path, "--datasets", "tox21,sider")
    medians, ratios = [], {"sam": [], "graphsam_release": []}
    for fold in range(2):
        rows = lines(folders["grover", "sam", "bbbp", fold], "gradients.jsonl")
        medians.append(np.median([row["eps_change"] for row in rows if row["eps_change"] is not None]))
        for name, found in ratios.items():
            rows = lines(folders["grover", name, "tox21", fold], "gradients.jsonl")
            found.append(np.median([row["omega_norm"] / row["eps_norm"] for row in rows]))
    assert changes["eps_change_median"] == pytest.approx(np.mean(medians))
    assert changes["omega_change_median"] > changes["eps_change_median"]
    assert norms["grover/tox21"]["ratio_median"] == pytest.approx(np.mean(ratios["sam"]))
    assert norms["grover/tox21"]["ratio_median_release"] == pytest.approx(np.mean(ratios["graphsam_release"]))
    assert "paper: about 100" in (tmp_path / "figure9.svg").read_text()


def test_a_running_median() -> None:
    assert running_median(np.array([5.0, 1.0, 2.0, 9.0]), 3).tolist() == [3.0, 2.0, 2.0, 5.5]


def test_losses_by_epoch(runs: Path, folders: Any, tmp_path: Path) -> None:
    numbers = draw("5", runs, tmp_path)["grover/bbbp"]
    assert list(numbers) == ["adam", "sam", "graphsam"]
    curves = np.array([
        [r["test/loss"] for r in lines(folders["grover", "sam", "bbbp", f], "metrics.jsonl") if r["kind"] == "epoch"]
        for f in (0, 1)
    ])  # fmt: skip
    assert numbers["sam"]["test"]["mean"] == pytest.approx(curves.mean(0))
    assert numbers["sam"]["test"]["std"] == pytest.approx(curves.std(0, ddof=1))
    assert numbers["sam"]["test"]["epoch"] == [1, 2, 3, 4]


def test_packed_runs_draw_the_same_losses_and_old_ones_without_losses_are_missing(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from molsam.report.packing import pack
    from molsam.runs import pack as packs

    target = tmp_path / "packed" / "all.jsonl"
    target.parent.mkdir()
    pack([runs], target)
    found, expected = draw("5", target.parent, tmp_path / "a"), draw("5", runs, tmp_path / "b")
    for place, entry in expected.items():
        for name, curves in entry.items():
            assert found[place][name]["test"]["mean"] == pytest.approx(curves["test"]["mean"], rel=1e-4)
            assert found[place][name]["train"]["std"] == pytest.approx(curves["train"]["std"], abs=1e-4)
    bare = [packs.Packed(one.cell, one.result) for one in packs.read(target)[0]]
    target.unlink()
    packs.write(target, bare)
    assert figure("5", "--runs", str(target.parent), "-o", str(tmp_path / "c")) == 1
    assert "run with test losses" in capsys.readouterr().err


def test_landscapes_are_rises_over_all_directions(runs: Path, folders: Any, tmp_path: Path) -> None:
    numbers = draw("2", runs, tmp_path)["grover/bbbp"]["adam"]
    stored = [lines(folders["grover", "adam", "bbbp", f], "sharpness.jsonl")[-1] for f in (0, 1)]
    rises = np.concatenate([np.array(one["landscape"]) - 0.1 for one in stored])
    assert numbers["rise"] == pytest.approx(rises.mean(0))
    assert numbers["rise_at_edge"] == pytest.approx(rises[:, [0, -1]].mean())
    assert numbers["directions"] == 6


def test_attention_entropies_beside_the_stated_ones(runs: Path, folders: Any, tmp_path: Path) -> None:
    numbers = draw("10", runs, tmp_path)["compt/bbbp"]
    assert [numbers[name]["paper"] for name in ("adam", "graphsam", "sam")] == [2.4130, 2.7239, 2.8382]
    nats = [float(np.load(folders["compt", "sam", "bbbp", f] / "attention.npz")["entropy"]) for f in (0, 1)]
    assert numbers["sam"]["nats"]["mean"] == pytest.approx(np.mean(nats))
    assert numbers["sam"]["bits"]["mean"] == pytest.approx(np.mean(nats) / np.log(2))
    assert numbers["smiles"] == "CCO"


def test_graphsam_k_by_its_time(tmp_path: Path) -> None:
    for place, (optimizer, k) in enumerate([("adam", 0), ("sam", 0), *(("graphsam", k) for k in (1, 2, 10, None))]):
        settings = {} if optimizer != "graphsam" else {"optimizer.reanchor_epochs": k}
        write_run(tmp_path / "runs", "compt", optimizer, "bbbp", settings=settings, test=0.9 + place / 100,
                  seconds_per_epoch=float(place))  # fmt: skip
    numbers = draw("6", tmp_path / "runs", tmp_path, "--models", "compt")["compt/bbbp"]
    assert list(numbers) == ["adam", "sam", "K=1", "K=2", "K=10", "K=N"]
    assert [point["seconds"]["mean"] for point in numbers.values()] == [0, 1, 2, 3, 4, 5]
    assert numbers["K=N"]["score"]["mean"] == pytest.approx(0.95)
    assert numbers["K=1"]["paper"] == 0.961


def test_sensitivity_to_rho_and_lambda(tmp_path: Path) -> None:
    for rho in (0.05, 0.01, 0.005, 0.001):
        write_run(tmp_path / "runs", "compt", "graphsam", settings={"optimizer.rho": rho}, test=rho)
    for schedule, lams in {"staircase": (1, 3, 5), "continuous": (3, 5)}.items():
        for lam in lams:
            settings = {"rho_schedule.lam": lam, "choices.rho_schedule": schedule}
            write_run(tmp_path / "runs", "compt", "graphsam", fold=1, settings=settings, test=lam / 10)
    rho = draw("7a", tmp_path / "runs", tmp_path)["compt/bbbp"]["staircase"]
    assert rho["0.005"] == {"mean": 0.005, "std": None, "n": 1}
    assert rho["0.05"]["n"] == 2
    numbers = draw("7b", tmp_path / "runs", tmp_path)["compt/bbbp"]
    assert numbers["staircase"]["1"] == numbers["continuous"]["1"]
    assert numbers["staircase"]["5"]["mean"] == numbers["continuous"]["5"]["mean"] == 0.5
    assert numbers["paper"] == 0.961


def test_the_drawing_of_a_step_is_computed() -> None:
    theta, found = np.array([0.3, -0.7]), schematic.steps()
    numeric = [(schematic.loss(theta + d) - schematic.loss(theta - d)) / 2e-6 for d in 1e-6 * np.eye(2)]
    assert schematic.gradient(theta) == pytest.approx(numeric, abs=1e-7)
    point = found["theta"]
    for name in ("sam", "graphsam"):
        step = found[name]
        assert np.linalg.norm(step["eps_hat"]) == pytest.approx(schematic.RHO)
        assert step["next"] == pytest.approx(point - schematic.LR * schematic.gradient(point + step["eps_hat"]))
    true = schematic.gradient(point)
    assert found["sam"]["eps_hat"] == pytest.approx(schematic.RHO * true / np.linalg.norm(true))
    angles = [np.arctan2(*found[name]["eps_hat"]) for name in ("sam", "graphsam")]
    assert found["alpha"] == pytest.approx(np.degrees(abs(angles[0] - angles[1])))
    assert 20 < found["alpha"] < 60


def test_the_moving_average_of_the_drawing_is_algorithm_1s() -> None:
    eps, theta = schematic.gradient(schematic.START), schematic.START
    for _ in range(schematic.STEPS):
        omega = schematic.gradient(theta + schematic.RHO * eps / np.sqrt((eps**2).sum()))
        theta = theta - schematic.LR * omega
        eps = schematic.BETA * eps + (1 - schematic.BETA) * omega / np.sqrt((omega**2).sum())
    found = schematic.steps()
    assert found["theta"] == pytest.approx(theta)
    assert found["graphsam"]["eps_hat"] == pytest.approx(schematic.RHO * eps / np.sqrt((eps**2).sum()))


def test_figure_4_needs_no_runs(tmp_path: Path) -> None:
    assert 20 < draw("4", tmp_path / "none", tmp_path)["alpha"] < 60


def test_equal_runs_give_equal_bytes(runs: Path, tmp_path: Path) -> None:
    draw("3b", runs, tmp_path / "a")
    draw("3b", runs, tmp_path / "b")
    for suffix in ("png", "svg", "json"):
        assert (tmp_path / f"a/figure3b.{suffix}").read_bytes() == (tmp_path / f"b/figure3b.{suffix}").read_bytes()


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "4"])
def test_missing_runs_are_one_sentence_with_their_command(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert figure(name, "--runs", str(tmp_path), "-o", str(tmp_path)) == 1
    (text,) = capsys.readouterr().err.splitlines()
    assert f"Figure {name}: " in text
    assert "`molsam train --multirun " in text
    assert not list(tmp_path.glob("figure*"))


def test_make_trains_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    called: list[list[str]] = []

    def train(line: list[str], **_: Any) -> argparse.Namespace:
        called.append(line)
        for optimizer in ("adam", "sam", "graphsam"):
            write_run(runs, "gcn", optimizer, "esol", epochs=1)
        return argparse.Namespace(returncode=0)

    monkeypatch.setattr(command.subprocess, "run", train)
    options = ("--make", "--models", "gcn", "--datasets", "esol", "--set", "training.epochs=1")
    assert set(draw("5", runs, tmp_path, *options)) == {"gcn/esol"}
    assert draw("8", runs, tmp_path, *options)
    assert len(called) == 1, "what is there is not trained again"
    text = shlex.join(called[0])
    for part in ("-m molsam train --multirun", "sweeps=fig3", "model=gcn", "dataset=esol", "training.epochs=1",
                 f"paths.outputs={runs}"):  # fmt: skip
        assert part in text


def test_the_commands_of_figures_without_a_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure("9", "--runs", str(tmp_path / "runs"), "--datasets", "esol", "--set", "split.fold=0,1")
    text = capsys.readouterr().err
    for part in ("model=grover", "dataset=esol", "optimizer=sam,graphsam_release", "diagnostics=gradients",
                 f"hydra.sweep.dir={tmp_path / 'runs'}/figure9", "split.fold=0,1"):  # fmt: skip
        assert part in text
    figure("9", "--runs", str(tmp_path))
    assert "split.fold=0 " in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.sweep or recipe.make])
def test_the_commands_are_ones_that_hydra_can_compose(name: str) -> None:
    from molsam.config.compose import compose, conf_dir

    recipe = RECIPES[name]
    if recipe.sweep is not None:
        assert (conf_dir().parent / "sweeps" / f"{recipe.sweep}.yaml").is_file()
    for choice in [f"sweeps={recipe.sweep}"] if recipe.sweep else recipe.make[0].split("=")[1].split(","):
        first = [choice] if recipe.sweep else [f"optimizer={choice}", *recipe.make[1:]]
        assert compose(["dataset=esol", *first]).dataset


def test_a_failed_training_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.subprocess, "run", lambda *_, **__: argparse.Namespace(returncode=3))
    with pytest.raises(command.TrainingFailed, match="Figure 5 ended with exit code 3"):
        figure("5", "--make", "--runs", str(tmp_path), "-o", str(tmp_path))


def test_a_number_that_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="There is no figure '11'"):
        figure("11", "-o", str(tmp_path))
