"""Graphs made to grow: expressions that double from one node to the next cost no more than others."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from onnx.parser import parse_model as parse

from onnxlint.model.skeleton import Model
from onnxlint.symbolic.constraints import baked_sizes
from onnxlint.symbolic.inference import exact_sizes
from onnxlint.symbolic.view import make_view

HEAD = """<ir_version: 8, opset_import: ["": 17]> g (float[a, b, c, d] x) => (y)
    <int64[1] i = {0}, int64[1] j = {1}, int64[1] two = {2}, int64[1] three = {3}, float[1] f = {1.5},
    int64[1] billion = {1000000000}> {
    s = Shape(x)
    v0 = Gather(s, i)
    w0 = Gather(s, j)
    c0 = Cast<to = 1>(v0)
    k0 = Add(three, two)
    p0 = Relu(x)
"""


def chain(count: int, step: str, last: str) -> str:
    """`@` in the step is the number of a node, `#` that of the next."""
    steps = "\n".join(step.replace("#", str(n + 1)).replace("@", str(n)) for n in range(count))
    return f"{HEAD}{steps}\n{last.replace('@', str(count))} }}"


FILL = "y = ConstantOfShape(v@)"
MODELS = {
    "sums": chain(200, "v# = Add(v@, v@)", FILL),
    "squares": chain(200, "v# = Mul(v@, v@)", FILL),
    "products": chain(200, "t# = Add(v@, w0) v# = Mul(t#, v@)", FILL),
    "divisions": chain(200, "t# = Div(v@, two) v# = Add(t#, v@)", FILL),
    "products of divisions": chain(200, "t# = Div(v@, three) u# = Mul(t#, v@) v# = Add(u#, w0)", FILL),
    "sums of divisions": chain(200, "t# = Div(v@, three) u# = Div(v@, two) q# = Add(u#, t#) v# = Add(q#, w0)", FILL),
    "vectors": chain(40, "v# = Concat<axis = 0>(v@, v@)", FILL),
    "fractions": chain(200, "c# = Mul(c@, f)", "z = Cast<to = 7>(c@) y = ConstantOfShape(z)"),
    "squares of numbers": chain(60, "k# = Mul(k@, k@)", "y = ConstantOfShape(k@)"),
    "maps": chain(300, "p# = Concat<axis = 2>(p@, p@)", "f1 = Flatten(p@) y = Relu(f1)"),
    "pools": chain(
        300, "p# = MaxPool<kernel_shape = [3, 3], strides = [2, 2]>(p@)", "z = Shape(p@) y = ConstantOfShape(z)"
    ),
    "pools of maps": chain(
        100,
        "m# = MaxPool<kernel_shape = [3, 3], strides = [2, 1], pads = [1, 1, 1, 1]>(p@) p# = Concat<axis = 2>(m#, p@)",
        "y = Relu(p@)",
    ),
    "expanded constant": chain(1, "v# = Expand(two, billion)", "y = Add(v@, v@)"),
    "tiled constant": chain(1, "v# = Tile(two, billion)", "y = Add(v@, v@)"),
    "range": chain(
        1, "z# = Squeeze(billion) o# = Sub(z#, z#) u# = Squeeze(two) v# = Range(o#, z#, u#)", "y = Add(v@, v@)"
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("read", [exact_sizes, baked_sizes])
def test_what_doubles_is_given_up(name: str, read: Callable[..., object]) -> None:
    view = make_view(Model("m.onnx", parse(MODELS[name]), 0))
    _ = view.main.shape("y")  # onnx's own inference, in a child process
    start = time.process_time()
    read(view)
    assert time.process_time() - start < 2
