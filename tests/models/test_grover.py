"""GROVER: equal to its literal twin, independent of the batch and of atom order, and trainable."""

from __future__ import annotations

import json
from fnmatch import fnmatch
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rdkit import Chem
from torch import Tensor

from molsam.chem.grover import GroverFeaturizer
from molsam.chem.molecule import parse
from molsam.data.batch import MoleculeBatch
from molsam.data.packed import pack
from molsam.errors import ConfigError
from molsam.models.api import DataSpec
from molsam.models.grover.model import Grover
from tests.golden import open_golden
from tests.goldens import common
from tests.goldens import grover as golden
from tests.paths import GOLDEN, needs_golden
from tests.reference import grover as twin

FEATURIZER = GroverFeaturizer()
SPEC = DataSpec(FEATURIZER.node_dim, FEATURIZER.edge_dim, n_tasks=2, max_atoms=0)
SMALL = {"hidden_size": 8, "n_heads": 2}
DRUGS = ["CC(=O)Oc1ccccc1C(=O)O", "FS(F)(F)(F)(F)F", "C1CC2CC1C2", "CC(=O)[O-].[Na+]", "C/C=C/C#N"]
HARD = ["C", "[Na+]", "[Na+].[Cl-]", "*", "*C*", "O.O.CCO"]


def batch_of(smiles: list[str], order: list[int] | None = None) -> MoleculeBatch:
    """A float64 batch; `order` renumbers the atoms of the only molecule."""
    mols = [parse(s) for s in smiles]
    if order is not None:
        mols = [Chem.RenumberAtoms(mols[0], order)]
        # Renumbering leaves the smallest set of rings; parsing takes all rings that are equal by symmetry.
        Chem.GetSymmSSSR(mols[0])
    return pack([FEATURIZER(m) for m in mols]).batch(range(len(mols))).to(dtype=torch.float64)


def build(seed: int = 0, spec: DataSpec = SPEC, **given: Any) -> Grover:
    """A small model, float64, with every one-dimensional parameter away from its initial value."""
    torch.manual_seed(seed)
    model = Grover(spec, **(SMALL | given)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1 or parameter.shape == (6, 8):
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def of_twin(model: Grover, batch: MoleculeBatch, depths: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and gradients of their squares by the twin, with the model's weights."""
    named = model.to_reference(dict(model.named_parameters()))
    weights = {k: v.detach().clone().requires_grad_() for k, v in named.items()}
    attentive = model.readout is not None
    s = twin.Settings(model.depth, model.n_heads, model.n_blocks, model.activation, 2, attentive)
    logits = twin.logits(batch, weights, s, depths.tolist(), bool(model.reference_padding))
    found = torch.autograd.grad(logits.square().sum(), list(weights.values()), allow_unused=True)
    return logits, {k: g for k, g in zip(weights, found, strict=True) if g is not None}


VARIANTS = [
    {"activation": "prelu", "readout": "self_attention", "attention_out": 3, "head_layers": 3},
    {"activation": "leakyrelu", "bias": True, "n_blocks": 2, "head_layers": 1},
    {"activation": "tanh", "bias": True, "depth": 4, "n_heads": 4},
    {"activation": "relu", "depth": 1},
    {"activation": "prelu", "hidden_size": 151, "n_heads": 1, "depth": 2},
    {"activation": "relu", "hidden_size": 165, "n_heads": 1, "depth": 2, "n_blocks": 2, "bias": True},
]


@pytest.mark.parametrize("padding", ["exact", "reference"])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_equals_literal_twin(variant: dict[str, Any], padding: str) -> None:
    model, batch = build(padding=padding, **variant), batch_of([DRUGS[1], *HARD, "C=CC#N"])
    for training in (False, True):
        depths = model.train(training).draw_depths()
        logits = model(batch, depths=depths).logits
        expected, gradients = of_twin(model, batch, depths)
        torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-12)
        ours = common.gradients(model, logits.square().sum())
        assert common.relative_errors(ours, gradients) < 1e-10


def test_padding_of_a_batch_without_bonds() -> None:
    # The reference lists one neighbour at least, the padding row.
    model, batch = build(padding="reference", bias=True).eval(), batch_of(["[Na+]", "C"])
    expected, _ = of_twin(model, batch, model.draw_depths())
    torch.testing.assert_close(model(batch).logits, expected, rtol=1e-10, atol=1e-12)


@needs_golden
@pytest.mark.parametrize("variant", common.variants(open_golden(GOLDEN / "grover.npz")) if GOLDEN.is_dir() else [])
def test_twin_equals_golden_bond_view_included(variant: str) -> None:
    z = open_golden(GOLDEN / "grover.npz")
    c, weights = common.load_config(z, variant), common.load_params(z, variant)
    batch = common.molecules(z, FEATURIZER).batch(range(len(z["smiles"]))).to(dtype=torch.float64)
    s = twin.Settings(c["depth"], c["num_attn_head"], c["num_mt_block"], c["activation"], 0, False)
    depths = [s.depth] * (6 * s.heads * s.blocks)
    views = common.arrays(z, f"{variant}/embedding/")
    found = twin.embeddings(twin.graph_of(batch, padded=True), weights, s, depths, "bond_from_bond" in views)
    assert found.keys() == views.keys()
    assert all(common.relative_error(found[view], views[view]) < 1e-10 for view in views)


@needs_golden
def test_counts_the_parameters_of_the_reference_less_the_unused() -> None:
    z = open_golden(GOLDEN / "grover.npz")
    for variant in common.variants(z):
        model = golden.build(z, variant, SPEC)
        theirs = common.arrays(z, f"{variant}/param/")
        used = {k: v for k, v in theirs.items() if not any(fnmatch(k, p) for p in model.unused)}
        assert sum(p.numel() for p in model.parameters()) == sum(v.size for v in used.values())
        assert set(json.loads(str(z[f"{variant}/grad_none"]))) == theirs.keys() - used.keys()
        back = model.to_reference(model.state_dict())
        assert back.keys() == used.keys()
        assert all(np.array_equal(back[k], used[k]) for k in used)


@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.sampled_from(DRUGS + HARD), max_size=4),
    st.lists(st.sampled_from(DRUGS + HARD), max_size=4),
    st.sampled_from(["mean", "self_attention"]),
)
def test_does_not_depend_on_the_batch(before: list[str], after: list[str], readout: str) -> None:
    model = build(readout=readout, bias=True).eval()
    for smiles in (DRUGS[0], "C"):
        alone = model(batch_of([smiles])).logits[:, 0]
        together = model(batch_of([*before, smiles, *after])).logits[:, len(before)]
        torch.testing.assert_close(together, alone, rtol=1e-11, atol=1e-12)


def test_reference_padding_depends_on_the_batch_and_padding_can_be_without_effect() -> None:
    smiles = [DRUGS[0], DRUGS[1]]
    reference, exact = build(padding="reference").eval(), build(padding="exact").eval()
    assert (reference(batch_of(smiles)).logits - reference(batch_of(smiles[:1])).logits).abs().max() > 1e-3
    # A padding row of zeros stays zero while every bias that reaches it is zero, as after initialisation.
    torch.manual_seed(0)
    for padding, model in (("reference", reference), ("exact", exact)):
        model.load_state_dict(Grover(SPEC, **SMALL, padding=padding).double().state_dict())
        torch.manual_seed(0)
    batch = batch_of(smiles)
    assert reference.reference_padding
    assert not exact.reference_padding
    torch.testing.assert_close(reference(batch).logits, exact(batch).logits, rtol=1e-12, atol=1e-13)


@settings(deadline=None, max_examples=20)
@example("C1CC2CC1C2", Random(0), False)
@given(st.sampled_from([*DRUGS, "O.O.CCO"]), st.randoms(use_true_random=False), st.booleans())
def test_does_not_depend_on_atom_order(smiles: str, random: Any, attentive: bool) -> None:
    model = build(readout="self_attention" if attentive else "mean", activation="prelu").eval()
    order = list(range(parse(smiles).GetNumAtoms()))
    random.shuffle(order)
    expected = model(batch_of([smiles])).logits
    torch.testing.assert_close(model(batch_of([smiles], order)).logits, expected, rtol=1e-10, atol=1e-12)


def test_depths_are_truncated_normal_draws_from_torchs_generator() -> None:
    model = build(depth=5, n_blocks=4, n_heads=8).train()
    torch.manual_seed(1)
    drawn = torch.cat([model.draw_depths() for _ in range(500)])
    # int() of N(5, 1) cut at 2 and 8: the share of each integer, from the normal distribution.
    share = {2: 0.0214, 3: 0.1360, 4: 0.3423, 5: 0.3423, 6: 0.1360, 7: 0.0214}
    assert drawn.unique().tolist() == list(share)
    for depth, expected in share.items():
        assert (drawn == depth).double().mean().item() == pytest.approx(expected, abs=0.004)
    torch.manual_seed(1)
    assert torch.equal(model.draw_depths(), drawn[:192])
    state = torch.get_rng_state()
    assert model.eval().draw_depths().tolist() == [5] * 192
    assert build(dynamic_depth="none").train().draw_depths().tolist() == [3] * 12
    torch.set_rng_state(state)
    model = build(dynamic_depth="none").train()
    state = torch.get_rng_state()
    model(batch_of(DRUGS))
    assert torch.equal(torch.get_rng_state(), state)


def test_disagreement_is_an_auxiliary_loss_of_training() -> None:
    model, batch = build(dist_coff=0.3), batch_of(DRUGS)
    assert model.eval()(batch).auxiliary is None
    p_atom, p_bond = (output := model.train()(batch)).logits
    torch.testing.assert_close(output.auxiliary, 0.3 * (p_atom - p_bond) ** 2)


def test_reads_descriptors() -> None:
    model, batch = build(spec=SPEC._replace(descriptor_dim=3)).eval(), batch_of(DRUGS)
    batch.descriptors = torch.randn(len(batch), 3, dtype=torch.float64)
    expected, _ = of_twin(model, batch, model.draw_depths())
    torch.testing.assert_close(model(batch).logits, expected)
    with_zero = batch.descriptors.clone()
    with_zero[0, 0] = 0.0
    batch.descriptors[0, 0] = float("nan")
    found = model(batch).logits
    batch.descriptors = with_zero
    torch.testing.assert_close(found, model(batch).logits, rtol=0, atol=0)


@pytest.mark.parametrize("padding", ["exact", "reference"])
@pytest.mark.parametrize("smiles", [[s] for s in HARD] + [HARD])
def test_hard_molecules_have_finite_outputs_and_gradients(smiles: list[str], padding: str) -> None:
    model = build(readout="self_attention", padding=padding)
    output = model(batch_of(smiles))
    assert output.auxiliary is not None
    (output.logits.square().sum() + output.auxiliary.sum()).backward()
    assert output.logits.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_is_twice_differentiable() -> None:
    model, batch = build(activation="tanh", dynamic_depth="none"), batch_of(["CCO", "C=C"])
    chosen = [model.node_blocks[0].W_h, model.edge_blocks[0].W_h, model.edge_input.W_i.weight]
    direction = [torch.randn_like(p) for p in chosen]

    def slope(step: float) -> list[Tensor]:
        with torch.no_grad():
            torch._foreach_add_(chosen, direction, alpha=step)
        found = torch.autograd.grad(model(batch).logits.square().sum(), chosen)
        with torch.no_grad():
            torch._foreach_sub_(chosen, direction, alpha=step)
        return list(found)

    gradient = torch.autograd.grad(model(batch).logits.square().sum(), chosen, create_graph=True)
    along = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True))
    exact = torch.autograd.grad(along, chosen)
    numeric = [(a - b) / 2e-5 for a, b in zip(slope(1e-5), slope(-1e-5), strict=True)]
    for ours, expected in zip(exact, numeric, strict=True):
        assert common.relative_error(ours, expected) < 1e-6


def train(model: Grover, steps: int) -> tuple[set[str], Tensor]:
    """Names of the parameters that ever got a gradient, and the final outputs."""
    batch = batch_of([*DRUGS, "CCO"])
    targets = torch.linspace(0, 1, len(batch), dtype=torch.float64).unsqueeze(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    reached = set()
    for _ in range(steps):
        optimizer.zero_grad()
        output = model.train()(batch)
        ((output.logits - targets).square().sum(0) + output.auxiliary).mean().backward()
        reached |= {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
        optimizer.step()
    return reached, model.eval()(batch).logits


@pytest.mark.parametrize("activation", ["relu", "prelu"])
def test_reference_initialisation_never_trains_the_encoders(activation: str) -> None:
    model = Grover(SPEC, **SMALL, activation=activation, init="reference").double()
    assert all(not p.any() for p in model.parameters() if p.dim() == 1)
    reached, logits = train(model, 60)
    assert reached == {"atom_head.layers.1.bias", "bond_head.layers.1.bias"}
    assert (logits - logits[:, :1]).abs().max() == 0


@pytest.mark.parametrize("activation", ["relu", "prelu"])
def test_sane_initialisation_trains_everything(activation: str) -> None:
    torch.manual_seed(0)  # with others all ReLUs of so small a head may be dead
    model = Grover(SPEC, **SMALL, activation=activation, bias=True, readout="self_attention").double()
    spread = model.node_blocks[0].W_h.detach().std(dim=(1, 2)).numpy()
    assert spread == pytest.approx((1 / 8) ** 0.5, rel=0.4)
    reached, logits = train(model, 10)
    assert reached == {name for name, _ in model.named_parameters()}
    assert (logits[:, 0] - logits[:, 1]).abs().min() > 1e-3


def test_dropout_acts_in_training_only() -> None:
    model, batch = build(dropout=0.3, dynamic_depth="none"), batch_of(DRUGS)
    without = build(dynamic_depth="none").eval()
    torch.testing.assert_close(model.eval()(batch).logits, without(batch).logits, rtol=0, atol=0)
    model.train()
    torch.manual_seed(0)
    first, second = model(batch).logits, model(batch).logits
    torch.manual_seed(0)
    assert torch.equal(model(batch).logits, first)
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"hidden_size": 10, "n_heads": 4}, "model.hidden_size is 10, not a multiple of model.n_heads 4"),
        ({"depth": 0}, "model.depth is 0"),
        ({"n_blocks": 0}, "model.n_blocks is 0"),
        ({"padding": "some"}, "model.padding is 'some'; choose one of null, exact, reference"),
        ({"readout": "sum"}, "model.readout is 'sum'"),
        ({"init": None}, "model.init is None"),
        ({"dynamic_depth": "uniform"}, "model.dynamic_depth is 'uniform'"),
        ({"head_layers": 0}, "model.head_layers is 0"),
        ({"activation": "swish"}, "swish"),
    ],
)
def test_refuses_settings_out_of_range(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Grover(SPEC, **wrong)
