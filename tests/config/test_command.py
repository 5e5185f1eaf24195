"""The command that the user typed, and the commands that messages suggest."""

from __future__ import annotations

import shlex

import pytest

from molsam.commands.train import with_name
from molsam.config.command import override
from molsam.config.compose import compose

NAMES = ["pIC50", "IC50, nM", "log(k')", "x y", "1e3", "null", "p\"q", "y [nM]", "a=b", "-", "µ", "$HOME", "{a: b}",
         "#", "", "back\\slash", "true", "log P (–)", "!x", "`ls`", "a.b", "${seed}"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_what_a_sentence_tells_to_type_is_read_as_it_is_meant(name: str) -> None:
    words = shlex.split(f"{override('dataset.targets', name, listed=True)} {override('dataset.smiles', name)}")
    cfg = compose(["dataset=csv", "dataset.path=x.csv", *words])
    dataset = cfg._get_node("dataset")
    assert dataset._get_node("targets")._content[0]._value() == name
    assert dataset._get_node("smiles")._value() == name


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--multirun", "x=1,2", "sweeps.name=a"], ["--multirun", "x=1,2", "++sweeps.name=a"]),
        (["-m", "sweeps.name=a"], ["-m", "++sweeps.name=a"]),
        (["--multirun", "sweeps=table3", "sweeps.name=a"], ["--multirun", "sweeps=table3", "sweeps.name=a"]),
        (["--multirun", "sweeps.rows=[a]"], ["--multirun", "sweeps.rows=[a]"]),
        (["sweeps.name=a"], ["sweeps.name=a"]),
    ],
)
def test_every_sweep_may_be_given_a_name(words: list[str], expected: list[str]) -> None:
    assert with_name(words) == expected
