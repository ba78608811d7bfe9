"""Free sizes that one number alone satisfies, against what onnxruntime runs."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.parser import parse_model as parse
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, InvalidGraph, RuntimeException

from onnxlint.model.skeleton import Model
from onnxlint.symbolic.constraints import baked_sizes
from onnxlint.symbolic.demands import described, impossible_demands
from onnxlint.symbolic.view import make_view
from tests.support import zoo

HEAD = '<ir_version: 8, opset_import: ["": 17]> '


def model(text: str, opset: int = 17, **weights: tuple[int, ...]) -> onnx.ModelProto:
    proto = parse(HEAD.replace("17", str(opset)) + text)
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
    "gemm behind a flatten": (
        model("g (float[b, 3, h, 2] x) => (y) { f = Flatten(x) y = Gemm(f, w) }", w=(36, 3)),
        2,
        6,
        6,
    ),
    "matmul behind a reshape": (
        model(
            "g (float[b, h, 2, 2] x) => (y) <int64[3] s = {0, 2, -1}> { f = Reshape(x, s) y = MatMul(f, w) }", w=(12, 3)
        ),
        1,
        6,
        6,
    ),
    "convolution over a whole map": (
        model(
            "g (float[b, 3, h, 8] x) => (y) { c = Conv(x, k) f = Flatten(c) y = Gemm(f, w) }", k=(2, 3, 8, 8), w=(2, 3)
        ),
        2,
        8,
        8,
    ),
    "bias of a gemm": (model("g (float[b, 4] x) => (y) { y = Gemm(x, w, c) }", w=(4, 3), c=(5, 3)), 0, 5, 5),
    "einsum": (model('g (float[b, t, 4] x) => (y) { y = Einsum<equation = "btc,ts->bsc">(x, w) }', w=(6, 3)), 1, 6, 6),
    "einsum with an ellipsis": (
        model('g (float[b, t, 4] x) => (y) { y = Einsum<equation = "...tc,ts->...sc">(x, w) }', w=(6, 3)),
        1,
        6,
        6,
    ),
    "einsum without a result": (
        model('g (float[t, 4] x) => (y) { y = Einsum<equation = "tc,ts">(x, w) }', w=(6, 3)),
        0,
        6,
        6,
    ),
    "split": (model("g (float[4, t] x) => (y, z) <int64[2] s = {2, 4}> { y, z = Split<axis = -1>(x, s) }"), 1, 6, 6),
    "where": (
        model("g (float[2, t] x) => (y) <float z = {0}> { c = Less(x, z) y = Where(c, x, w) }", w=(1, 6)),
        1,
        6,
        6,
    ),
    "expand": (model("g (float[2, t] x) => (y) <int64[2] s = {2, 6}> { y = Expand(x, s) }"), 1, 6, 6),
    "layer norm": (model("g (float[2, t] x) => (y) { y = LayerNormalization(x, s) }", s=(6,)), 1, 6, 6),
    "group norm": (
        model("g (float[b, c, 4] x) => (y) { y = GroupNormalization<num_groups = 2>(x, s, s) }", opset=21, s=(6,)),
        1,
        6,
        6,
    ),
    "slopes": (model("g (float[b, c, 4] x) => (y) { y = PRelu(x, s) }", s=(6, 1)), 1, 6, 6),
    "scales": (model("g (uint8[b, c] x) => (y) { y = DequantizeLinear<axis = 1>(x, s) }", s=(3,)), 1, 3, 3),
    "lengths": (model("g (float[t, b] x) => (y) <int64[3] l = {1, 1, 1}> { y = ReverseSequence(x, l) }"), 1, 3, 3),
    "grid": (model("g (float[b, 3, h, w] x) => (y) { y = GridSample(x, g) }", g=(3, 5, 5, 2)), 0, 3, 3),
    "mask": (
        model(
            "g (float[b, t, 8] x) => (y) { y = Attention<q_num_heads = 2, kv_num_heads = 2>(x, x, x, k) }",
            opset=23,
            k=(6, 6),
        ),
        1,
        6,
        6,
    ),
    "rotary cache": (
        model("g (float[1, 2, t, 4] x) => (y) { y = RotaryEmbedding(x, c, c) }", opset=23, c=(1, 6, 2)),
        2,
        6,
        6,
    ),
    "depth to space": (
        model(
            "g (float[b, 2, h, 4] x) => (y) { d = SpaceToDepth<blocksize = 2>(x) f = Flatten(d) y = Gemm(f, w) }",
            w=(48, 2),
        ),
        2,
        6,
        7,
    ),
    "both branches": (
        model(
            "g (float[2, t] x) => (y) { s = ReduceMax<keepdims = 0>(x) c = Cast<to = 9>(s) y = If(c) <"
            "then_branch = a () => (float[2, t] p) { p = Add(x, w) },"
            "else_branch = e () => (float[2, t] q) { q = Mul(x, w) }> }",
            w=(1, 6),
        ),
        1,
        6,
        6,
    ),
    "body that always runs": (
        model(
            "g (float[2, t] x) => (y) <int64 n = {2}, bool c = {1}> { y = Loop(n, c, x) <"
            "body = l (int64 i, bool b, float[2, t] a) => (bool d, float[2, t] o) { d = Identity(b) o = Add(x, w) }> }",
            w=(1, 6),
        ),
        1,
        6,
        6,
    ),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_size_that_everything_else_fails_at(name: str) -> None:
    proto, axis, smallest, largest = FAILING[name]
    ((which, where, low, high, _, fails),) = found(proto)
    assert (which, where, low, high, fails) == ("x", axis, smallest, largest, True)
    session = zoo.session(proto)
    dims = proto.graph.input[0].type.tensor_type.shape.dim
    kinds: dict[int, Any] = {onnx.TensorProto.FLOAT: np.float32, onnx.TensorProto.UINT8: np.uint8}

    def runs(size: int) -> bool:
        shape = [size if i == axis else dim.dim_value or 2 for i, dim in enumerate(dims)]
        try:
            session.run(None, {"x": np.zeros(shape, kinds[proto.graph.input[0].type.tensor_type.elem_type])})
        except (RuntimeException, InvalidArgument, Fail):
            return False
        return True

    works = {size for size in range(1, 24) if runs(size)}
    (one,) = baked_sizes(make_view(Model("m.onnx", proto, 0)))
    if name in ("depth to space", "flattened map"):  # windows that do not fit are undefined, or refused
        works -= set(range(smallest)) | ({7} if name == "depth to space" else set())
        largest = 6 if name == "depth to space" else largest
    assert works - {one.other} == set(range(smallest, largest + 1))
    assert one.other in {0, *works}


TOGETHER = {
    "flattened image": (
        model("g (float[1, 3, h, w] x) => (y) { f = Flatten(x) y = Gemm(f, k) }", k=(108, 3)),
        "h*w = 36",
        (6, 6),
    ),
    "convolved": (
        model(
            "g (float[1, 1, h, w] x) => (y) { c = Conv<strides = [2, 2]>(x, a) f = Flatten(c) y = Gemm(f, k) }",
            a=(2, 1, 3, 3),
            k=(18, 3),
        ),
        "-ceil(h/2) + ceil(h/2)*ceil(w/2) - ceil(w/2) = 8",
        (8, 8),
    ),
    "not square": (
        model("g (float[1, 3, h, w] x) => (y) <int64[2] s = {3, 30}> { y = Reshape(x, s) }"),
        "h*w = 30",
        (6, 5),
    ),
    "positions of tokens": (
        model("g (float[1, 1, h, w] x) => (y) <int64[2] s = {1, -1}> { f = Reshape(x, s) y = Add(f, p) }", p=(1, 12)),
        "h*w = 12 or 1",
        (4, 3),
    ),
}


@pytest.mark.parametrize("name", TOGETHER)
def test_sizes_that_only_fit_together(name: str) -> None:
    proto, relation, example = TOGETHER[name]
    both = baked_sizes(make_view(Model("m.onnx", proto, 0)))
    assert [one.relation for one in both] == [relation] * 2
    assert tuple(one.smallest for one in both) == example
    session = zoo.session(proto)
    left, _, right = relation.removesuffix(" or 1").partition(" = ")
    wanted = {int(right)} | ({1} if relation.endswith(" or 1") else set())
    for h in range(3, 14):
        for w in range(3, 14):
            fits = eval(left, {"h": h, "w": w, "ceil": math.ceil}) in wanted
            image = np.zeros((1, proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value, h, w), np.float32)
            if fits:
                session.run(None, {"x": image})
            else:
                with pytest.raises((RuntimeException, InvalidArgument, Fail)):
                    session.run(None, {"x": image})


def test_one_branch_alone_demands_nothing() -> None:
    text = (
        "g (float[2, t] x, bool c) => (y) { y = If(c) <then_branch = a () => (float[2, t] p) { p = Add(x, w) },"
        "else_branch = e () => (float[2, t] q) { q = Relu(x) }> }"
    )
    assert found(model(text, w=(1, 6))) == []


def test_windows_and_rows_of_fixed_length() -> None:
    windows = "g (float[b, h, w, 4] x) => (y) <int64[6] s = {-1, 2, 4, 3, 4, 4}> { y = Reshape(x, s) }"
    assert found(model(windows)) == [("x", 1, 8, 8, "Reshape", False), ("x", 2, 12, 12, "Reshape", False)]
    rows = "g (float[b, 3, h, 2] x) => (y) <int64[2] s = {-1, 36}> { y = Reshape(x, s) }"
    assert found(model(rows)) == [("x", 2, 6, 6, "Reshape", False)]
    # Tokens in groups are no map in one row.
    assert found(model("g (float[b, t, 16] x) => (y) <int64[2] s = {-1, 64}> { y = Reshape(x, s) }")) == []


def test_a_size_whose_elements_are_mixed_up_elsewhere() -> None:
    assert found(model("g (float[b, t, 16] x) => (y) <int64[4] s = {-1, 6, 2, 8}> { y = Reshape(x, s) }")) == [
        ("x", 1, 6, 6, "Reshape", False)
    ]
    assert found(model("g (float[1, 9, h, w] x) => (y) <int64[6] s = {1, 1, 3, 3, 24, 20}> { y = Reshape(x, s) }")) == [
        ("x", 2, 24, 24, "Reshape", False),
        ("x", 3, 20, 20, "Reshape", False),
    ]
    # Heads that are joined, and a sequence before the batch.
    assert found(model("g (float[b, t, 2, 8] x) => (y) <int64[3] s = {-1, 6, 16}> { y = Reshape(x, s) }")) == [
        ("x", 1, 6, 6, "Reshape", False)
    ]
    assert found(model("g (float[t, b, 2, 5] x) => (y) <int64[3] s = {7, -1, 10}> { y = Reshape(x, s) }")) == [
        ("x", 0, 7, 7, "Reshape", False)
    ]


def test_sizes_that_are_free() -> None:
    for text in (
        "g (float[b, 3, h, w] x) => (y) <int64[3] s = {0, 3, -1}> { y = Reshape(x, s) }",
        "g (float[b, t, 16] x) => (y) <int64[4] s = {0, -1, 2, 8}> { y = Reshape(x, s) }",
        "g (float[b, t, 2, 8] x) => (y) <int64[2] s = {-1, 16}> { y = Reshape(x, s) }",
        "g (float[b, t, 2, 8] x) => (y) <int64[3] s = {0, -1, 16}> { y = Reshape(x, s) }",
        "g (float[t, b, 2, 8] x) => (y) <int64[3] s = {0, 0, 16}> { y = Reshape(x, s) }",
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


SHAPE = "s = Shape(x) n = Gather(s, i0) h = Gather(s, i1)"
ONE = "int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] eight = {8}"

NEVER = {
    "reshape by a copy": ("[N, 8, 16]", "int64[3] t = {0, 6, 16}", "y = Reshape(x, t)", "128*N elements to 96*N"),
    "reshape with the rest": (
        "[N, 4, 8]",
        "int64[3] t = {0, 5, -1}",
        "y = Reshape(x, t)",
        "32*N elements to a multiple of 5*N",
    ),
    "reshape to more": (
        "[N, H, 8]",
        ONE,
        f"{SHAPE} m = Add(h, i1) t = Concat<axis = 0>(n, m, eight) y = Reshape(x, t)",
        "8*N",
    ),
    "matrices": (
        "[N, H, H]",
        ONE + ", int64[1] end = {9223372036854775807}",
        "z = Slice(x, i1, end, i1) y = MatMul(x, z)",
        "sizes H and H - 1",
    ),
    "state": (
        "[H, N, 4]",
        ONE,
        f"{SHAPE} m = Add(h, i1) t = Concat<axis = 0>(i1, m, eight) z = ConstantOfShape(t) "
        "y, last = RNN<hidden_size = 8>(x, w, r, , , z)",
        "sizes N and N + 1",
    ),
    "padded and joined": (
        "[N, H, 8]",
        "int64[6] more = {0, 1, 0, 0, 0, 0}",
        "z = Pad(x, more) y = Concat<axis = 2>(x, z)",
        "sizes H and H + 1",
    ),
}
"""Shape of x, constants, nodes, and what is said of sizes that differ whatever the inputs are."""

SOMETIMES = {
    "a third of the batches": ("[N, 8, 16]", "int64[3] t = {-1, 6, 16}", "y = Reshape(x, t)"),
    "a slice without elements is left out": (
        "[N, H, 8]",
        ONE + ", int64[1] end = {9223372036854775807}",
        "z = Slice(x, i1, end, i1) y = Concat<axis = 2>(x, z)",
    ),
    "a size of 1 is repeated": (
        "[N, H, 8]",
        ONE + ", int64[1] end = {9223372036854775807}",
        "z = Slice(x, i1, end, i1) y = Add(x, z)",
    ),
}


def demanded_of(shape: str, constants: str, body: str, *, allow_empty: bool = False) -> list[str]:
    weights = f"float[1, 8, 4] w = {{{', '.join('1' * 32)}}}, float[1, 8, 8] r = {{{', '.join('1' * 64)}}}"
    proto = model(f"g (float{shape} x) => (y) <{constants}, {weights}> {{ {body} }}")
    return [described(one) for one in impossible_demands(make_view(Model("m.onnx", proto, 0), allow_empty=allow_empty))]


@pytest.mark.parametrize("name", NEVER)
def test_sizes_that_never_agree_are_impossible(name: str) -> None:
    *parts, says = NEVER[name]
    (said,) = demanded_of(*parts)
    assert says in said
    weights = f"float[1, 8, 4] w = {{{', '.join('1' * 32)}}}, float[1, 8, 8] r = {{{', '.join('1' * 64)}}}"
    proto = model(f"g (float{parts[0]} x) => (y) <{parts[1]}, {weights}> {{ {parts[2]} }}")
    proto.graph.output[0].type.tensor_type.elem_type = 1
    for n, h in itertools.product((1, 2, 3), (1, 2, 5)):
        dims = [{"N": n, "H": h}.get(dim, dim) for dim in parts[0].strip("[]").split(", ")]
        with pytest.raises((Fail, InvalidArgument, RuntimeException)):
            zoo.session(proto).run(None, {"x": np.ones([int(dim) for dim in dims], np.float32)})


def test_an_empty_batch_may_satisfy_what_no_other_does() -> None:
    parts = NEVER["reshape by a copy"][:3]
    assert demanded_of(*parts)
    assert not demanded_of(*parts, allow_empty=True)


@pytest.mark.parametrize("name", SOMETIMES)
def test_sizes_that_sometimes_agree_are_not_impossible(name: str) -> None:
    assert not demanded_of(*SOMETIMES[name])


BEYOND = {
    "ArgMax": "i = ArgMax <axis = {axis}> (x) y = Cast <to = 1> (i)",
    "ArgMin": "i = ArgMin <axis = {axis}> (x) y = Cast <to = 1> (i)",
    "Concat": "y = Concat <axis = {axis}> (x, x)",
    "Gather": "y = Gather <axis = {axis}> (x, i0)",
    "GatherElements": "y = GatherElements <axis = {axis}> (x, i2)",
    "ScatterElements": "y = ScatterElements <axis = {axis}> (x, i2, x2)",
    "Split": "y, z = Split <axis = {axis}> (x)",
    "TopK": "y, i = TopK <axis = {axis}> (x, i1)",
}


@pytest.mark.parametrize("axis", [2, -3, 2**40])
@pytest.mark.parametrize("op", BEYOND)
def test_an_axis_that_is_not_there_is_impossible(op: str, axis: int) -> None:
    constants = "int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1, 1] i2 = {0}, float[1, 1] x2 = {0}"
    proto = model(f"g (float[N, 4] x) => (float[A, B] y) <{constants}> {{ {BEYOND[op].format(axis=axis)} }}")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    said = [described(one) for one in impossible_demands(make_view(Model("m.onnx", proto, 0)))]
    assert [text.rpartition(": ")[2] for text in said] == [f"axis {axis} is not one of 2"]
    for n in (0, 1, 2):
        with pytest.raises((Fail, InvalidArgument, InvalidGraph, RuntimeException)):
            zoo.session(proto).run(None, {"x": np.ones((n, 4), np.float32)})


NEGATIVE = {
    "ConstantOfShape": ("z = Neg (b) c = ConstantOfShape (z) y = Add (x, c)", [3, 1], -3),
    "Expand": ("z = Neg (b) e = Expand (x, z) y = Relu (e)", [2], -2),
    "OneHot": ("i = ArgMax <axis = 1, keepdims = 0> (x) z = Neg (b) y = OneHot (i, z, v)", [3], -3),
    "Pad": ("z = Neg (b) y = Pad (x, z)", [0, 5, 0, 0], -1),
    "Reshape": ("z = Neg (b) y = Reshape (x, z)", [2, -2], -2),
    "Reshape twice": ("z = Neg (b) y = Reshape (x, z)", [1, 1], -1),
    "Resize": ('z = Neg (b) y = Resize <mode = "nearest"> (x, , , z)', [-2, 4], -4),
    "Split": ("z = Neg (b) y, rest = Split <axis = 1> (x, z)", [-5, 1], -1),
    "Tile": ("z = Neg (b) y = Tile (x, z)", [-1, 2], -2),
    "TopK": ("z = Neg (b) y, i = TopK <axis = 1> (x, z)", [1], -1),
}


@pytest.mark.parametrize("rows", ["N", "2"])
@pytest.mark.parametrize("op", NEGATIVE)
def test_sizes_below_zero_are_impossible(op: str, rows: str) -> None:
    body, numbers, size = NEGATIVE[op]
    text = f"""<ir_version: 8, opset_import: ["": 17]> g (float[{rows},4] x) => (float[A,B] y)
        <int64[{len(numbers)}] b = {{{", ".join(map(str, numbers))}}}, float[2] v = {{0, 1}}> {{ {body} }}"""
    proto = parse(text)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    demanded = list(impossible_demands(make_view(Model("m.onnx", proto, 0))))
    assert [demand.node.op for demand in demanded] == op.split()[:1]
    assert described(demanded[0]).endswith(f"cannot make a size of {size}")
    with pytest.raises((Fail, InvalidArgument, RuntimeException)):
        zoo.session(proto).run(None, {"x": np.ones((2, 4), np.float32)})
