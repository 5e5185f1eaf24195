"""Dropout acts at every place in a model's definition, and nowhere in evaluation."""

from __future__ import annotations

from collections import Counter

import pytest
from torch import Tensor
from torch.nn import functional as F

from tests.batteries.test_models import subject

# The places by what their rows are; CoMPT has 4 layers, GROVER one block of 4 heads and 3 encoders a head in two views.
PLACES = {
    "gcn": {"atoms": 2, "molecules": 1},  # each layer; before the head
    "mpnn": {"molecules": 1},  # inside the head
    "dmpnn": {"bonds": 2, "atoms": 1, "molecules": 1},  # both messages; after W_o; inside the head
    "cmpnn": {"bonds": 2, "atoms": 1, "molecules": 2},  # both messages; after W_o; before each linear of the head
    "compt": {"atoms": 2 + 4 * 4, "molecules": 1},  # atoms, positions; input, attention, dense, end; inside the head
    # A view: input, two messages, attention, end. Then two feed-forwards of two, two heads.
    "grover": {"atoms": 1 + 2 + 1 + 4, "bonds": 1 + 2 + 1, "molecules": 2 * 2, "attention": 2},
}


@pytest.mark.parametrize("name", PLACES)
def test_dropout_acts_where_the_definition_has_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    model = subject(name).build(dropout=0.5, head_dropout=0.5, dynamic_depth="none").train()
    batch = subject(name).molecules.batch([3, 6, 9])
    rows = {len(batch.nodes): "atoms", len(batch.src): "bonds", 3: "molecules"}
    real = F.dropout

    def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if training and p:
            seen[rows.get(len(x), "attention")] += 1
        return real(x, p, training, inplace)

    monkeypatch.setattr(F, "dropout", dropout)
    model.to(batch.nodes.dtype)(batch)
    assert seen == PLACES[name]
    model.eval()(batch)
    assert seen == PLACES[name]
