"""Calls of C are checked: one that does not match the function's prototype raises before C runs."""

from __future__ import annotations

import subprocess
import sys
from array import array

import pytest
import torch

from molsam.native import kernels
from molsam.native.kernels import Arrays, prototypes
from molsam.native.prototypes import Parameter, read, sizes
from tests.native.test_kernels import compiled
from tests.paths import ROOT

MISH = "int mish(ptrdiff_t threads, ptrdiff_t n, const real *x OF(n), real *y OF(n))\n{\n}\n"


@compiled
def test_no_wrong_call_reaches_c() -> None:
    """In a process of its own: one argument missing, twice, of another type, size, layout or device; see fuzz.py."""
    run = subprocess.run([sys.executable, "-m", "tests.native.fuzz"], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout == ""
    assert int(run.stderr.split("calls made:")[1]) > 1000


@compiled
@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((2, torch.ones(2), torch.ones(2)), TypeError, "mish takes n, x, y, slope, but got 3 arguments"),
        (("2", *[torch.ones(2)] * 3), TypeError, "mish: n must be a plain int, not str '2'"),
        ((2, torch.ones(2, 2)[:, 0], *[torch.ones(2)] * 2), TypeError, "x must be .* not a Tensor .* not contiguous"),
        ((2, torch.ones(2).double(), *[torch.ones(2)] * 2), TypeError, "not a Tensor of torch.float64 on cpu"),
        ((2, torch.ones(2, device="meta"), *[torch.ones(2)] * 2), TypeError, "on meta"),
        ((2, None, *[torch.ones(2)] * 2), TypeError, "x must be .*, not NoneType None"),
        ((2, array("d", [1, 2]), *[torch.ones(2)] * 2), TypeError, "not array array"),
        ((3, *[torch.ones(2)] * 3), ValueError, "mish: x has 2 elements; n is 3"),
        ((2, torch.ones(2), torch.ones(2), torch.ones(3)), ValueError, "slope has 3 elements; n is 2"),
    ],
)
def test_the_exception_names_function_argument_and_what_it_must_be(arguments, kind, message: str) -> None:
    with pytest.raises(kind, match=message):
        kernels.call("mish", torch.float32, *arguments)


@compiled
def test_what_is_named_must_be_named_and_the_rest_must_not() -> None:
    with pytest.raises(TypeError, match=r"gru: missing arguments \['U', .*, unknown arguments \['V'\]"):
        kernels.call("gru", torch.float32, molecules=1, d=2, V=3)
    with pytest.raises(TypeError, match="gru takes its arguments only by name"):
        kernels.call("gru", torch.float32, 1, 2)
    with pytest.raises(TypeError, match="mish takes its arguments only by position"):
        kernels.call("mish", torch.float32, n=1)
    with pytest.raises(TypeError, match="c/ has no function mash"):
        kernels.call("mash", torch.float32)


def test_arrays_are_contiguous_tensors_of_one_precision() -> None:
    good = [torch.ones(2), torch.ones(2, 3)]
    assert (Arrays.of(good) is not None) == (kernels.in_use() == "compiled")
    for wrong in (
        [],
        [torch.ones(2), torch.ones(2).double()],
        [torch.ones(2), torch.ones(2, 2)[:, 0]],
        [torch.ones(2), torch.ones(2, device="meta")],
    ):
        assert Arrays.of(wrong) is None


def test_prototypes_are_read_from_the_sources() -> None:
    found = read([MISH, "static int other(int x)\n{\n}\n/* int third(ptrdiff_t threads) */"])
    assert list(found) == ["mish"]
    assert found["mish"].parameters == [
        Parameter("n", "count", "ptrdiff_t", None, None, False),
        Parameter("x", "array", "real", "n", None, False),
        Parameter("y", "array", "real", "n", None, False),
    ]


def test_fields_of_structs_stand_in_their_place() -> None:
    header = """typedef struct {
        ptrdiff_t n, d; double eps; /* two counts */
        const real *x OF(n * d), *gain OF(d) OR_NULL;
        const int64_t *rows OF(entries);
    } Given;
    typedef struct { real *y OF(n * (d + 1)); } Made;"""
    (found,) = read([header, "int norm(ptrdiff_t threads, const Given *g, const Made *m)\n{\n}"]).values()
    assert found.structs == [6, 1]
    assert [(p.name, p.kind, p.optional) for p in found.parameters] == [
        ("n", "count", False),
        ("d", "count", False),
        ("eps", "number", False),
        ("x", "array", False),
        ("gain", "array", True),
        ("rows", "array", False),
        ("y", "array", False),
    ]
    assert sizes(found)(1, 3, 2, 0.5, 6, None, 17, 9) == [3, 2, 0.5, 6, None, 17, 9]
    assert sizes(found)(1, 3, 2, 0.5, 6, 4, 17, 10) == [3, 2, 0.5, 6, 2, 17, 9]


def test_a_new_name_in_a_size_is_what_the_first_array_has() -> None:
    (found,) = read(
        ["int f(ptrdiff_t threads, ptrdiff_t d, const real *x OF(N * d), real *y OF(N * 2))\n{\n}"]
    ).values()
    assert sizes(found)(1, 3, 12, 8) == [3, 12, 8]
    assert sizes(found)(1, 3, 12, 9) == [3, 12, 8]
    assert sizes(found)(1, 3, 13, 8) == [3, 12, 8]
    assert sizes(found)(1, 0, 0, 0) == [0, 0, 0]


@pytest.mark.parametrize(
    "wrong",
    [
        "int f(ptrdiff_t n)",
        "int f(ptrdiff_t threads, real x)",
        "int f(ptrdiff_t threads, const real *x)",
        "int f(ptrdiff_t threads, const int32_t *x OF(1))",
        "int f(ptrdiff_t threads, const real **x OF(1))",
        "int f(ptrdiff_t threads, const real *x OF(a * b))",
        "int f(ptrdiff_t threads, const real *x OF(g(1)))",
    ],
)
def test_a_prototype_that_nobody_can_check_is_an_error(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"must take|unknown form|unknown type|no length|not a sum|undefined name"):
        sizes(read([f"{wrong}\n{{\n}}"])["f"])


def test_functions_of_many_parameters_take_structs() -> None:
    for prototype in prototypes().values():
        assert prototype.structs or len(prototype.parameters) < 10, prototype.name
