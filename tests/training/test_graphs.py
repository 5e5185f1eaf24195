"""training.graphs: padded batches give the same steps, and a captured pass repeats what a pass computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from molsam.data.padded import Padding, Size, sizes
from molsam.errors import ConfigError
from molsam.models.api import DataSpec, ModelOutput, MoleculeModel
from molsam.models.layers.batchnorm import BatchNorm
from molsam.optim.sam import SAM
from molsam.training import graphs
from molsam.training.loop import Trainer
from molsam.training.objective import Objective
from tests import fake_device
from tests.batteries.optimizers import NAMES
from tests.batteries.test_models import MODELS, subject
from tests.fake_device import Counts, fake_cuda
from tests.training.test_fake_device import on_cpu, steps, trainer

pytestmark = pytest.mark.filterwarnings("ignore:PyTorch was compiled without cuDNN")
SMALL = {
    "gcn": ("model.hidden_sizes=[8,8]", "model.head_size=8"),
    "compt": ("model.d_model=16", "model.n_heads=2", "model.n_layers=2"),
    "grover": ("model.hidden_size=8", "model.n_heads=2"),
}
"""settings of small models; the others have a hidden_size"""
LAST_IS_SMALLER = ("training.batch_size=48", "training.precision=fp64")
"""of 128 molecules: 48, 48 and 32"""
ON_GPU = ("training.graphs=true", "training.device=cuda")


def small(name: str, *settings: str) -> tuple[str, ...]:
    return (f"model={name}", *SMALL.get(name, ("model.hidden_size=8",)), *settings)


class Simulated(graphs.Cuda):
    """What a GPU does at a capture, on the simulated device."""

    def warm_up(self, function: Callable[[], object]) -> None:
        function()

    def capture(self, function: Callable[[], object]) -> Callable[[], None]:
        return fake_device.capture(function)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counts]:
    monkeypatch.setattr(graphs, "Cuda", Simulated)
    with fake_cuda(monkeypatch) as counts:
        yield counts


def same(found: Trainer, wanted: Trainer, losses: list[float], expected: list[float]) -> None:
    """The same losses and weights, up to rounding, which Adam's division enlarges where a gradient is near zero."""
    assert losses == pytest.approx(expected, rel=1e-10)
    weights = (on_cpu(one.model.state_dict()) for one in (found, wanted))
    torch.testing.assert_close(*weights, rtol=1e-8, atol=1e-9)


def first_gradient(made: Trainer) -> list[Tensor | None]:
    """The gradient of the last, smaller batch at the initial weights."""
    torch.manual_seed(0)
    made.closure.batches = next(made.steps(made.order(0), 2))
    made.closure()
    torch.manual_seed(0)
    return [parameter.grad for parameter in made.model.parameters()]


def seen(made: Trainer) -> set[tuple[int, ...]]:
    """The sizes of the batches that a model sees from now on."""
    found: set[tuple[int, ...]] = set()
    made.model.register_forward_pre_hook(
        lambda _, given: found.add((len(given[0]), given[0].n_atoms, len(given[0].src), given[0].max_size))
    )
    return found


@pytest.mark.parametrize("optimizer", ["graphsam", *(pytest.param(n, marks=pytest.mark.slow) for n in ("adam", "sam"))])
@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_no_step(name: str, optimizer: str, tmp_path: Path) -> None:
    settings = small(name, f"optimizer={optimizer}", *LAST_IS_SMALLER)
    wanted, found = trainer(tmp_path, *settings), trainer(tmp_path, *settings, "training.graphs=true")
    for gradient, other in zip(first_gradient(found), first_gradient(wanted), strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-10, atol=1e-13)
    expected, shapes = steps(wanted, 3), seen(found)
    torch.manual_seed(0)
    same(found, wanted, steps(found, 3), expected)
    assert found.padding is not None
    assert shapes <= set(map(tuple, found.padding.sizes))


@pytest.mark.parametrize(
    "name", [n if n in ("cmpnn", "grover") else pytest.param(n, marks=pytest.mark.slow) for n in MODELS]
)
def test_a_captured_pass_repeats_every_batch(name: str, tmp_path: Path, device: Counts) -> None:
    settings = small(name, "optimizer=graphsam", "training.precision=fp64", "dataset.limit=24", "training.batch_size=6")
    expected = steps(wanted := trainer(tmp_path, *settings), 3)
    found = trainer(tmp_path, *settings, *ON_GPU)
    assert found.padding is not None
    found.padding.sizes = found.padding.sizes[-1:]
    losses = steps(found, 1)
    device.clear()
    losses += steps(found, 2)
    same(found, wanted, losses, expected)
    launches, waits, up = device.per_step(2)
    assert launches <= 16, device.launches
    assert waits <= 2, (device.waits, device.down)
    assert up <= 1, device.up
    assert isinstance(found.closure, graphs.GraphClosure)
    assert list(found.closure.captured) == [tuple(found.padding.sizes[0])]


QUICK = ("esam", "graphsam_release")


@pytest.mark.parametrize("optimizer", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES])
def test_displaced_weights_are_what_a_captured_pass_reads(optimizer: str, tmp_path: Path, device: Counts) -> None:
    settings = small("dmpnn", f"optimizer={optimizer}", "training.batch_size=64", "training.precision=fp64")
    expected = steps(wanted := trainer(tmp_path, *settings), 2)
    found = trainer(tmp_path, *settings, *ON_GPU)
    same(found, wanted, steps(found, 2), expected)
    assert wanted.optimizer.last.loss_perturbed != wanted.optimizer.last.loss_clean


def test_each_size_is_captured_once(tmp_path: Path, device: Counts) -> None:
    made = trainer(tmp_path, *small("gcn", "optimizer=sam", *LAST_IS_SMALLER), *ON_GPU)
    captured, capture = [], made.closure.cuda.capture
    made.closure.cuda.capture = lambda function: captured.append(1) or capture(function)
    for _ in range(2):
        made.step = 0
        steps(made, 3)
    assert len(captured) == len(made.closure.captured) <= len(made.padding.sizes)
    assert {size[0] for size in made.closure.captured} >= {made.padding.sizes[0].molecules}


LABELS = {
    "classes": ("dataset.task=classification", "training.class_weight=balanced", "training.accumulate=2"),
    "bounds": ("dataset.task=regression", "dataset.censored=bound", "dataset.weights=w", "training.loss=huber"),
    "words": ("dataset.task=multiclass", "dataset.descriptors=own.npy"),
}
CELLS = {
    "classes": lambda row: (row % 2, "" if row % 3 else row % 4 // 2),
    "bounds": lambda row: (f">{row}" if row % 5 == 0 else row / 7, "" if row % 3 else f"<{row}"),
    "words": lambda row: ("abc"[row % 3], "" if row % 4 == 0 else "xy"[row % 2]),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_of_every_kind(kind: str, tmp_path: Path, device: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("C" * (1 + row % 9) + "NO" * (row % 2), *CELLS[kind](row), 0.5 + row % 3) for row in range(40)]
    table = "\n".join(["smiles,y,z,w", *(",".join(map(str, row)) for row in rows)])
    (tmp_path / "own.csv").write_text(table + "\n", encoding="utf-8")
    np.save(tmp_path / "own.npy", np.random.default_rng(0).normal(size=(40, 3)))
    monkeypatch.chdir(tmp_path)
    settings = small(
        "gcn", "optimizer=sam", "dataset=csv", "dataset.path=own.csv", "dataset.targets=[y,z]",
        "training.batch_size=12", "training.precision=fp64", *LABELS[kind],
    )  # fmt: skip
    expected = steps(wanted := trainer(tmp_path, *settings), 2)
    for more in (("training.graphs=true",), ON_GPU):
        found = trainer(tmp_path, *settings, *more)
        same(found, wanted, steps(found, 2), expected)


def test_dropout_is_drawn_anew_and_a_capture_leaves_no_trace(tmp_path: Path, device: Counts) -> None:
    made = trainer(tmp_path, *small("gcn", "model.dropout=0.5", "optimizer=adam"), *ON_GPU)
    made.closure.batches = next(made.steps(made.order(0)))
    before = on_cpu(made.model.state_dict())
    batch, drawn = made.closure.batches[0], []
    captured = graphs.Captured(made.closure, batch, drawn)
    torch.testing.assert_close(on_cpu(made.model.state_dict()), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in made.model.parameters())
    losses = [float(captured(batch, drawn)[0]) for _ in range(2)]
    assert losses[0] != losses[1]


class Own(MoleculeModel):
    """A model that cannot be captured, in one of several ways."""

    def __init__(self, spec: DataSpec, how: str) -> None:
        super().__init__()
        self.how, self.linear = how, nn.Linear(spec.node_dim, spec.n_tasks)

    def forward(self, batch: Any) -> ModelOutput:
        """The first atoms' logits."""
        if self.how == "reads":
            float(self.linear.bias.sum())
        if self.how == "dgl":
            _ = batch.graph
        if self.how == "varies":
            batch.derive(varying)
        first = batch.nodes.index_select(0, batch.offsets[:-1])
        return ModelOutput(self.linear(first).unsqueeze(0))


def varying(batch: Any) -> list[Tensor]:
    return [batch.here.index[: int(batch.real.sum())]]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("reads", r"Own cannot be captured as a CUDA graph \(.*not permitted.*\); leave training\.graphs out"),
        ("dgl", r"batch\.graph is a DGL graph, which cannot be captured as a CUDA graph; leave training\.graphs out"),
        ("varies", r"Own derives tensors of varying size from batches of one size"),
    ],
)
def test_a_model_that_cannot_be_captured(how: str, message: str, device: Counts) -> None:
    molecules = subject("gcn").molecules
    spec = DataSpec(molecules.node_table.shape[1], molecules.edge_table.shape[1], 1, 0)
    model = Own(spec, how).to("cuda")
    closure = graphs.GraphClosure(model, Objective("regression"), "fp32", torch.device("cuda"), torch.float32)
    pad = Padding(molecules, np.arange(10), 5)
    pad.sizes = pad.sizes[-1:]

    def passes() -> None:
        for count in (5, 4):
            batch = molecules.batch(np.arange(count))
            batch.targets, batch.mask = torch.ones(count, 1), torch.ones(count, 1, dtype=torch.bool)
            closure.batches = [pad(batch)]
            closure()

    with pytest.raises(ConfigError, match=message):
        passes()


def test_models_that_filler_would_change_are_refused() -> None:
    spec = DataSpec(4, 3, 1, 9)
    with pytest.raises(ConfigError, match=r"model\.padding=reference reads .*use model\.padding=exact"):
        graphs.check_model(subject("cmpnn").build(padding="reference"))
    with pytest.raises(ConfigError, match=r"model\.padding=reference reads"):
        graphs.check_model(subject("grover").build(padding="reference"))
    for norm in (nn.BatchNorm1d, BatchNorm):
        own = Own(spec, "")
        own.norm = norm(4)
        with pytest.raises(ConfigError, match=rf"Own has a {norm.__name__}, which would count the filler molecules"):
            graphs.check_model(own)
    for name in MODELS:
        graphs.check_model(subject(name).build())


@pytest.mark.parametrize("count", [1, 2, 70])
def test_batch_norm_counts_only_real_rows(count: int) -> None:
    torch.manual_seed(count)
    plain, padded = (BatchNorm(3).double() for _ in range(2))
    rows = torch.randn(count, 3, dtype=torch.float64, requires_grad=True)
    whole = torch.cat([rows.detach(), 9 * torch.ones(5, 3, dtype=torch.float64)]).requires_grad_()
    real = torch.cat([torch.ones(count), torch.zeros(5)]).double()
    way = torch.randn(count, 3, dtype=torch.float64)
    wanted, found = plain(rows), padded(whole, real)[:count]
    (wanted * way).sum().backward()
    (found * way).sum().backward()
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    assert whole.grad is not None
    torch.testing.assert_close(whole.grad[:count], rows.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(padded.state_dict(), plain.state_dict(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(padded.weight.grad, plain.weight.grad, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["gcn", "compt"])
def test_a_padded_batch_is_a_batch(name: str) -> None:
    """compt: each atom has its own feature vector, and there are distances."""
    molecules = subject(name).molecules
    pad = Padding(molecules, np.arange(9), 4)
    for rows in ([0], [1, 2], [3, 4, 5, 6], [8, 8, 8, 8], [0, 1, 0, 1]):
        whole = pad(molecules.batch(rows))
        own = molecules.batch(rows)
        assert Size(len(whole), whole.n_atoms, len(whole.src), whole.max_size) in pad.sizes
        assert torch.equal(whole.nodes[: own.n_atoms], own.nodes)
        assert torch.equal(whole.edges[: len(own.src)], own.edges)
        assert whole.real.tolist() == [1.0] * len(rows) + [0.0] * (len(whole) - len(rows))
        assert whole.sizes.min() >= 1
        assert whole.sizes.max() <= whole.max_size
        assert torch.equal(whole.offsets.diff(), whole.sizes)
        assert torch.equal(whole.molecule, torch.arange(len(whole)).repeat_interleave(whole.sizes))
        assert torch.equal(whole.molecule[whole.src].bincount(minlength=len(whole)), whole.bonds)
        assert torch.equal(whole.molecule[whole.src], whole.molecule[whole.dst])
        assert torch.equal(whole.molecule[whole.src], whole.molecule[whole.src].sort()[0])
        order = whole.dst.sort(stable=True)[1]
        assert torch.equal(whole.neighbours, whole.src[order])
        assert torch.equal(whole.neighbour_offsets.diff(), whole.dst.bincount(minlength=whole.n_atoms))
        if name == "compt":
            assert torch.equal(whole.src[whole.rev], whole.dst)
            assert len(whole.distances) == whole.sizes.square().sum()
            pairs = whole.src * whole.n_atoms + whole.dst
            assert len(pairs.unique()) == len(pairs)


@pytest.mark.parametrize("largest", [1, 2, 3, 40])
def test_every_batch_of_a_training_set_fits_one_of_few_sizes(largest: int) -> None:
    random = np.random.default_rng(largest)
    for count, size in ((5, 5), (40, 8), (41, 8), (7, 1)):
        atoms = random.integers(1, largest + 1, count)
        bonds = 2 * random.integers(0, atoms * (atoms - 1) // 2 + 1)
        found = sizes(atoms, bonds, size)
        assert len(found) <= 5
        order = atoms.argsort()
        batches = [
            order[:size],
            order[-size:],
            order[:1],
            order[-1:],
            *(random.permutation(count)[:size] for _ in range(9)),
        ]
        for rows in batches:
            own = len(rows), int(atoms[rows].sum()), int(bonds[rows].sum()), int(atoms[rows].max())
            assert any(one.fits(*own) for one in found)


def test_weights_are_displaced_in_place_and_come_back() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    before, places = [p.detach().clone() for p in model.parameters()], [p.data_ptr() for p in model.parameters()]
    optimizer = SAM(model, partial(torch.optim.SGD, lr=0.0), rho=0.5)
    optimizer.in_place = True
    memory, calls = [p.data for p in model.parameters()], []

    def closure(fails: bool = False) -> Tensor:
        calls.append([one.clone() for one in memory])
        if fails and len(calls) == 4:
            raise KeyError
        loss = model(torch.ones(2, 3)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert not torch.equal(calls[1][0], calls[0][0])
    with pytest.raises(KeyError):
        optimizer.step(partial(closure, fails=True))
    assert not torch.equal(calls[3][0], calls[2][0])
    for parameter, value, place in zip(model.parameters(), before, places, strict=True):
        assert torch.equal(parameter, value)
        assert parameter.data_ptr() == place


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_repeats_captured_passes(name: str, tmp_path: Path) -> None:
    settings = (f"model={name}", "optimizer=graphsam", *LAST_IS_SMALLER)
    expected = steps(wanted := trainer(tmp_path, *settings), 3)
    found = trainer(tmp_path, *settings, *ON_GPU)
    losses = steps(found, 3)
    assert losses == pytest.approx(expected, rel=1e-7)
    weights = (
        torch.cat([w.detach().flatten().double().cpu() for w in one.model.state_dict().values()])
        for one in (found, wanted)
    )
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)
