"""Nodes whose sizes are disputed: in nested graphs and functions, and used against their specification."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxlint.graph.disputed import place_of
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.inference import exact_sizes
from tests.support import zoo
from tests.support.fixing import fix

ODD = [5, -7, 1.5, [float("nan")], "odd", [1.5], ["a"], [], [0], [2**62] * 3, [1] * 70]


@pytest.mark.parametrize("inputs", [["x"], [""], []])
@pytest.mark.parametrize(
    ("op", "attribute", "given"),
    [
        ("MaxPool", "dilations", {"auto_pad": "SAME_UPPER", "kernel_shape": [2]}),
        ("AveragePool", "kernel_shape", {"ceil_mode": 1}),
        ("LpPool", "strides", {"ceil_mode": 1, "kernel_shape": [3]}),
        ("MaxPool", "pads", {"ceil_mode": 1, "kernel_shape": [3]}),
        ("MaxPool", "auto_pad", {"dilations": [2], "kernel_shape": [3]}),
        ("ConvTranspose", "output_shape", {}),
        ("Resize", "axes", {"keep_aspect_ratio_policy": "not_larger"}),
        ("Resize", "keep_aspect_ratio_policy", {"axes": [-1]}),
        ("Einsum", "equation", {}),
    ],
)
def test_attributes_of_other_types_are_no_exception(
    op: str, attribute: str, given: dict[str, Any], inputs: list[str]
) -> None:
    for value in ODD:
        node = helper.make_node(op, inputs, ["y"], **given)
        if value == []:
            node.attribute.add(name=attribute, type=7)
        else:
            node.attribute.append(helper.make_attribute(attribute, value))
        image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1])
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph([node], "g", [image], [result])
        view = zoo.view(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)]))
        view.main.shape("y")


KERNEL = {"w": np.ones((1, 1, 3, 3), np.float32)}
BACKWARDS = {"a": np.array([-1]), "b": np.array([2**31 - 1]), "ax": np.array([3]), "st": np.array([-1])}
DISPUTED: dict[str, tuple[str, list[int], dict[str, Any]]] = {
    "dilated": (
        'MaxPool <kernel_shape = [3, 3], dilations = [2, 2], strides = [2, 2], auto_pad = "SAME_UPPER"> (x)',
        [1, 1, 9, 9],
        {},
    ),
    "last window": (
        "AveragePool <kernel_shape = [2, 2], strides = [2, 2], pads = [1, 1, 1, 1], ceil_mode = 1> (x)",
        [1, 1, 5, 5],
        {},
    ),
    "output shape": ("ConvTranspose <strides = [2, 2], output_shape = [9, 9]> (x, w)", [1, 1, 5, 5], KERNEL),
    "backwards": ("Slice (x, a, b, ax, st)", [1, 1, 5, 5], BACKWARDS),
    "einsum": (
        'Einsum <equation = "abij,abij->abij"> (x, w)',
        [1, 1, 1, 5],
        {"w": np.ones((1, 1, 3, 5), np.float32)},
    ),
    "rounding": ('Resize <mode = "nearest"> (x, , w)', [1, 1, 10, 30], {"w": np.array([1, 1, 0.7, 0.9], np.float32)}),
}
"""What makes a map, the sizes of its input, constants."""

SIZES = "n = Flatten <axis = 0> (p) s = Shape (n) f = Cast <to = 1> (s)"
PLACES = {
    "If": """(float[SHAPE] x, bool c) => (float[A] y) { y = If (c) <
        then_branch = t () => (float[A] f) { p = EXPR SIZES },
        else_branch = e () => (float[A] g) { g = Constant <value = float[2] {1, 1}> () }> }""",
    "Loop": """(float[SHAPE] x, bool c, int64 count, float[2] none) => (float[A] y) { y = Loop (count, c, none) <
        body = b (int64 i, bool on, float[A] h) => (bool go, float[A] f) { go = Identity (on) p = EXPR SIZES }> }""",
    "function": """(float[SHAPE] x) => (float[A] f) { p = local.fn (ARGS) SIZES }
        <domain: "local", opset_import: ["": 19]> fn (ARGS) => (p) { p = EXPR }""",
    "nested": """(float[SHAPE] x, bool c) => (float[A] y) { y = If (c) <
        then_branch = t () => (float[A] v) { v = If (c) <
            then_branch = u () => (float[A] f) { p = EXPR SIZES },
            else_branch = d () => (float[A] h) { h = Constant <value = float[2] {2, 2}> () }> },
        else_branch = e () => (float[A] g) { g = Constant <value = float[2] {1, 1}> () }> }""",
    "If in a function": """(float[SHAPE] x, bool c) => (float[A] f) { s = local.fn (c, ARGS) f = Cast <to = 1> (s) }
        <domain: "local", opset_import: ["": 19]> fn (c, ARGS) => (s) { s = If (c) <
            then_branch = t () => (int64[A] m) { r = Relu (x) p = EXPR n = Flatten <axis = 0> (p) m = Shape (n) },
            else_branch = e () => (int64[A] h) { h = Constant <value = int64[2] {1, 1}> () }> }""",
}


def disputed(place: str, what: str) -> onnx.ModelProto:
    expression, dims, constants = DISPUTED[what]
    text = PLACES[place].replace("SIZES", SIZES).replace("EXPR", expression)
    text = text.replace("ARGS", ", ".join(["x", *constants])).replace("SHAPE", ", ".join(map(str, dims)))
    model = zoo.parse(f'<ir_version: 8, opset_import: ["": 19, "local": 1]> g {text}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return model


@pytest.mark.parametrize("what", DISPUTED)
@pytest.mark.parametrize("place", PLACES)
def test_sizes_in_nested_graphs_and_functions_are_those_of_onnxruntime(place: str, what: str) -> None:
    pytest.importorskip("onnxruntime")
    model = disputed(place, what)
    fixed, _ = fix(Model("m.onnx", model, 0))
    image = np.random.default_rng(0).standard_normal(DISPUTED[what][1]).astype(np.float32)
    own = {"c": np.array(True), "count": np.array(1), "none": np.zeros(2, np.float32), "x": image}
    feeds = {value.name: own[value.name] for value in model.graph.input}
    wanted = zoo.session(model).run(None, feeds)
    np.testing.assert_array_equal(zoo.session(fixed).run(None, feeds), wanted)


def test_what_is_not_disputed_keeps_its_sizes_beside_it() -> None:
    view = zoo.view(
        """<ir_version: 8, opset_import: ["": 19, "local": 1]>
        g (float[1,1,9,9] x, bool c) => (float[A,B,C,D] y, float[A,B,C,D] r) {
            y = If (c) <
                then_branch = t () => (float[A,B,C,D] a) { h = Relu (x) d = Slice (h, s, e, i, j) a = Relu (d) },
                else_branch = e () => (float[A,B,C,D] b) { b = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (x) }>
            m = local.fn (x)
            r = MaxPool <kernel_shape = [3, 3], strides = [2, 2]> (m)
        }
        <domain: "local", opset_import: ["": 19]>
        fn (x) => (y) { d = MaxPool <kernel_shape = [3, 3], ceil_mode = 1> (x) v = Relu (d) y = Relu (x) }"""
    )
    branch = next(graph for graph in view.graphs if graph.path.endswith("else_branch"))
    assert view.onnx_inferred(branch, "b")[1] == (1, 1, 4, 4)
    assert view.onnx_inferred(view.main, "r")[1] == (1, 1, 4, 4)
    assert exact_sizes(view).shape(branch, "b") == (1, 1, 4, 4)
    inner = next(node for node in view.nodes("MaxPool") if node.output() == "d")
    assert place_of(inner) == (0, (), 0)
    assert place_of(next(iter(branch.nodes))) == (0, ((0, "else_branch"),), None)


def held(shape: str, *values: float) -> str:
    return f"Constant <value = {shape} {{{', '.join(map(str, values))}}}> ()"


KERNEL_TEXT = f"w = {held('float[1,1,2,2]', 1, 1, 1, 1)}"
OLD = [
    (7, "1,1,10,10", 'y = Upsample <mode = "nearest", scales = [1.0, 1.0, 1.3, 1.3]> (x)'),
    (9, "1,1,10,10", f'{KERNEL_TEXT} s = {held("float[4]", 1, 1, 1.3, 1.3)} y = Upsample <mode = "nearest"> (x, s)'),
    *(
        (
            opset,
            "1,1,3,3",
            f'{KERNEL_TEXT} y = ConvTranspose <auto_pad = "SAME_UPPER", output_padding = [1, 1], strides = [2, 2]> (x, w)',
        )
        for opset in (7, 8, 9, 10)
    ),
    (10, "1,1,4", "y = MaxPool <kernel_shape = [2], strides = [3], pads = [1, 1], ceil_mode = 1> (x)"),
    (10, "1,1,9,9", 'y = MaxPool <kernel_shape = [3, 3], dilations = [2, 2], auto_pad = "SAME_UPPER"> (x)'),
    (10, "1,1,10,10", f's = {held("float[4]", 1, 1, 0.7, 0.7)} y = Resize <mode = "nearest"> (x, s)'),
    (
        10,
        "2,4",
        f"s = {held('int64[1]', -1)} e = {held('int64[1]', 2**31 - 1)} a = {held('int64[1]', 1)} y = Slice (x, s, e, a, s)",
    ),
]


@pytest.mark.parametrize("place", ["graph", "function"])
@pytest.mark.parametrize(("opset", "shape", "nodes"), OLD, ids=[f"{opset}: {nodes[-60:]}" for opset, _, nodes in OLD])
def test_sizes_of_old_operator_sets_are_those_of_onnxruntime(opset: int, shape: str, nodes: str, place: str) -> None:
    pytest.importorskip("onnxruntime")
    inner = nodes if place == "graph" else "y = local.fn (x)"
    function = f'<domain: "local", opset_import: ["": {opset}]> fn (x) => (y) {{ {nodes} }}' * (place == "function")
    model = zoo.parse(
        f'<ir_version: 8, opset_import: ["": {opset}, "local": 1]> g (float[{shape}] x) => (float[] z, int64[] said) '
        f"{{ {inner} z = Neg (y) said = Shape (z) }} {function}"
    )
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    fixed, _ = fix(Model("m.onnx", model, 0), select=("GRF", "SHP"))
    z, said = zoo.session(model).run(None, {"x": np.ones([int(n) for n in shape.split(",")], np.float32)})
    assert z.shape == tuple(said)
    assert zoo.session(fixed).run(["said"], {"x": np.ones([int(n) for n in shape.split(",")], np.float32)})[
        0
    ].tolist() == [*z.shape]
