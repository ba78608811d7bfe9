"""What a proof may take for granted about the inputs, and what it must not."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.parser import parse_model as parse

from onnxlint.graph.view import GraphView
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.inference import assumed_sizes, exact_sizes
from onnxlint.symbolic.reshapes import constant_target, reshape_steps
from onnxlint.symbolic.sizes import Size
from onnxlint.symbolic.view import make_view

RESHAPE = """<ir_version: 8, opset_import: ["": 17]> g (float[b, 4, h, w] x) => (y)
    <int64[1] i = {0}, int64[1] j = {2}, int64[1] k = {3}, int64[1] c = {4}> {
    s = Shape(x)
    b0 = Gather(s, i)
    h0 = Gather(s, j)
    w0 = Gather(s, k)
    m = Mul(h0, w0)
    t = Concat<axis = 0>(b0, c, m)
    y = Reshape(x, t)
}"""


def view(text: str, names: dict[int, str] | None = None, **options: object) -> GraphView:
    proto = parse(text)
    for axis, name in (names or {}).items():
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    return make_view(Model("m.onnx", proto, 0), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["-1", "None", "?", "?1", "unk__1", "unknown", "dynamic", "x[3]"])
def test_placeholders_are_never_equal(name: str) -> None:
    held = view(RESHAPE, {2: name, 3: name})
    symbolic = exact_sizes(held)
    _, _, height, width = symbolic.shape(held.main, "x") or ()
    assert height != width
    shape = held.main.shape("x")
    assert shape is not None
    assert shape[2] is None or shape[2] != shape[3]


def test_a_placeholder_is_not_a_symbol_for_the_inference_of_onnx() -> None:
    held = view(
        '<ir_version: 8, opset_import: ["": 17]> g (float[None, q] x) => (y, s) { y = Transpose(x) s = Shape(x) }'
    )
    assert held.main.shape("y") == ("q", "x[0]")


def test_expressions_are_sizes() -> None:
    held = view(RESHAPE, {2: "32*h", 3: "(w+1)//2"})
    assert [str(size) for size in exact_sizes(held).shape(held.main, "y") or ()] == ["b", "4", "32*ceil(w/2)*h"]


def test_assumptions_on_an_expression_are_on_its_symbol() -> None:
    held = view(RESHAPE, {2: "4*h"}, multiples=(("4*h", 32), ("h", 3)))
    assert str(assumed_sizes(held).shape(held.main, "x")) == "(b, 4, 96*h, w)"


def test_assumptions_on_one_symbol_combine() -> None:
    held = view(RESHAPE, multiples=(("h", 4), ("h", 6)))
    assert held.multiples == {"h": 12}


def test_an_empty_batch_is_left_out_by_default_alone() -> None:
    for allowed, target in ((False, [0, 4, -1]), (True, None)):
        held = view(RESHAPE, allow_empty=allowed)
        symbolic = exact_sizes(held)
        data, numbers = symbolic.shape(held.main, "x"), symbolic.value(held.main, "t")
        assert data is not None
        assert numbers is not None
        assert constant_target(data, numbers.numbers, symbolic.is_never_empty) == target
        sizes = symbolic.shape(held.main, "y")
        assert sizes is not None
        assert (reshape_steps(data, sizes, symbolic.is_never_empty) is None) == allowed


def test_what_data_decide_may_be_empty() -> None:
    held = view("""<ir_version: 8, opset_import: ["": 17]> g (float[b, h] x) => (y, n) {
        n = NonZero(x)
        y = Transpose(n)
    }""")
    symbolic = exact_sizes(held)
    found = (symbolic.shape(held.main, "y") or ())[0]
    assert isinstance(found, Size)
    assert not symbolic.is_never_empty(found)
    assert not symbolic.is_never_empty(found * 4)
    assert symbolic.is_never_empty(found + 1)
    assert symbolic.is_never_empty(Size.symbol("h") // 2)
    assert not symbolic.is_positive(Size.symbol("h") // 2)


def test_a_symbol_within_a_sum_may_be_zero() -> None:
    """`past + 1` is at least 1 where past is 0."""
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[b, q] x) => (y) { y = Relu(x) }'
    inner = exact_sizes(view(text, {1: "past + 1"}))
    assert inner.may_be_empty == {"past"}
    both = exact_sizes(view(text, {0: "past", 1: "past + 1"}))
    assert both.may_be_empty == set()
    times = exact_sizes(view(text, {1: "32*q"}))
    assert times.may_be_empty == set()
    half = exact_sizes(view(text, {1: "q//2"}))
    assert half.may_be_empty == {"q"}


WINDOWS = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3,h,w] x) => (y)
    <int64[1] two = {2}, int64[1] three = {3}, int64[1] four = {4}, int64[2] rest = {0, -1}> {
    c = Conv <kernel_shape = [4, 4], strides = [4, 4]> (x, weight)
    s = Shape (c)
    rows = Slice (s, two, three)
    threes = Mul (rows, three)
    part = Div (threes, four)
    left = Sub (rows, part)
    t = Concat <axis = 0> (left, rest)
    d = Slice (c, part, rows, two)
    y = Reshape (d, t)
}"""


def test_a_part_of_the_rows_of_a_map_is_no_copy() -> None:
    """What Swin's windows are made of: `rows - 3*rows//4` is at least 1, since a convolution has made the rows."""
    proto = parse(WINDOWS)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((8, 3, 4, 4), np.float32), "weight"))
    held = make_view(Model("m.onnx", proto, 0))
    (left, *_) = exact_sizes(held).shape(held.main, "y") or ()
    assert str(left) == "-floor(3*floor(h/4)/4) + floor(h/4)"
