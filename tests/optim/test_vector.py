"""Vectors over parameters, in C and in torch, against their definitions for any sizes, dtypes and threads."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from molsam import optim
from molsam.native import kernels
from molsam.optim import vector
from molsam.optim.passes import Passes
from tests.optim.problem import SGD

SHAPES = [(3, 7), (), (40, 1024), (0,), (2, 2, 5), (8192,), (511, 33)]
"""below, at and above the parts that C works in"""
RTOL = {torch.float32: 1e-6, torch.float64: 1e-14}


def tensors(seed: int, dtype: torch.dtype, shapes: list[tuple[int, ...]] = SHAPES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]


def over(values: list[Tensor]) -> vector.Vector:
    return {nn.Parameter(torch.zeros_like(value)): value for value in values}


def test_vectors_over_different_parameters() -> None:
    a, b, c = (nn.Parameter(torch.ones(2)) for _ in range(3))
    left = {a: torch.tensor([3.0, 0.0]), b: torch.tensor([0.0, 4.0])}
    right = {b: torch.tensor([1.0, 1.0]), c: torch.tensor([2.0, 0.0])}
    assert vector.norm(left) == 5.0
    assert vector.norm({}) == 0.0
    assert vector.dot(left, right) == 4.0
    assert vector.dot(left, {}) == 0.0
    combined = vector.combine(left, right, 2.0)
    assert {p: t.tolist() for p, t in combined.items()} == {a: [3.0, 0.0], b: [2.0, 6.0], c: [4.0, 0.0]}
    mean = dict(left)
    size = vector.combine_(mean, 0.75, right, 0.25)
    assert {p: t.tolist() for p, t in mean.items()} == {a: [2.25, 0.0], b: [0.25, 3.25], c: [0.5, 0.0]}
    assert size == pytest.approx(vector.norm(mean), rel=1e-6)
    assert vector.combine_({}, 0.75, {}, 0.25) == 0.0
    mean = {a: torch.tensor([3.0, 0.0]), b: torch.tensor([0.0, 4.0])}
    vector.combine_(mean, 0.5, right, {b: 2.0, c: -1.0})
    assert {p: t.tolist() for p, t in mean.items()} == {a: [1.5, 0.0], b: [2.0, 4.0], c: [-2.0, 0.0]}


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", RTOL)
def test_norms_are_their_definition(dtype: torch.dtype) -> None:
    values = tensors(0, dtype)
    for _ in range(2):
        exact = [float(value.double().square().sum().sqrt()) for value in values]
        norm, squares, sums, places, _ = measured = vector.measure(values)
        assert places is None or list(places.addresses) == [value.data_ptr() for value in values]
        assert places is None or all(value.is_contiguous() for value in values)
        assert measured.norms == pytest.approx(exact, rel=RTOL[dtype])
        assert list(squares) == pytest.approx([size**2 for size in exact], rel=2 * RTOL[dtype])
        assert norm == pytest.approx(math.hypot(*exact), rel=RTOL[dtype])
        totals = [float(value.double().sum()) for value in values]
        assert sums is None or list(sums) == pytest.approx(totals, abs=300 * RTOL[dtype])
        assert vector.sums(values) == pytest.approx(totals, abs=300 * RTOL[dtype])
        values[0] = values[0].t()  # which C does not take


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize(("a", "b"), [(1.0, 0.0), (0.99, 0.01), (0.0, 1.0), (-2.0, 0.5)])
@pytest.mark.parametrize("each", [False, True])
def test_a_combination_is_its_definition(a: float, b: float, each: bool, dtype: torch.dtype) -> None:
    """a x + b y in place of x, with one b or one for each tensor."""
    mean, new = over(tensors(1, dtype)), tensors(2, dtype)
    factors = [b * (1 + k if each else 1) for k in range(len(new))]
    known = [(x.double(), y.double(), f) for x, y, f in zip(mean.values(), new, factors, strict=True)]
    exact = [a * x + factor * y for x, y, factor in known]
    size = vector.combine_(
        mean, a, dict(zip(mean, new, strict=True)), dict(zip(mean, factors, strict=True)) if each else b
    )
    assert size == pytest.approx(math.sqrt(sum(float(e.square().sum()) for e in exact)), rel=RTOL[dtype])
    for got, expected in zip(mean.values(), exact, strict=True):
        torch.testing.assert_close(got.double(), expected, rtol=4 * RTOL[dtype], atol=4 * RTOL[dtype])
        assert (a, b) not in ((1.0, 0.0), (0.0, 1.0)) or each or torch.equal(got.double(), expected)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", RTOL)
def test_an_inner_product_is_its_definition(dtype: torch.dtype) -> None:
    left, right = tensors(1, dtype), tensors(2, dtype)
    exact = sum(float((a.double() * b.double()).sum()) for a, b in zip(left, right, strict=True))
    alone, measured = vector.measure(left), vector.measure(left, right)
    assert alone.dot is None
    assert measured[:3] == alone[:3]
    assert measured.dot is None or measured.dot == pytest.approx(exact, abs=300 * RTOL[dtype])
    assert (measured.dot is None) == (not kernels.fits(left[0]))
    assert vector.measure(left, [*right[1:], right[0]]).dot is None  # of other sizes


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("adaptive", [False, True])
def test_a_displacement_is_its_definition_in_memory_used_again(adaptive: bool, dtype: torch.dtype) -> None:
    start, room = tensors(3, dtype), vector.Vector()
    before = [x.clone() for x in start]
    for seed, factors in ((4, [0.3] * len(start)), (5, [-2.0 * k for k in range(len(start))])):
        direction = tensors(seed, dtype)
        ways = [(x.double() ** 2 if adaptive else 1) * d.double() for x, d in zip(before, direction, strict=True)]
        moved = vector.moved(start, direction, factors, room, adaptive)
        for got, x, factor, way in zip(moved, before, factors, ways, strict=True):
            torch.testing.assert_close(got.double(), x + factor * way, rtol=10 * RTOL[dtype], atol=10 * RTOL[dtype])
        if adaptive:
            lengths = [float(way.norm()) for way in ways]
            assert vector.adaptive_norms(start, direction) == pytest.approx(lengths, rel=3 * RTOL[dtype])
    assert all(map(torch.equal, start, before))


def test_c_gives_the_same_numbers_for_any_number_of_threads() -> None:
    if kernels.in_use() != "compiled":
        pytest.skip("no C compiler")
    before, found = torch.get_num_threads(), set()
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        mean = over(tensors(6, torch.float32))
        size = vector.combine_(mean, 0.9, dict(zip(mean, tensors(7, torch.float32), strict=True)), 0.1)
        found.add((size, vector.norm(mean), *(value.numpy().tobytes() for value in mean.values())))
    torch.set_num_threads(before)
    assert len(found) == 1


def test_a_displacement_within_another_leaves_its_weights_alone() -> None:
    """As a diagnostic has it that looks at the displaced weights."""
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    passes: Passes = optim.SAM([weight], SGD, rho=1.0)
    with passes.perturbed({weight: torch.tensor([1.0, 0.0])}, 1.0):
        with passes.perturbed({weight: torch.tensor([0.0, 1.0])}, 1.0):
            assert weight.tolist() == [4.0, 5.0]
        with passes.perturbed({weight: torch.tensor([0.0, -1.0])}, 1.0):
            assert weight.tolist() == [4.0, 3.0]
        assert weight.tolist() == [4.0, 4.0]
    assert weight.tolist() == [3.0, 4.0]


def test_weights_that_change_their_shape_or_precision_find_memory_that_fits() -> None:
    weight = nn.Parameter(torch.ones(2))
    passes: Passes = optim.SAM([weight], SGD, rho=1.0)
    for value in (torch.ones(2), torch.ones(3), torch.ones(3, dtype=torch.float64)):
        weight.data = value
        for _ in range(2):
            with passes.perturbed({weight: torch.full_like(value, 2.0)}, 1.0):
                assert weight.dtype == value.dtype
                assert weight.tolist() == [3.0] * len(value)


def test_norms_of_16_bit_vectors_are_taken_in_32() -> None:
    """1000 entries of 0.1: a bfloat16 sum of squares would stop growing long before 10."""
    p = nn.Parameter(torch.zeros(1000, dtype=torch.bfloat16))
    v = {p: torch.full((1000,), 0.1, dtype=torch.bfloat16)}
    exact = math.sqrt(1000) * float(torch.tensor(0.1, dtype=torch.bfloat16))
    assert vector.norm(v) == pytest.approx(exact, rel=1e-5)
    assert vector.dot(v, v) == pytest.approx(exact**2, rel=1e-5)


def test_mixed_precisions_have_one_norm() -> None:
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1, dtype=torch.float64))
    v = {a: torch.tensor([3.0]), b: torch.tensor([4.0], dtype=torch.float64)}
    assert vector.norm(v) == 5.0
    assert vector.dot(v, v) == 25.0
