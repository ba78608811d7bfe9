"""Free sizes that one number alone satisfies, against what onnxruntime runs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.parser import parse_model as parse
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from onnxlint.model.skeleton import Model
from onnxlint.symbolic.constraints import baked_sizes, impossible_demands
from onnxlint.symbolic.view import make_view
from tests.support import zoo

HEAD = '<ir_version: 8, opset_import: ["": 17]> '


def model(text: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    proto = parse(HEAD + text)
    for name, shape in weights.items():
        values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(values, name))
    return proto


def found(proto: onnx.ModelProto) -> list[tuple[str, int, int, int, str, bool]]:
    view = make_view(Model("m.onnx", proto, 0))
    return [(one.input, one.axis, one.smallest, one.largest, one.node.op, one.fails) for one in baked_sizes(view)]


LSTM = "g (float[t, b, 4] x) => (y) { y, h, c = LSTM<hidden_size = 3>(x, W, R, , , s, s) }"

FAILING = {
    "reshape": (model("g (float[t, 16] x) => (y) <int64[3] s = {6, 2, 8}> { y = Reshape(x, s) }"), 0, 6, 6),
    "position embedding": (model("g (float[b, t, 16] x) => (y) { y = Add(x, p) }", p=(1, 6, 16)), 1, 6, 6),
    "matmul": (model("g (float[2, t] x) => (y) { y = MatMul(x, w) }", w=(6, 3)), 1, 6, 6),
    "gemm": (model("g (float[t, 2] x) => (y) { y = Gemm<transA = 1>(x, w) }", w=(6, 3)), 0, 6, 6),
    "flattened map": (
        model(
            "g (float[1, 1, h, 8] x) => (y) { m = MaxPool<kernel_shape = [4, 4], strides = [4, 4]>(x)"
            " f = Flatten(m) y = Gemm(f, w) }",
            w=(6, 3),
        ),
        2,
        12,
        15,
    ),
    "initial state": (model(LSTM, W=(1, 12, 4), R=(1, 12, 3), s=(1, 2, 3)), 1, 2, 2),
    "concat": (model("g (float[b, 4] x) => (y) { y = Concat<axis = 1>(x, w) }", w=(3, 2)), 0, 3, 3),
    "channels": (model("g (float[1, c, 8, 8] x) => (y) { y = Conv(x, w) }", w=(2, 3, 1, 1)), 1, 3, 3),
    "twice as long": (
        model("g (float[t, 2] x) => (y) { d = Concat<axis = 0>(x, x) y = Sub(d, w) }", w=(10, 2)),
        0,
        5,
        5,
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_size_that_everything_else_fails_at(name: str) -> None:
    proto, axis, smallest, largest = FAILING[name]
    ((which, where, low, high, _, fails),) = found(proto)
    assert (which, where, low, high, fails) == ("x", axis, smallest, largest, True)
    session = zoo.session(proto)
    dims = proto.graph.input[0].type.tensor_type.shape.dim

    def runs(size: int) -> bool:
        shape = [size if i == axis else dim.dim_value or 2 for i, dim in enumerate(dims)]
        try:
            session.run(None, {"x": np.zeros(shape, np.float32)})
        except (RuntimeException, InvalidArgument, Fail):
            return False
        return True

    works = {size for size in range(2, 24) if runs(size)}
    assert works == set(range(smallest, largest + 1))


def test_a_size_whose_elements_are_mixed_up_elsewhere() -> None:
    assert found(model("g (float[b, t, 16] x) => (y) <int64[4] s = {-1, 6, 2, 8}> { y = Reshape(x, s) }")) == [
        ("x", 1, 6, 6, "Reshape", False)
    ]
    assert found(model("g (float[1, 9, h, w] x) => (y) <int64[6] s = {1, 1, 3, 3, 24, 20}> { y = Reshape(x, s) }")) == [
        ("x", 2, 24, 24, "Reshape", False),
        ("x", 3, 20, 20, "Reshape", False),
    ]


def test_sizes_that_are_free() -> None:
    for text in (
        "g (float[b, 3, h, w] x) => (y) <int64[3] s = {0, 3, -1}> { y = Reshape(x, s) }",
        "g (float[b, t, 16] x) => (y) <int64[4] s = {0, -1, 2, 8}> { y = Reshape(x, s) }",
        "g (float[b, h] x) => (y) { t = Transpose(x) y = MatMul(x, t) }",
        "g (float[b, h] x) => (y) { n = NonZero(x) c = Cast<to = 1>(n) y = MatMul(c, c) }",
        "g (float[b, h] x) => (y) <float[1] w = {1}> { y = Add(x, w) }",
    ):
        assert found(model(text)) == []


def test_a_solved_size_helps_with_the_next() -> None:
    proto = model(
        "g (float[b, t, 16] x, float[n, t] z) => (y, u) { y = Add(x, p) r = Reshape(z, s) u = Add(r, q) }",
        p=(1, 6, 16),
        q=(12,),
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.array([12], np.int64), "s"))
    # A length of 1 would run as well, and n could then be 12: only the first is certain.
    assert [(*one[:4], one[5]) for one in found(proto)] == [
        ("x", 1, 6, 6, True),
        ("z", 0, 2, 2, False),
        ("z", 1, 6, 6, True),
    ]


def test_what_no_output_depends_on_demands_nothing() -> None:
    assert found(model("g (float[t, 4] x) => (y) { y = Relu(x) d = MatMul(w, x) }", w=(2, 6))) == []


def test_what_no_input_satisfies() -> None:
    proto = model("g (float[1, 8, 16] x) => (y) <int64[3] s = {1, 6, 16}> { y = Reshape(x, s) }")
    (demand,) = impossible_demands(make_view(Model("m.onnx", proto, 0)))
    assert (demand.node.op, demand.left, demand.right) == ("Reshape", 128, 96)
    proto = model("g (float[1, 8, 16] x) => (y) <int64[3] s = {1, -1, 6}> { y = Reshape(x, s) }")
    (demand,) = impossible_demands(make_view(Model("m.onnx", proto, 0)))
    assert (demand.left, demand.right) == (128, 6)
    fine = model("g (float[1, 8, 16] x) => (y) <int64[3] s = {1, -1, 4}> { y = Reshape(x, s) }")
    assert not list(impossible_demands(make_view(Model("m.onnx", fine, 0))))
