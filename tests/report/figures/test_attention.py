"""Entropies of attention against arithmetic written out, and what a trained CoMPT leaves behind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from molsam.diagnostics.attention import AttentionMaps, entropy, normalised
from molsam.errors import ConfigError


class Looking(torch.nn.Module):
    """A model whose attention is given: per layer and molecule [heads, n, n]."""

    def __init__(self, weights: list[list[torch.Tensor]]) -> None:
        super().__init__()
        self.weights = weights
        self.modes: list[bool] = []

    def attention(self, rows: np.ndarray) -> list[list[torch.Tensor]]:
        self.modes.append(self.training)
        return [[layer[row] for row in rows] for layer in self.weights]


def measured(folder: Path, sizes: list[int], **settings: int) -> tuple[dict[str, np.ndarray], list[list[torch.Tensor]]]:
    torch.manual_seed(0)
    weights = [[2 * torch.rand(3, n, n) for n in sizes] for _ in range(2)]
    model = Looking(weights)
    trainer = SimpleNamespace(
        model=model,
        split=SimpleNamespace(test=np.array([3, 1, 2])),
        batch=lambda rows: rows,
        folder=folder,
        dataset=SimpleNamespace(smiles=["C" * n for n in sizes]),
    )
    callback = AttentionMaps(**settings)
    callback.on_fit_start(trainer)
    model.train()
    callback.on_fit_end(trainer)
    assert model.modes == [False]
    assert model.training, "the model is left as it was"
    with np.load(folder / "attention.npz", allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}, weights


def test_entropies_and_the_shown_molecule(tmp_path: Path) -> None:
    arrays, weights = measured(tmp_path, [9, 4, 6, 5], atoms=5)
    sums = np.zeros((2, 3))
    atoms = 0
    for row in (1, 2, 3):
        for layer in range(2):
            for head in range(3):
                for line in weights[layer][row][head].double().numpy():
                    p = line / line.sum()
                    sums[layer, head] -= (p * np.log(p)).sum()
        atoms += weights[0][row].shape[-1]
    assert arrays["entropies"] == pytest.approx(sums / atoms, rel=1e-5)
    assert float(arrays["entropy"]) == pytest.approx(sums.mean() / atoms, rel=1e-5)
    assert str(arrays["smiles"]) == "CCCCC"
    assert int(arrays["row"]) == 3
    assert arrays["maps"].shape == (2, 3, 5, 5)
    expected = torch.stack([w[3] for w in weights])
    expected = expected / expected.sum(-1, keepdim=True)
    assert arrays["map"] == pytest.approx(expected.mean((0, 1)).numpy(), rel=1e-5)
    assert arrays["map"].sum(-1) == pytest.approx(np.ones(5), rel=1e-5)


def test_of_equally_near_molecules_the_lowest_row_is_shown(tmp_path: Path) -> None:
    arrays, _ = measured(tmp_path, [9, 4, 6, 4], atoms=5)
    assert int(arrays["row"]) == 1


def test_closed_forms() -> None:
    assert entropy(normalised(torch.ones(4, 4))).tolist() == pytest.approx([np.log(4)] * 4)
    assert entropy(torch.eye(3)).tolist() == [0, 0, 0]
    assert normalised(torch.zeros(2, 2)).tolist() == [[0, 0], [0, 0]]


def test_a_model_without_attention_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match="Linear does not"):
        AttentionMaps().on_fit_start(SimpleNamespace(model=torch.nn.Linear(1, 1)))
