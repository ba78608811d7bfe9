"""The batch axis: where it is, and that it is given up where it is not certain."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from fixtures import pitfalls
from onnxlint.model.skeleton import open_model
from onnxlint.symbolic.batch import batch_axis, input_batch_axes
from onnxlint.symbolic.view import make_view
from tests.support.zoo import RETINAFACE, exposed, parse, session, view


def batch_of(body: str, name: str = "y", opset: int = 17) -> int | None:
    held = view(parse(f'<ir_version: 8, opset_import: ["": {opset}]>\nnet {body}'))
    return batch_axis(held.main, name)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [("1,3,8,8", 0), ("N,3,H,W", 0), ("7,3,8,8", 0), ("N,C", 0), ("1,10", 0), ("10,3", None), ("N", None), ("", None)],
)
def test_of_inputs(shape: str, axis: int | None) -> None:
    held = view(parse(f"net (float[{shape}] x) => (float[] y) {{ y = ReduceSum <keepdims=0> (x) }}"))
    assert input_batch_axes(held.main).get("x") == axis


@pytest.mark.parametrize(
    ("inputs", "axes"),
    [
        ("float[t, b, 8] x, float[1, b, 16] h", {"x": 1, "h": 1}),
        ("float[1, t, 8] x, float[1, t] m", {"x": 0, "m": 0}),
        ("float[b, t, 8] x, float[b, t] m", {"x": 0, "m": 0}),
        ("float[b, 3, H, W] x, float[b, 4] m", {"x": 0, "m": 0}),
        ("float[n, 3, H, W] x, float[m, 3, H, V] z", {"x": 0, "z": 0}),
        ("float[t, None, 8] x, float[1, None, 16] h", {"x": 0, "h": 0}),
    ],
)
def test_of_inputs_that_share_a_symbol(inputs: str, axes: dict[str, int]) -> None:
    held = view(parse(f"net ({inputs}) => (y) {{ y = Relu (x) }}"))
    assert input_batch_axes(held.main) == axes


@pytest.mark.parametrize(
    ("before", "axis", "layout", "after"),
    [
        ("Identity (x)", 1, 0, 2),
        ("Transpose <perm = [1, 0, 2]> (x)", 0, 0, 2),
        ("Identity (x)", 0, 1, 0),
    ],
)
def test_of_what_a_recurrent_operator_reads(before: str, axis: int, layout: int, after: int) -> None:
    source = "x" if before.startswith("Identity") else "t"
    held = view(
        parse(
            "net (float[p, q, 8] x, float[1, 12, 8] w, float[1, 12, 4] r) => (y)"
            f" {{ t = {before} y, h = GRU <hidden_size = 4, layout = {layout}> ({source}, w, r) z = Relu (h) }}"
        )
    )
    assert input_batch_axes(held.main)["x"] == axis
    assert batch_axis(held.main, "y") == after
    assert batch_axis(held.main, "z") == (0 if layout else 1)


@pytest.mark.parametrize(
    ("expression", "axis"),
    [
        ("Relu (x)", 0),
        ("Transpose <perm = [1, 0, 2, 3]> (x)", 1),
        ("Transpose (x)", 3),
        ("Transpose <perm = [0, 2, 3, 1]> (x)", 0),
        ("Flatten (x)", 0),
        ("Flatten <axis = 2> (x)", None),
        ("Unsqueeze (x, zero)", 1),
        ("Unsqueeze (x, one)", 0),
        ("Gather <axis = 0> (x, zero)", None),
        ("Gather <axis = 1> (x, zero)", 0),
        ("Slice (x, zero, one, one)", 0),
        ("Slice (x, zero, one, zero)", None),
        ("Concat <axis = 1> (x, x)", 0),
        ("Concat <axis = 0> (x, x)", None),
        ("Concat <axis = -4> (x, x)", None),
        ("Softmax <axis = 1> (x)", 0),
        ("Softmax <axis = 0> (x)", None),
        ("Softmax <axis = -4> (x)", None),
        ("ReduceMean <axes = [2, 3], keepdims = 0> (x)", 0),
        ("ReduceMean <axes = [0]> (x)", None),
        ("ReduceMean <axes = [-4]> (x)", None),
        ("ReduceMean (x)", None),
        ("ArgMax <axis = 1> (x)", 0),
        ("ArgMax (x)", None),
        ("Tile (x, twice)", None),
        ("Tile (x, wider)", 0),
        ("Add (x, x)", 0),
        ("NonZero (x)", None),
        ("Reshape (x, keep)", 0),
        ("Reshape (x, spills)", None),
        ("Reshape (x, free)", 0),
    ],
)
def test_through_operators(expression: str, axis: int | None) -> None:
    body = f"""(float[N,3,4,4] x) => (float[a,b,c,d] y)
    <int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[4] twice = {{2,1,1,1}}, int64[4] wider = {{1,2,1,1}},
     int64[2] keep = {{0,-1}}, int64[3] spills = {{-1,3,4}}, int64[2] free = {{-1,48}}> {{ y = {expression} }}"""
    assert batch_of(body) == axis


def test_broadcasting_lines_axes_up() -> None:
    assert batch_of("(float[N,3] x, float[5,1,3] w) => (float[a,b,c] y) { y = Add (x, w) }") == 1
    assert batch_of("(float[N,3,4,4] x, float[K,3,4] z) => (float[a,b,c,d] y) { y = Add (x, z) }") is None


def test_softmax_of_old_opsets_takes_all_axes_from_its_own_on() -> None:
    body = "(float[N,3,4] x) => (float[a,b,c] y) { t = Transpose <perm=[1,2,0]> (x) y = Softmax (t) }"
    assert batch_of(body, opset=11) is None
    assert batch_of(body, opset=13) is None, "the last axis"
    assert batch_of(body.replace("[1,2,0]", "[1,0,2]"), opset=11) is None
    assert batch_of(body.replace("[1,2,0]", "[1,0,2]"), opset=13) == 1


def test_what_is_mixed_with_itself_is_no_batch() -> None:
    """A set of D things that attend to one another, as in a real model: scores [K, D, D] and a mask of [K, 1, D]."""
    body = """(float[D,K,8] z, float[D,K] m) => (float[a,b,c] y) <int64[1] one = {1}> {
        q = Transpose <perm = [1, 0, 2]> (z)
        k = Transpose <perm = [1, 2, 0]> (z)
        scores = MatMul (q, k)
        t = Transpose (m)
        mask = Unsqueeze (t, one)
        y = Add (scores, mask)
    }"""
    assert batch_of(body, "q") == 1
    assert batch_of(body, "mask") == 2
    assert batch_of(body) is None


def test_inside_a_branch_the_outer_values_have_theirs() -> None:
    held = view(
        parse("""net (float[N,3] x, bool c) => (float[N,3] y) {
            y = If (c) <
                then_branch = a () => (float[N,3] p) { p = Neg (x) },
                else_branch = b () => (float[N,3] q) { q = Abs (x) }
            >
        }""")
    )
    inner = held.graphs[1]
    assert batch_axis(inner, "x") == 0
    assert batch_axis(inner, "p") == 0


def test_attributes_of_another_type_lose_the_batch_and_nothing_else() -> None:
    proto = parse("net (float[N,3,4,4] x) => (float[N,4,4,3] y) { t = Transpose <perm=[0,2,3,1]> (x) y = Relu (t) }")
    proto.graph.node[0].attribute[0].CopyFrom(onnx.helper.make_attribute("perm", "text"))
    held = view(proto)
    assert batch_axis(held.main, "y") is None
    assert batch_axis(held.main, "x") == 0


@pytest.mark.parametrize("name", ["pitfalls_safe", "original_op17_dyn"])
def test_against_runs(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Run with batch 2 and 5: each axis that is called the batch has these sizes."""
    if name == "pitfalls_safe":
        folder = tmp_path_factory.mktemp("pitfalls")
        pitfalls.build(folder)
    else:
        folder = RETINAFACE
    path = folder / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    held = make_view(open_model(path))
    runner = session(exposed(onnx.load(path)))
    names = [output.name for output in runner.get_outputs()]
    found = 0
    for batch in (2, 5):
        image = np.zeros((batch, 3, 64, 96), np.float32)
        for value, array in zip(names, runner.run(names, {held.main.data_inputs[0]: image}), strict=True):
            axis = batch_axis(held.main, value)
            if axis is not None:
                assert array.shape[axis] == batch, value
                found += 1
    assert found > 100


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize(
    ("before", "turned"),
    [
        ("z = Relu (x)", False),
        ("t = Transpose <perm = [1, 0, 2]> (x) z = Relu (t)", True),
        ("t = MatMul (x, m) u = Neg (t) z = Transpose <perm = [1, 0, 2]> (u)", True),
        ("s = Transpose <perm = [1, 0, 2]> (x) t = Relu (s) z = Transpose <perm = [1, 0, 2]> (t)", False),
    ],
)
@pytest.mark.parametrize("shape", ["1,5,4", "5,1,4", "1,1,4"])
def test_recurrent_operators_say_where_the_batch_of_what_they_read_is(
    shape: str, before: str, turned: bool, layout: int
) -> None:
    held = view(
        parse(
            f"""<ir_version: 8, opset_import: ["": 17]> net (float[{shape}] x, float[1,1,4] h) => (float[A,B,C,D] y)
            <float[4,4] m, float[1,12,4] w, float[1,12,4] r> {{ {before} i = Neg (h)
            y, last = GRU <hidden_size = 4, layout = {layout}> (z, w, r, "", "", i) }}"""
        )
    )
    axes = input_batch_axes(held.main)
    assert axes["x"] == (layout == 0) ^ turned
    assert axes["h"] == (layout == 0)


def test_bodies_of_an_if_are_followed() -> None:
    held = view(
        parse(
            """<ir_version: 8, opset_import: ["": 17]> net (float[N,6,2] x, bool c) => (float[A,B,C] y, float[D,E,F] z) {
            a = Neg (x)
            y = If (c) <then_branch = th () => (float[G,H,I] p) { q = Relu (a) p = Neg (q) },
                        else_branch = el () => (float[J,K,L] r) { r = Relu (x) }>
            z = If (c) <then_branch = th2 () => (float[M,O,P] s) { s = Relu (y) },
                        else_branch = el2 () => (float[Q,R,S] t) { t = Transpose <perm = [1, 0, 2]> (y) }> }"""
        )
    )
    inner = {
        name: batch_axis(graph, name) for graph in held.graphs for name in ("q", "p", "r", "s", "t") if graph.owns(name)
    }
    assert inner == {"q": 0, "p": 0, "r": 0, "s": 0, "t": 1}
    assert batch_axis(held.main, "y") == 0
    assert batch_axis(held.main, "z") is None
