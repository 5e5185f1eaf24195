"""Training sees only the rows of split.train, in its steps and in its scaling."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from molsam.training.loop import Trainer
from tests.trust.helpers import settings, train


@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("more", [[], ["split=scaffold", "training.accumulate=2"], ["split=kfold", "split.fold=1"]])
def test_training_sees_the_rows_of_its_part_scaled_by_them_alone(
    more: list[str], precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    trainers: list[Trainer] = []
    whole = Trainer._take_step

    def take_step(self: Trainer) -> None:
        trainers[:] = [self]
        seen.extend((batch.index, batch.targets) for batch in self.closure.batches if batch.targets is not None)
        whole(self)

    monkeypatch.setattr(Trainer, "_take_step", take_step)
    train(settings("gcn", f"training.precision={precision}", *more), tmp_path)
    rows = json.loads((tmp_path / "split.json").read_text())["train"]
    index = torch.cat([one for one, _ in seen]).tolist()
    of_file = trainers[0].dataset.rows[index].tolist()
    assert [sorted(of_file[: len(rows)]), sorted(of_file[len(rows) :])] == [sorted(rows)] * 2, "each once an epoch"
    part = sorted(set(index))
    assert part != list(range(len(part))), "the part is not the first rows"
    labels = trainers[0].dataset.targets
    mean, spread = labels[part].mean(), labels[part].std()
    assert abs(mean - labels.mean()) > 1e-3 * spread, "all rows would have another mean"
    expected = (labels[index] - mean) / spread
    found = torch.cat([one for _, one in seen])
    assert found.dtype == (torch.float64 if precision == "fp64" else torch.float32)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-13 if precision == "fp64" else 1e-6, atol=1e-13)
