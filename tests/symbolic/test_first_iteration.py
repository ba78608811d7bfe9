"""Free sizes that loops carry into their bodies, against what onnxruntime runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from onnxlint.model.skeleton import Model
from onnxlint.symbolic.constraints import baked_sizes
from onnxlint.symbolic.demands import impossible_demands
from onnxlint.symbolic.inference import exact_sizes
from onnxlint.symbolic.view import make_view
from tests.support import zoo
from tests.symbolic.test_constraints import found, model

SIZES = range(1, 13)
REFUSED = (RuntimeException, InvalidArgument, Fail)


def loop(
    body: str,
    trips: str = "int64 n = {2}",
    condition: str = "bool c = {1}",
    declared: str = "float[1, 3, p, q]",
    inputs: str = "",
) -> str:
    """A Loop whose state `a` begins as x and becomes `o`; `k` is a weight."""
    constants = ", ".join(one for one in (trips, condition) if one)
    return (
        f"g (float[1, 3, h, 6] x{inputs}) => (y) <{constants}> {{ y = Loop(n, c, x) <body = l"
        f" (int64 i, bool b, {declared} a) => (bool d, {declared} o) {{ d = Identity(b) {body} }}> }}"
    )


def scan(body: str, start: str = "x", slices: str = "s", attributes: str = "") -> str:
    """A Scan whose state `a` begins as `start`, over slices `b`."""
    return (
        f"Scan<num_scan_inputs = 1{attributes}, body = l (float[?] a, float[?] b) => (float[?] o, float[?] e)"
        f" {{ {body} }}>({start}, {slices})"
    )


def nested(inner: str, trips: str) -> str:
    """A Loop in a Loop that runs once."""
    return loop(
        f"o = Loop({trips}, c, a) <body = m (int64 j, bool f, float[1, 3, p, q] u) => (bool g, float[1, 3, p, q] v)"
        f" {{ g = Identity(f) {inner} }}>",
        "int64 n = {1}",
    )


def runs_at(text: str, **weights: tuple[int, ...]) -> set[int]:
    """Sizes `h` for which onnxruntime runs a model; of other inputs, numbers are 0 and sizes 3."""
    session = zoo.session(model(text, 17, **weights))
    works = set()
    for size in SIZES:
        feeds: dict[str, Any] = {}
        for one in session.get_inputs():
            dims = [size if dim == "h" else 3 if isinstance(dim, str) else dim for dim in one.shape]
            kind = {"tensor(int64)": np.int64, "tensor(bool)": np.bool_}.get(one.type, np.float32)
            feeds[one.name] = np.zeros(dims, kind)
        try:
            session.run(None, feeds)
        except REFUSED:
            continue
        works.add(size)
    return works


REQUIRED = {
    "weight": (loop("o = Add(a, k)"), (1, 3, 6, 6)),
    "second node": (loop("r = Relu(a) o = Add(r, k)"), (1, 3, 6, 6)),
    "no condition": (loop("o = Add(a, k)", condition="").replace("(n, c, x)", "(n, , x)"), (1, 3, 6, 6)),
    "unknown sizes declared": (loop("o = Add(a, k)", declared="float[1, 3, ?, ?]"), (1, 3, 6, 6)),
    "reshape": (
        loop("t = Reshape(a, s) o = Reshape(t, z)", "int64 n = {1}, int64[2] s = {3, 36}, int64[4] z = {1, 3, 6, 6}"),
        (),
    ),
    "loop in a loop": (nested("v = Add(u, k)", "n"), (1, 3, 6, 6)),
    "second state": (
        "g (float[h] x, float[6] u) => (y) <int64 n = {2}, bool c = {1}> { y, w = Loop(n, c, u, x) <"
        "body = l (int64 i, bool b, float[p] a, float[q] s) => (bool d, float[p] o, float[q] t)"
        " { d = Identity(b) o = Relu(a) t = Add(s, k) }> }",
        (6,),
    ),
    "state of a Scan": (
        f"g (float[h] x, float[4, 2] s) => (y, z) {{ y, z = {scan('o = MatMul(a, k) e = Identity(b)')} }}",
        (6, 6),
    ),
    "state of a Scan that is repeated": (
        f"g (float[h] x, float[4, 2] s) => (y, z) {{ y, z = {scan('o = Add(a, k) e = Identity(b)')} }}",
        (6,),
    ),
    "state of a Scan that is another": (
        f"g (float[h] x, float[4, 2] s) => (y, z) {{ y, z = {scan('o = Identity(k) e = Identity(b)')} }}",
        (6,),
    ),
    "state of a Scan that runs once": (
        f"g (float[h] x, float[1, 2] s) => (y, z) {{ y, z = {scan('o = Add(a, k) e = Identity(b)')} }}",
        (6,),
    ),
    "state of a Scan that is read": (
        f"g (float[h] x, float[4, 2] s) => (y, z) {{ y, z = {scan('o = Identity(a) e = Add(a, k)')} }}",
        (6,),
    ),
    "slice of a Scan": (
        f"g (float[4, h] x, float[2] w) => (y, z) {{ y, z = {scan('o = Identity(a) e = MatMul(b, k)', 'w', 'x')} }}",
        (6, 6),
    ),
    "slice along another axis": (
        "g (float[h, 4] x, float[2] w) => (y, z) { y, z = "
        + scan("o = Identity(a) e = MatMul(b, k)", "w", "x", ", scan_input_axes = [-1]")
        + " }",
        (6, 6),
    ),
}


@pytest.mark.parametrize("name", REQUIRED)
def test_a_size_that_the_first_iteration_requires(name: str) -> None:
    text, weight = REQUIRED[name]
    weights = {"k": weight} if weight else {}
    proto = model(text, 17, **weights)
    (one,) = baked_sizes(make_view(Model("m.onnx", proto, 0)))
    assert (one.input, one.smallest, one.largest, one.fails) == ("x", 6, 6, True)
    assert runs_at(text, **weights) == {6, one.other} - {0}


def test_states_of_a_scan_that_cannot_keep_their_size() -> None:
    text = f"g (float[3] x, float[4, 2] s) => (y, z) {{ y, z = {scan('o = Identity(k) e = Identity(b)')} }}"
    with pytest.raises(REFUSED):
        zoo.session(model(text, 17, k=(6,))).run(
            None, {"x": np.zeros(3, np.float32), "s": np.zeros((4, 2), np.float32)}
        )
    (demand,) = impossible_demands(make_view(Model("m.onnx", model(text, k=(6,)), 0)))
    assert (demand.node.op, demand.left, demand.right) == ("Scan", 3, 6)


FREE = {
    "no iteration": (loop("o = Add(a, k)", "int64 n = {0}"), (1, 3, 6, 6)),
    "condition false": (loop("o = Add(a, k)", condition="bool c = {0}"), (1, 3, 6, 6)),
    "iterations unknown": (loop("o = Add(a, k)", "", inputs=", int64 n"), (1, 3, 6, 6)),
    "condition unknown": (loop("o = Add(a, k)", condition="", inputs=", bool c"), (1, 3, 6, 6)),
    "no demand": (loop("o = Relu(a)"), ()),
    "other sizes declared": (
        "g (float[1, 3, h, 6] x) => (y, z) <int64 n = {2}, bool c = {1}> { y, z = Loop(n, c, x) <body = l"
        " (int64 i, bool b, float[1, 3, 7, 7] a) => (bool d, float[1, 3, 7, 7] o, float[?, ?, ?, ?] e)"
        " { d = Identity(b) o = Relu(a) e = Add(o, a) }> }",
        (),
    ),
    "grows": (loop("o = Concat<axis = 2>(a, a)", declared="float[1, 3, ?, 6]"), ()),
    "iterations of the loop outside": (nested("v = Add(u, k)", "i"), (1, 3, 6, 6)),
    "one branch": (
        loop(
            "w = Cast<to = 9>(i) o = If(w) <then_branch = t () => (float[1, 3, p, q] o1) { o1 = Add(a, k) },"
            " else_branch = e () => (float[1, 3, p, q] o2) { o2 = Relu(a) }>",
            "int64 n = {1}",
        ),
        (1, 3, 6, 6),
    ),
}


@pytest.mark.parametrize("name", FREE)
def test_a_size_that_is_not_required(name: str) -> None:
    text, weight = FREE[name]
    weights = {"k": weight} if weight else {}
    assert runs_at(text, **weights) == set(SIZES)
    assert found(model(text, 17, **weights)) == []


def test_a_number_of_iterations_that_a_caller_may_replace_requires_nothing() -> None:
    text = loop("o = Add(a, k)", "", inputs=", int64 n")
    proto = model(text, k=(1, 3, 6, 6))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(2, np.int64), "n"))
    assert found(proto) == []


def test_a_scan_whose_length_data_decide_requires_nothing() -> None:
    body = scan("o = MatMul(a, k) e = Identity(b)", slices="t")
    text = (
        f"g (float[h] x, float[m] s) => (y, z) {{ n = NonZero(s) f = Cast<to = 1>(n) t = Transpose(f) y, z = {body} }}"
    )
    assert found(model(text, k=(6, 6))) == []
    assert found(model(text.replace("t = Transpose(f)", "t = Identity(w)"), k=(6, 6), w=(4, 2))) != []


def test_sizes_after_a_loop_are_not_those_of_its_first_iteration() -> None:
    text = loop("o = Concat<axis = 2>(a, a)", declared="float[1, 3, ?, 6]").replace("y = Loop", "v = Loop")
    text = text.removesuffix(" }") + " y = Add(v, k) }"
    assert runs_at(text, k=(1, 3, 12, 6)) == {3}
    assert found(model(text, k=(1, 3, 12, 6))) == []


def test_proofs_do_not_rest_on_the_first_iteration() -> None:
    view = make_view(Model("m.onnx", model(loop("o = Concat<axis = 2>(a, a)", declared="float[1, 3, ?, 6]")), 0))
    assert baked_sizes(view) == []
    (body,) = (graph for graph in view.graphs if graph.parent is not None)
    sizes = exact_sizes(view).shape(body, "a")
    assert sizes is not None
    assert "h" not in str(sizes[2])


def test_a_first_iteration_that_no_input_runs() -> None:
    text = loop("o = Add(a, k)", declared="float[1, 3, ?, ?]")
    assert runs_at(text, k=(1, 3, 6, 5)) == set()
    (demand,) = impossible_demands(make_view(Model("m.onnx", model(text, k=(1, 3, 6, 5)), 0)))
    assert (demand.left, demand.right) == (6, 5)


@pytest.mark.parametrize(
    "text",
    [
        scan("o = Relu(a) e = Relu(b)", attributes=", scan_input_axes = [5]"),
        scan("o = Relu(a) e = Relu(b)", attributes=', scan_input_axes = ["a"]'),
        scan("o = Relu(a) e = Relu(b)", attributes=", scan_input_axes = 3"),
        scan("o = Relu(a) e = Relu(b)").replace("= 1,", "= 9,"),
        scan("o = Relu(a) e = Relu(b)").replace("= 1,", "= -7,"),
        scan("o = Relu(a) e = Relu(b)").replace("(x, s)", "()"),
        "Loop<body = l (int64 i) => (float[?] o) { o = Relu(i) }>(x)",
        "Loop<body = l (int64 i, bool b, float[?] a, float[?] f) => (float[?] o) { o = Relu(f) }>(, , x)",
    ],
)
def test_operators_used_against_their_specification(text: str) -> None:
    assert found(model(f"g (float[h] x, float[4, 2] s) => (y, z) {{ y, z = {text} }}")) == []
