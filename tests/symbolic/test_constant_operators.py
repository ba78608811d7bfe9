"""Operators on known numbers, against what onnxruntime computes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_model as parse

from onnxlint.model.skeleton import Model
from onnxlint.symbolic.constant_operators import CONSTANT_OPERATORS
from onnxlint.symbolic.folding import FOLDED
from onnxlint.symbolic.inference import exact_sizes
from onnxlint.symbolic.value_operators import _taken, _transposed
from onnxlint.symbolic.values import Quotient, Value, in_single
from onnxlint.symbolic.view import make_view
from tests.support import zoo

INTS = np.array([[7, -3, 0], [4, 9, -8]], np.int64)
OTHERS = np.array([[2, 5, 3], [-4, 2, 3]], np.int64)
FLOATS = np.array([[1.5, -2.25, 9.0], [0.0, 3.7, -0.5]], np.float32)
DIVISORS = np.array([0.3, 2.0, 7.0], np.float32)
TRUTH = np.array([[True, False, True], [False, False, True]])
BYTES = np.array([1, 2, 200], np.uint8)

Case = tuple[str, list[Any], dict[str, Any]]

CASES: list[Case] = [
    *(
        (op, [a, b], {})
        for op in ("Add", "Sub", "Mul", "Div", "Max", "Min")
        for a, b in ((INTS, OTHERS), (FLOATS, DIVISORS))
    ),
    *(
        (op, [a, b], {})
        for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
        for a, b in ((INTS, OTHERS),)
    ),
    *((op, [FLOATS, DIVISORS], {}) for op in ("Greater", "Less", "Sum")),
    *((op, [TRUTH, TRUTH[0]], {}) for op in ("And", "Or", "Xor")),
    *(
        (op, [FLOATS], {})
        for op in ("Abs", "Ceil", "Floor", "Neg", "Reciprocal", "Round", "Sign", "IsNaN", "Transpose")
    ),
    ("Sqrt", [np.abs(FLOATS)], {}),
    ("Not", [TRUTH], {}),
    ("Mod", [INTS, OTHERS], {}),
    ("Mod", [INTS, OTHERS], {"fmod": 1}),
    ("Pow", [np.array([2.0, 3.0, 0.5], np.float32), np.array([5.0, 2.0, 3.0], np.float32)], {}),
    ("Pow", [np.array([16.0, 9.0], np.float32), np.array([0.5], np.float32)], {}),
    ("Pow", [np.array([2, 3], np.int64), np.array([10, 4], np.int64)], {}),
    *(
        ("Cast", [FLOATS], {"to": to})
        for to in (TensorProto.INT64, TensorProto.INT32, TensorProto.DOUBLE, TensorProto.BOOL)
    ),
    ("Cast", [INTS], {"to": TensorProto.FLOAT}),
    ("Clip", [INTS, np.array(-2, np.int64), np.array(5, np.int64)], {}),
    *(
        (op, [INTS], {"keepdims": keep})
        for op in ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum")
        for keep in (0, 1)
    ),
    ("ReduceMax", [INTS], {"axes": [1], "keepdims": 0}),
    ("ReduceSum", [INTS, np.array([0], np.int64)], {"keepdims": 0}),
    *((op, [INTS], {"axis": 1, "keepdims": keep}) for op in ("ArgMax", "ArgMin") for keep in (0, 1)),
    ("CumSum", [INTS, np.array(1, np.int64)], {}),
    ("Gather", [INTS, np.array([[1, 0]], np.int64)], {"axis": 0}),
    ("GatherElements", [INTS, np.array([[0, 1, 1]], np.int64)], {"axis": 0}),
    ("Concat", [INTS, OTHERS], {"axis": 1}),
    ("Tile", [INTS, np.array([2, 1], np.int64)], {}),
    ("Expand", [INTS[:1], np.array([2, 3], np.int64)], {}),
    ("BitShift", [BYTES, np.array([1, 2, 3], np.uint8)], {"direction": "LEFT"}),
    ("BitShift", [BYTES, np.array([1, 2, 3], np.uint8)], {"direction": "RIGHT"}),
    *((op, [INTS, OTHERS], {}) for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")),
    ("BitwiseNot", [INTS], {}),
    ("Compress", [INTS, np.array([True, False, True])], {"axis": 1}),
    ("NonZero", [INTS], {}),
    ("Trilu", [INTS], {}),
    ("Trilu", [INTS, np.array(1, np.int64)], {"upper": 0}),
    ("Where", [TRUTH, INTS, OTHERS], {}),
]


def one_node(op: str, operands: list[npt.NDArray[Any]], attributes: dict[str, Any]) -> onnx.ModelProto:
    names = [f"c{i}" for i in range(len(operands))]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], **attributes), helper.make_node("Identity", ["x"], ["z"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [onnx.ValueInfoProto(name="y"), onnx.ValueInfoProto(name="z")],
        [numpy_helper.from_array(array, name) for array, name in zip(operands, names, strict=True)],
    )
    opset = 17 if "axes" in attributes else 18
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize(
    ("op", "operands", "attributes"), CASES, ids=lambda case: case if isinstance(case, str) else ""
)
def test_what_a_runtime_computes(op: str, operands: list[Any], attributes: dict[str, Any]) -> None:
    proto = one_node(op, operands, attributes)
    (wanted,) = zoo.session(proto).run(["y"], {"x": np.zeros(1, np.float32)})
    view = make_view(Model("m.onnx", proto, 0))
    value = exact_sizes(view).value(view.main, "y")
    assert value is not None
    assert value.dims == wanted.shape
    numbers = [n.num / n.den if isinstance(n, Quotient) else n for n in value.numbers]  # type: ignore[operator]
    # Infinity is no number that sizes are computed from.
    expected = [None if isinstance(x, float) and not np.isfinite(x) else x for x in wanted.reshape(-1).tolist()]
    assert numbers == expected


def test_every_operator_is_tried() -> None:
    assert {op for op, _, _ in CASES} == CONSTANT_OPERATORS.keys() == FOLDED


@pytest.mark.parametrize(
    ("op", "operands", "attributes"),
    [
        ("Div", [INTS, INTS], {}),  # by 0
        ("Pow", [np.array([2.0], np.float32), np.array([0.3], np.float32)], {}),
        ("Pow", [np.array([1.1], np.float32), np.array([7.0], np.float32)], {}),
        ("Cast", [np.array([1e30, np.inf], np.float32)], {"to": TensorProto.INT64}),
        ("Exp", [FLOATS], {}),
        ("Add", [np.zeros((9, 9), np.int64), INTS[0][0]], {}),  # more numbers than a shape has
        ("ReduceSum", [FLOATS], {}),
    ],
)
def test_what_runtimes_may_differ_in_stays_unknown(op: str, operands: list[Any], attributes: dict[str, Any]) -> None:
    view = make_view(Model("m.onnx", one_node(op, [np.asarray(o) for o in operands], attributes), 0))
    value = exact_sizes(view).value(view.main, "y")
    assert value is None or None in value.numbers


def test_a_power_that_says_a_size() -> None:
    view = make_view(
        Model(
            "m.onnx",
            parse("""<ir_version: 8, opset_import: ["": 17]> g (float[n] x) => (y)
                <float two = {2}, float five = {5}, int64[1] zero = {0}> {
                p = Pow(two, five)
                c = Cast<to = 7>(p)
                u = Unsqueeze(c, zero)
                y = ConstantOfShape(u)
            }"""),
            0,
        )
    )
    assert exact_sizes(view).shape(view.main, "y") == (32,)


def test_differences_of_known_sizes_decide() -> None:
    """As Swin computes whether a map is smaller than its windows."""
    view = make_view(
        Model(
            "m.onnx",
            parse("""<ir_version: 8, opset_import: ["": 17]> g (float[n, 96, 56, 56] x) => (y, c)
                <int64 two = {2}, int64 window = {7}, int64 zero = {0}> {
                s = Shape(x)
                h = Gather(s, two)
                d = Sub(h, window)
                c = GreaterOrEqual(d, zero)
                y = If(c) <then_branch = t () => (float[q] u) { u = Flatten(x) },
                    else_branch = e () => (float[r] v) { v = Identity(x) }>
            }"""),
            0,
        )
    )
    value = exact_sizes(view).value(view.main, "c")
    assert value is not None
    assert value.numbers == (1,)
    assert str(exact_sizes(view).shape(view.main, "y")) == "(n, 301056)"


@given(st.data())
def test_moves_of_numbers_are_those_of_numpy(data: st.DataObject) -> None:
    dims = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    array = np.arange(math.prod(dims)).reshape(dims)
    value = Value(tuple(array.reshape(-1).tolist()), tuple(dims))
    axis = data.draw(st.integers(-len(dims), len(dims) - 1))
    size = dims[axis]
    places = np.array(data.draw(st.lists(st.integers(-size, size - 1), max_size=4) if size else st.just([])), np.int64)
    if len(places) % 2 == 0:
        places = places.reshape(2, -1)
    taken = _taken(value, places.reshape(-1).tolist(), places.shape, axis)
    theirs = np.take(array, places, axis)
    assert (taken.numbers, taken.dims) == (tuple(theirs.reshape(-1).tolist()), theirs.shape)
    perm = data.draw(st.permutations(range(len(dims))))
    moved = _transposed(value, perm)
    theirs = np.transpose(array, perm)
    assert (moved.numbers, moved.dims) == (tuple(theirs.reshape(-1).tolist()), theirs.shape)


@given(st.floats(width=32), st.floats(width=32))
def test_single_precision_is_that_of_numpy(x: float, y: float) -> None:
    with np.errstate(all="ignore"):
        product = np.float32(x) * np.float32(y)
    if np.isfinite(product):
        assert in_single(in_single(x) * in_single(y)) == product
