"""Properties that every optimizer of conf/optimizer must have; a new YAML file is tested automatically."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from molsam.errors import ConfigError
from molsam.optim import StepEvent
from tests.batteries.optimizers import NAMES, PLAIN, SHARP, N, Training, build, config, equal, through_files


def test_there_are_the_promised_optimizers() -> None:
    promised = {"adam", "adamw", "sgd", "sam", "sam_one", "sam_k", "looksam", "aesam", "rst", "graphsam"}
    assert promised | {"graphsam_release", "asam", "esam", "gsam", "fsam"} <= set(NAMES)


@pytest.mark.parametrize("base", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("name", SHARP)
def test_without_rho_it_is_the_base_optimizer(name: str, base: str) -> None:
    """Bit for bit, with dropout and BatchNorm, though its state goes on living."""
    ours = Training(name, base=base, rho=0.0, dropout=0.3)
    plain = Training(base, dropout=0.3)
    assert equal(ours.run(10), plain.run(10))
    assert ours.passes == plain.passes == 10


@pytest.mark.parametrize("name", PLAIN)
def test_plain_is_torch_itself(name: str) -> None:
    ours = Training(name, dropout=0.3)
    ours.run(6)
    theirs = Training(name, dropout=0.3)
    section = config(name).base_optimizer
    options = {key: value for key, value in section.items() if not key.startswith("_")} | {"lr": 0.02}
    bare = PLAIN[name](theirs.model.parameters(), **options)
    for step in range(6):
        theirs.step, theirs.model.use_rare = step, step % 3 == 1
        bare.zero_grad()
        theirs.losses().mean().backward()
        bare.step()
    for a, b in zip(ours.model.state_dict().values(), theirs.model.state_dict().values(), strict=True):
        # C rounds in another order than torch's fused kernel.
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_without_learning_rate_the_weights_stay(name: str, dtype: torch.dtype) -> None:
    training = Training(name, lr=0.0, dtype=dtype)
    before = [p.detach().clone() for p in training.model.parameters()]
    training.run(6)
    assert all(torch.equal(a, b) for a, b in zip(before, training.model.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_passes_are_counted(name: str) -> None:
    training = Training(name)
    total = 0
    for _ in range(9):
        training.run(1)
        last = training.optimizer.last
        assert last is not None
        assert 1 <= last.passes <= 2
        assert (last.loss_clean is not None) + (last.loss_perturbed is not None) == last.passes
        total += last.passes
    assert total == training.passes == training.optimizer.passes
    assert training.optimizer.steps == 9


@pytest.mark.parametrize("name", NAMES)
def test_displaced_weights_are_really_displaced(name: str) -> None:
    """A step with rho differs from one without, and the loss it returns is that of its first pass."""
    training, still = Training(name), Training(name, **({} if name in PLAIN else {"rho": 0.0}))
    assert equal(training.run(12), still.run(12)) == (name in PLAIN)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stop=st.integers(1, 10), base=st.sampled_from(["sgd", "adam"]))
def test_a_resume_continues_bit_for_bit(name: str, several: bool, stop: int, base: str) -> None:
    options: dict[str, Any] = {"base": base, "groups": several, "dropout": 0.2}
    whole = Training(name, **options)
    first = whole.run(stop)
    state = whole.optimizer.state_dict()
    weights = copy.deepcopy(whole.model.state_dict())
    noise = whole.noise
    rest = whole.run(7)
    assert first is not rest
    other = Training(name, seed=1, **options)
    other.model.load_state_dict(weights)
    other.optimizer.load_state_dict(through_files(state))
    other.step = stop
    other.noise = noise
    assert equal(other.run(7), rest)
    assert other.optimizer.passes == whole.optimizer.passes


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_something_else_is_refused(name: str) -> None:
    training = Training(name)
    foreign = Training("sam" if name != "sam" else "graphsam").optimizer.state_dict()
    with pytest.raises(ConfigError, match="saved state is of"):
        training.optimizer.load_state_dict(foreign)
    smaller = build(name, groups=[nn.Parameter(torch.ones(1))])
    with pytest.raises(ConfigError, match="does not fit"):
        smaller.load_state_dict(training.optimizer.state_dict())


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_another_version_is_refused(name: str) -> None:
    """A value the method carries and the state lacks would go unseen: GraphSAM without its norm displaces nothing."""
    training = Training(name)
    training.run(3)
    optimizer = training.optimizer
    state = optimizer.state_dict()
    for key in state["own"]:
        old = {**state, "own": {k: value for k, value in state["own"].items() if k != key}}
        with pytest.raises(ConfigError, match=rf"does not fit .*lacks {key}.*version of molsam"):
            optimizer.load_state_dict(old)
    if kept := {"looksam": "g_v"}.get(name, "eps" if hasattr(optimizer, "anchor") else None):
        with pytest.raises(ConfigError, match=rf"does not fit .*lacks {kept}"):
            optimizer.load_state_dict({**state, "memory": {}})
    for part in ("own", "memory"):
        with pytest.raises(ConfigError, match=r"does not fit .*drift is unknown"):
            optimizer.load_state_dict({**state, part: {**state[part], "drift": {}}})
    optimizer.load_state_dict(state)


@pytest.mark.parametrize("name", NAMES)
def test_a_step_needs_a_closure_with_a_loss(name: str) -> None:
    training = Training(name)
    with pytest.raises(TypeError, match="closure"):
        training.optimizer.step()
    with pytest.raises(TypeError, match="must return the loss"):
        training.optimizer.step(lambda: None)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("name", NAMES)
def test_frozen_and_unused_parameters_stay(name: str) -> None:
    training = Training(name)
    training.run(6)
    assert torch.equal(training.model.frozen, torch.ones(2, dtype=torch.float64))
    assert torch.equal(training.model.unused, torch.ones(3, dtype=torch.float64))
    assert not training.model.frozen.requires_grad
    assert all(p.requires_grad for n, p in training.model.named_parameters() if n != "frozen")


@pytest.mark.parametrize("name", NAMES)
def test_groups_split_or_whole_are_the_same(name: str) -> None:
    """Norms are global: splitting the parameters into groups of equal settings changes nothing."""
    if name == "graphsam_release":
        pytest.skip("the release displaces its first group only, by default")
    whole, split = Training(name), Training(name)
    everything = list(split.model.parameters())
    split.optimizer = build(name, groups=[{"params": everything[:3]}, {"params": everything[3:]}], module=split.model)
    for a, b in zip(whole.run(9), split.run(9), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SHARP)
def test_each_group_moves_by_its_own_rho(name: str) -> None:
    """A group with rho 0 is where it was in every pass."""
    training = Training(name)
    first, second = training.first_and_rest()
    groups = [{"params": first}, {"params": second, "rho": 0.0}]
    training.optimizer = build(name, groups=groups, module=training.model)
    seen: list[tuple[Tensor, Tensor]] = []

    def closure() -> Tensor:
        seen.append((training.model.first.weight.detach().clone(), training.model.last.weight.detach().clone()))
        return training()

    moved = 0
    for step in range(10):
        start = training.model.first.weight.detach().clone(), training.model.last.weight.detach().clone()
        seen.clear()
        training.step = step
        training.optimizer.step(closure)
        moved += sum(not torch.equal(a, start[0]) for a, _ in seen)
        assert all(torch.equal(b, start[1]) for _, b in seen)
    assert moved > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
def test_it_follows_float64_in_other_precisions(name: str, dtype: torch.dtype) -> None:
    if name == "aesam":
        pytest.skip("its choice between two kinds of steps is not continuous")
    exact, rounded = Training(name), Training(name, dtype=dtype)
    limit = 1e-4 if dtype == torch.float32 else 0.2
    assert (exact.run(4)[-1] - rounded.run(4)[-1]).abs().max() < limit


@pytest.mark.parametrize("name", NAMES)
def test_clipping_acts_on_the_updating_gradient(name: str) -> None:
    """With plain descent a step is at most lr * max_grad_norm long, and exactly so where it is clipped."""
    base = {} if name in PLAIN else {"base": "sgd"}
    if name in ("adam", "adamw"):
        pytest.skip("the length of an Adam step does not show its gradient")
    lengths = {}
    for limit in (None, 0.05):
        training = Training(name, lr=0.02, max_grad_norm=limit, **base)
        for group in training.optimizer.param_groups:
            group["momentum"] = 0.0
        before = [p.detach().clone() for p in training.model.parameters()]
        training.run(1)
        moves = [a - b for a, b in zip(training.model.parameters(), before, strict=True)]
        lengths[limit] = torch.cat([m.detach().flatten() for m in moves])
    assert lengths[None].norm() > 0.02 * 0.05
    torch.testing.assert_close(lengths[0.05].norm().item(), 0.02 * 0.05, rtol=1e-9, atol=0)
    cosine = torch.nn.functional.cosine_similarity(lengths[None], lengths[0.05], dim=0)
    torch.testing.assert_close(cosine.item(), 1.0, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_batch_norm_statistics_are_touched_once_a_step(name: str) -> None:
    training = Training(name)
    norm = training.model.norm
    for step in range(1, 10):
        start = copy.deepcopy(training.model)
        training.run(1)
        assert int(norm.num_batches_tracked) == step
        last = training.optimizer.last
        assert last is not None
        if last.loss_clean is not None:
            start(training.data[(step - 1) % N][0])
            assert torch.equal(norm.running_mean, start.norm.running_mean)
            assert torch.equal(norm.running_var, start.norm.running_var)
        assert norm.track_running_stats


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_same_noise(name: str, same: bool) -> None:
    """The masks of a step's passes are equal or not, as chosen; the next step has new ones."""
    training = Training(name, dropout=0.5, **({"same_noise": True} if same else {}))
    masks: list[Tensor] = []
    training.model.drop.register_forward_hook(lambda _m, _i, out: masks.append(out.detach() == 0))
    previous = None
    pairs = 0
    for _ in range(8):
        masks.clear()
        training.run(1)
        if len(masks) == 2:
            pairs += 1
            assert torch.equal(masks[0], masks[1]) == same
        assert previous is None or not torch.equal(previous, masks[0])
        previous = masks[0]
    assert pairs > 0 or name in PLAIN


@pytest.mark.parametrize("name", NAMES)
def test_observers_change_nothing(name: str) -> None:
    events: list[StepEvent] = []
    quiet, watched = Training(name, dropout=0.2), Training(name, dropout=0.2)
    trace = quiet.run(9)
    watched.optimizer.observers.append(events.append)
    assert equal(watched.run(9), trace)
    assert [event.step for event in events] == list(range(9))
    assert [event.epoch for event in events] == [step // N for step in range(9)]
