"""What cannot run is refused before data are read, in one sentence with field, value and remedy."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import re
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from molsam.config.compose import compose, plain
from molsam.config.schema import TrainingConfig
from molsam.config.secrets import without_secrets
from molsam.errors import ConfigError
from molsam.models.api import DataSpec, MoleculeModel
from molsam.training.objective import Objective
from molsam.wiring import build, check
from tests.paths import ROOT

CONF = ROOT / "conf"
PLAIN = ("adam", "adamw", "sgd")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=0", r"training\.epochs=0 is too small; it must be at least 1\."),
        ("training.epochs=many", r"training\.epochs='many' has the wrong type"),
        ("training.batch_size=-3", r"training\.batch_size=-3 is too small"),
        ("training.loss=mes", r"training\.loss=mes is not a choice\. Did you mean mse\?"),
        ("training.loss=bce", r"training\.loss=bce does not fit a regression dataset"),
        ("training.precision=fp8", r"training\.precision=fp8 is not a choice"),
        ("+training.epoch=3", r"training\.epoch is not a setting of this run\. Did you mean training\.epochs\?"),
        ("+model.hiden_size=3", r"model\.hiden_size is not a setting\. Did you mean model\.hidden_sizes\?"),
        ("model.residual=maybe", r"model\.residual='maybe' has the wrong type"),
        ("model.hidden_sizes=7", r"model\.hidden_sizes=7 has the wrong type"),
        ("model.gnn_norm=left", r"gnn_norm"),
        ("optimizer.beta=1.5", r"optimizer\.beta is 1\.5; it must be from 0 to 1"),
        ("optimizer.rho=-1", r"rho"),
        ("base_optimizer.lr=-0.1", r"optimizer.*learning rate"),
        ("rho_schedule.gamma=-2", r"gamma"),
        ("optimizer.rho_schedule=3", r"optimizer\.rho_schedule=3 has the wrong type; expected"),
        ("lr_schedule.final=0", r"lr_schedule: final is 0; it must be positive"),
        (
            "dataset.metric=roc_auc",
            r"dataset\.metric=roc_auc does not fit a regression dataset; use one of: mae, r2, rmse",
        ),
        ("dataset.task=ranking", r"dataset\.task=ranking is not a task"),
        ("split.folds=0", r"split\.folds=0"),
        ("seed=-1", r"seed=-1"),
        ("optimizer._target_=os.system", r"_target_=os\.system is not allowed"),
        ("model._target_=subprocess.Popen", r"_target_=subprocess\.Popen is not allowed"),
        ("lr_schedule._target_=molsam.training.Here", r"cannot be imported"),
        ("lr_schedule._target_=molsam.training.nothing.Here", r"cannot be imported"),
        ("lr_schedule._target_=molsam.training.lr_schedule.math", r"is not a class that is defined there"),
    ],
)
def test_wrong_settings_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check.check(compose(["model=gcn", override]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
def test_every_model_passes(name: str) -> None:
    check.check(compose([f"model={name}", *(["dataset=cifar10"] if name == "resnet18" else [])]))


@functools.cache
def section(group: str, name: str) -> DictConfig:
    """An option of a group as it is composed, once: composing takes a sixth of a second."""
    chosen: DictConfig = compose(["model=gcn", "optimizer=sam", f"{group}={name}"])[group]
    return chosen


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF / "optimizer").glob("*.yaml")))
def test_every_optimizer_passes_with_every_schedule_and_base(name: str) -> None:
    cfg = compose(["model=gcn", f"optimizer={name}"])
    schedules = sorted(path.stem for path in (CONF / "rho_schedule").glob("*.yaml"))
    for schedule, base in zip(schedules, cycle(["adam", "adamw", "sgd"]), strict=False):
        cfg.rho_schedule = section("rho_schedule", schedule)
        if name not in PLAIN:
            cfg.base_optimizer = section("base_optimizer", base)
        if name.endswith("_release") and schedule == "cosine":
            with pytest.raises(ConfigError, match="the rho schedule Cosine"):
                check.check(cfg)
        else:
            check.check(cfg)


@pytest.mark.parametrize("name", PLAIN)
def test_a_base_optimizer_alone_is_the_one_of_its_name(name: str) -> None:
    """optimizer=adamw selects base_optimizer=adamw; another one beside it would make the run's name untrue."""
    cfg = compose(["model=gcn", f"optimizer={name}", "base_optimizer.lr=0.37"])
    assert cfg.choices.base_optimizer == name
    check.check(cfg)
    built = build.make_optimizer(cfg, [torch.nn.Parameter(torch.ones(1))], steps_per_epoch=1, training=TrainingConfig())
    assert type(built.base).__name__ == {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}[name]
    assert built.param_groups[0]["lr"] == 0.37
    for other in set(PLAIN) - {name}:
        with pytest.raises(ConfigError, match=f"optimizer={name} takes .* and base_optimizer={other} is given; use"):
            check.check(compose(["model=gcn", f"optimizer={name}", f"base_optimizer={other}"]))


@pytest.mark.parametrize("group", ["dataset", "split", "lr_schedule", "logger", "diagnostics", "experiment", "debug"])
def test_every_option_of_the_other_groups_composes(group: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("smiles,y\nC,1\n")
    for path in (CONF / group).glob("*.yaml"):
        extra = [f"dataset.path={tmp_path / 'x.csv'}"] if path.stem in ("csv", "dgl") else []
        if path.stem in ("cifar10", "cifar100", "official"):
            extra = ["dataset=cifar100", "model=resnet18"]
        check.check(compose(["model=gcn", *extra, f"{group}={path.stem}"]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=gcn", "dataset=cifar10"], "model=gcn reads molecules, dataset=cifar10 has none; use model=resnet18"),
        (["model=resnet18"], "model=resnet18 reads images, dataset=esol has none; use dataset=cifar10 or cifar100"),
        (["model=gcn", "split=official"], "split=official does not fit dataset=esol; use random, kfold"),
        (["model=resnet18", "dataset=cifar10", "split=scaffold"], "split=scaffold does not fit dataset=cifar10"),
        (["model=resnet18", "dataset=cifar10", "training.loss=bce"], "does not fit a multiclass dataset"),
        (["model=resnet18", "dataset=cifar10", "dataset.metric=rmse"], "use one of: .*accuracy_percent"),
        (["dataset=dgl", "dataset.path=x", "split=cluster"], "split=cluster reads SMILES, which dataset=dgl has"),
        (["dataset=dgl", "dataset.path=x", "dataset.descriptors=rdkit_2d"], "descriptors=rdkit_2d reads SMILES, which"),
        (["model=gcn", "dataset.task=multiclass"], "dataset.metric=rmse does not fit a multiclass dataset"),
    ],
)
def test_images_and_molecules_are_not_mixed(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check.check(compose(overrides))


@functools.cache
def recorded_gcn() -> DictConfig:
    """GCN's settings as a run folder holds them: without types."""
    cfg = OmegaConf.create(plain(compose(["model=gcn"])))
    assert isinstance(cfg, DictConfig)
    return cfg


@pytest.mark.parametrize("section", ["model", "dataset", "optimizer", "callbacks", "logger", "split"])
@pytest.mark.parametrize("value", [[], 3, "x", None])
def test_a_section_that_is_none_is_refused(section: str, value: object) -> None:
    cfg = copy.deepcopy(recorded_gcn())
    cfg[section] = value
    with pytest.raises(ConfigError, match=section):
        check.check(cfg)


def test_every_key_is_documented_in_place() -> None:
    for path in CONF.rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert text.lstrip().startswith("#") or "# @package" in text, f"{path} does not say what it is"


@settings(max_examples=60)
@given(st.sampled_from(["training.epochs", "training.batch_size", "optimizer.rho", "optimizer.beta", "model.dropout",
                        "training.max_grad_norm", "split.folds", "seed", "rho_schedule.gamma",
                        "lr_schedule.warmup_epochs"]),
       st.one_of(st.integers(-(10**12), 10**12), st.floats(), st.text("abcxyz_", max_size=8),
                 st.booleans(), st.none()))  # fmt: skip
def test_any_value_is_taken_or_refused_with_its_name(key: str, value: object) -> None:
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    override = OverridesParser.create().parse_override(f"{key}='{text}'" if isinstance(value, str) else f"{key}={text}")
    cfg = copy.deepcopy(recorded_gcn())
    OmegaConf.update(cfg, key, override.value())
    try:
        check.check(cfg)
    except ConfigError as error:
        message = str(error)
    else:
        return
    assert key.split(".")[-1] in message or key.split(".")[0] in message
    assert "\n" not in message


def test_a_value_with_line_breaks_is_quoted_in_one_line() -> None:
    cfg = copy.deepcopy(recorded_gcn())
    OmegaConf.update(cfg, "dataset.task", "a\nb\x1b[31m")
    with pytest.raises(ConfigError, match=r"dataset\.task=a\\nb\\x1b\[31m is not a task") as caught:
        check.check(cfg)
    assert str(caught.value).isprintable()


def test_secrets_are_starred_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    tree = {"a": ["x 0123456789abcdef y"], "b": 3}
    assert without_secrets(tree) == {"a": ["x *** y"], "b": 3}


def run_train(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        check=False,
    )


def test_the_command_line_names_the_nearest_setting(tmp_path: Path) -> None:
    done = run_train("model=gcm")
    assert done.returncode == 2
    assert "Did you mean model=gcn?" in done.stderr
    done = run_train("model=gcn", "optimizer.bta=0.5", f"paths.outputs={tmp_path}")
    assert done.returncode == 2
    assert "Did you mean optimizer.beta?" in done.stderr
    assert not re.search("Traceback", done.stderr)


def test_an_unknown_dataset_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    done = run_train(
        "model=gcn", "dataset=csv", f"dataset.path={tmp_path / 'none.csv'}", f"hydra.run.dir={tmp_path / 'r'}"
    )
    assert done.returncode == 3
    assert "none.csv cannot be read" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_model_that_passes_keywords_on_to_torch() -> None:
    """torch's Module takes any arguments, which are no settings."""

    class Model(MoleculeModel):
        def __init__(self, spec: DataSpec, *, width: int = 1, **others: object) -> None:
            super().__init__(**others)

    assert list(build._merged_signature(Model).parameters) == ["self", "spec", "width"]


def test_a_check_imports_nothing_slow_that_it_does_not_need() -> None:
    """torch's compiler takes seconds, the others one in all."""
    code = "from molsam.wiring import check; from molsam.config.compose import compose; import sys\n"
    code += "".join(f"check.check(compose(['model={name}']))\n" for name in ("compt", "gcn", "grover", "mpnn"))
    code += "assert not {'torch._dynamo', 'sympy', 'scipy', 'sklearn', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_plan_of_a_sweep_imports_no_torch() -> None:
    """Two thousand cells are planned while the workers import it."""
    code = "import sys; from molsam.sweeping import context, grid; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_papers_experiment_has_the_released_loss() -> None:
    """The square root of the batch's mean squared error in regression; its classification datasets are trained, too."""
    for dataset, task, name in (("esol", "regression", "rmse"), ("bbbp", "classification", "bce")):
        cfg = compose(["experiment=paper_compt", f"dataset={dataset}"])
        assert Objective(task, cfg.training.loss).name == name
        with pytest.raises(ConfigError) if name == "rmse" else contextlib.nullcontext():
            cfg.training.accumulate = 2
            check.check(cfg)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.average=polyak", r"training\.average=polyak is not a choice"),
        ("training.average_decay=1.0", r"training\.average_decay=1\.0 is too large"),
        ("training.average_start=-0.5", r"training\.average_start=-0\.5 is too small"),
        ("split.seed=-1", r"split\.seed=-1 is not a whole number"),
        ("split.seed=x", r"split\.seed='x' has the wrong type"),
    ],
)
def test_averages_and_split_seeds_are_checked(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check.check(compose(["model=gcn", override]))


def test_a_compiled_model_needs_a_compiler_and_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    check.check(compose(["model=gcn", "training.compile=false", "training.devices=2"]))
    with pytest.raises(ConfigError, match=r"training\.compile=true goes with one process; use training\.devices=1"):
        check.check(compose(["model=gcn", "training.compile=true", "training.devices=2"]))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"training\.compile=true needs a C\+\+ compiler"):
        check.check(compose(["model=gcn", "training.compile=true"]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=gcn", "training.devices=2"], r"training\.graphs=true goes with one process; use training\.devices=1"),
        (
            ["model=gcn", "training.compile=true"],
            r"training\.graphs=true and training\.compile=true do not go together",
        ),
        (
            ["model=resnet18", "dataset=cifar10"],
            r"training\.graphs=true pads batches of molecules, and dataset=cifar10",
        ),
        (["model=gcn", "training.device=mps"], r"training\.graphs=true needs CUDA, and training\.device=mps has none"),
        (
            ["model=gcn", "optimizer=esam", "optimizer.gamma=0.5"],
            r"training\.graphs=true does not compute; use optimizer\.",
        ),
        (["model=cmpnn", "model.padding=reference"], r"model\.padding=reference reads the batch's other molecules"),
        (["model=grover", "model.padding=reference"], r"model\.padding=reference reads the batch's other molecules"),
    ],
)
def test_what_does_not_go_with_graphs(overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "check_device", lambda setting, name: None)
    monkeypatch.setattr(check.shutil, "which", lambda name: "/usr/bin/c++")
    with pytest.raises(ConfigError, match=message):
        check.check(compose([*overrides, "training.graphs=true"]))


def test_graphs_go_with_models_that_read_each_molecule_by_itself() -> None:
    for name in ("cmpnn", "grover", "gcn"):
        check.check(compose([f"model={name}", "training.graphs=true"]))
    check.check(compose(["model=compt", "model.padding=reference", "training.graphs=true"]))
