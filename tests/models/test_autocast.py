"""Every model trains under bf16 autocast, and its gradient points where that of float32 does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from molsam.models.api import MoleculeModel
from tests.batteries.test_models import MODELS, WITHOUT_CHANCE, subject

ROWS = [1, 3, 6, 9]


@pytest.mark.parametrize("name", MODELS)
def test_bf16_gradients_point_the_same_way(name: str) -> None:
    # Evaluating: BatchNorm over few molecules would magnify what is rounded away.
    model: MoleculeModel = subject(name).build(n_tasks=1, **WITHOUT_CHANCE).float().eval()
    batch = subject(name).molecules.batch(ROWS).to(dtype=torch.float32)

    def gradient(bf16: bool) -> Tensor:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(batch).logits.float()
        (logits - torch.tensor([1.0, -1.0, 2.0, 0.5]).unsqueeze(1)).square().sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    exact, rounded = gradient(bf16=False), gradient(bf16=True)
    assert torch.cosine_similarity(exact, rounded, dim=0) > 0.95
    assert not torch.equal(exact, rounded)
