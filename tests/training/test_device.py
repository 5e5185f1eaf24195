"""Optimizers use the device of their tensors, and a GPU, where there is one, computes the same as the CPU."""

from __future__ import annotations

import pytest
import torch

from molsam.training.accelerator import be_deterministic
from molsam.training.closure import Closure
from molsam.training.objective import Objective
from molsam.wiring.run import lacks_bf16
from tests.batteries.optimizers import NAMES, Training
from tests.batteries.test_models import MODELS, subject

ROWS = [1, 3, 6, 9]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_stays_on_the_device_of_its_parameters(name: str) -> None:
    # "meta" plays the default device: what is made without naming one lands there, and cannot meet the parameters.
    training = Training(name)
    with torch.device("meta"):
        for _ in range(3):
            training.optimizer.step(training)
            training.step += 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_computes_what_the_cpu_does(name: str) -> None:
    model, batch = subject(name).build().double().eval(), subject(name).molecules.batch(ROWS).to(dtype=torch.float64)
    wanted = model(batch).logits
    found = model.to("cuda")(batch.to("cuda")).logits
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-9, atol=1e-11)


def test_determinism_is_asked_for_and_given_up_again() -> None:
    for wanted in (True, False):
        be_deterministic(wanted)
        assert torch.are_deterministic_algorithms_enabled() == wanted


def test_processors_without_bf16_products_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for known, lacks in (
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, True),
        ({"avx2": True, "avx512_bf16": True, "amx_bf16": False}, False),
        ({}, False),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known, raising=False)
        assert lacks_bf16() == lacks


def test_the_passes_of_training_go_through_the_compiled_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = subject("gcn").build().train(), subject("gcn").molecules.batch(ROWS)
    batch.targets, batch.mask = torch.ones(4, 2), torch.ones(4, 2, dtype=torch.bool)
    called = []

    def compiled(inner: torch.nn.Module, **how: object) -> object:
        assert inner is model
        assert how == {"dynamic": True}
        return lambda given: called.append(given) or inner(given)

    monkeypatch.setattr(torch, "compile", compiled)
    for wanted in (False, True):
        closure = Closure(model, Objective("regression"), compiled=wanted)
        closure.batches = [batch]
        closure()
        assert called == [batch] * wanted


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_has_the_gradient_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for wanted in (False, True):
        torch.manual_seed(0)
        model, batch = subject("gcn").build().double().train(), subject("gcn").molecules.batch(ROWS)
        batch = batch.to(dtype=torch.float64)
        batch.targets, batch.mask = torch.ones(4, 2, dtype=torch.float64), torch.ones(4, 2, dtype=torch.bool)
        closure = Closure(model, Objective("regression"), compiled=wanted)
        closure.batches = [batch]
        closure()
        found.append({name: p.grad for name, p in model.named_parameters()})
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-11)
