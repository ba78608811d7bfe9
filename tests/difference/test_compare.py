"""What differs between two models, on small ones in text and on real ones."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser

from onnxlint.difference.compare import compare_views
from onnxlint.difference.result import Change, ModelDiff
from onnxlint.graph.view import GraphView
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view

DATA = Path(__file__).parents[3] / "shared" / "data" / "retinaface"

HEAD = '<ir_version: 9, opset_import: ["" : 18]>\n'
NET = (
    HEAD
    + """
g (float[N, 8, H, W] x) => (float[N, 8, H, W] y)
{
    a = Conv<pads = [1, 1, 1, 1]> (x, first_weight, first_bias)
    b = Relu (a)
    c = Conv<pads = [1, 1, 1, 1]> (b, second_weight, second_bias)
    d = Relu (c)
    y = Add (d, x)
}"""
)


WEIGHTS = {"first_weight": (8, 8, 3, 3), "first_bias": (8,), "second_weight": (8, 8, 3, 3), "second_bias": (8,)}


def view(model: str | onnx.ModelProto) -> GraphView:
    proto = parser.parse_model(model) if isinstance(model, str) else model
    return make_view(Model("m.onnx", proto, proto.ByteSize()))


def net(text: str = NET, seed: int = 0) -> onnx.ModelProto:
    """The model with random weights."""
    proto = parser.parse_model(text)
    values = np.random.default_rng(seed)
    for name, shape in WEIGHTS.items():
        array = values.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    return proto


def compare(old: str | onnx.ModelProto, new: str | onnx.ModelProto) -> ModelDiff:
    return compare_views(view(old), view(new))


def renumbered(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The same graph as another export writes it: other names of nodes and inner values, another order of weights."""
    generator = random.Random(seed)
    out = onnx.ModelProto()
    out.CopyFrom(model)
    ends = {value.name for value in (*out.graph.input, *out.graph.output)}
    start = generator.randrange(1000)
    inner = [name for node in out.graph.node for name in node.output if name not in ends]
    weights = [tensor.name for tensor in out.graph.initializer]
    names = {name: str(start + 7 * i) for i, name in enumerate(inner)}
    names.update({name: f"onnx::Conv_{start + 3 * i}" for i, name in enumerate(weights)})
    for i, node in enumerate(out.graph.node):
        node.name = f"{node.op_type}_{start + i}"
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    tensors = list(out.graph.initializer)
    generator.shuffle(tensors)
    del out.graph.initializer[:]
    out.graph.initializer.extend(tensors)
    for tensor in out.graph.initializer:
        tensor.name = names[tensor.name]
    return out


@given(st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_an_export_that_numbers_everything_anew_is_the_same(seed: int) -> None:
    old = net()
    diff = compare(old, renumbered(old, seed))
    assert diff.same
    assert len(diff.weights.renamed) == 4
    assert compare(renumbered(old, seed), old).same


@given(st.integers(0, 4), st.sampled_from(["Sigmoid", "Relu", "Identity", "Neg"]), st.integers(0, 100))
@settings(max_examples=40, deadline=None)
def test_a_node_that_came_is_the_only_change(place: int, op: str, seed: int) -> None:
    old, new = net(), renumbered(net(), seed)
    node = new.graph.node[place]
    into = node.input[0]
    node.input[0] = "inserted"
    new.graph.node.insert(place, onnx.helper.make_node(op, [into], ["inserted"], name="new"))
    diff = compare(old, new)
    assert [(change.change, change.op) for change in diff.nodes] == [(Change.ADDED, op)]
    assert diff.operators == {op: 1}
    back = compare(new, old)
    assert [(change.change, change.op) for change in back.nodes] == [(Change.REMOVED, op)]
    assert not diff.weights.changes


def test_an_attribute_before_and_after() -> None:
    diff = compare(net(), net(NET.replace("c = Conv<pads = [1, 1, 1, 1]>", "c = Conv<pads = [2, 2, 2, 2]>")))
    (change,) = diff.nodes
    assert change.op == "Conv"
    assert change.location.index == 2
    assert [(one.what, one.before, one.after) for one in change.details] == [
        ("attribute pads", "[1, 1, 1, 1]", "[2, 2, 2, 2]")
    ]


@pytest.mark.parametrize(
    ("attribute", "text"),
    [
        (onnx.AttributeProto(name="a"), "unreadable"),
        (onnx.AttributeProto(name="a", type=onnx.AttributeProto.INT, ref_attr_name="k"), "unreadable"),
        (onnx.AttributeProto(name="a", type=onnx.AttributeProto.SPARSE_TENSOR), "SparseTensorProto"),
        (onnx.AttributeProto(name="a", type=onnx.AttributeProto.TYPE_PROTO), "TypeProto"),
        (onnx.AttributeProto(name="a", type=onnx.AttributeProto.TENSORS, tensors=[onnx.TensorProto()]), "1 values"),
        (onnx.AttributeProto(name="a", type=onnx.AttributeProto.STRINGS, strings=[b"\xff"]), "['\ufffd']"),
    ],
)
def test_attributes_of_all_kinds(attribute: onnx.AttributeProto, text: str) -> None:
    model = net()
    model.graph.node[0].attribute.append(attribute)
    diff = compare(net(), model)
    assert [(one.what, one.before, one.after) for change in diff.nodes for one in change.details] == [
        ("attribute a", "", text)
    ]


def test_an_operator_in_the_place_of_another() -> None:
    diff = compare(net(), net(NET.replace("b = Relu (a)", "b = LeakyRelu<alpha = 0.1> (a)")))
    (change,) = diff.nodes
    assert change.change is Change.CHANGED
    assert change.details[0].before == "Relu"
    assert change.details[0].after == "LeakyRelu"


def test_a_default_that_is_written_out_is_no_change() -> None:
    diff = compare(net(), net(NET.replace("pads = [1, 1, 1, 1]", "pads = [1, 1, 1, 1], group = 1")))
    assert diff.same


def test_one_weight_of_other_values() -> None:
    new = net()
    tensor = new.graph.initializer[2]
    values = numpy_helper.to_array(tensor).copy()
    values[3] += 0.5
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    diff = compare(net(), new)
    (change,) = diff.weights.changes
    assert change.name == "second_weight"
    assert change.differing == 72
    assert change.largest == pytest.approx(0.5, rel=1e-6)
    old = numpy_helper.to_array(net().graph.initializer[2]).astype(np.float64)
    assert change.relative == pytest.approx(np.sqrt(72 * 0.25) / np.linalg.norm(old), rel=1e-6)
    assert not diff.weights.retrained
    assert not diff.nodes
    assert not diff.same


def test_all_weights_of_other_values_are_retrained() -> None:
    diff = compare(net(seed=0), renumbered(net(seed=1), 3))
    assert diff.weights.retrained
    assert not diff.nodes
    assert diff.weights.compared == 4
    assert not diff.weights.renamed


def test_not_a_number_equals_itself() -> None:
    old, new = net(), net()
    for model in (old, new):
        tensor = model.graph.initializer[0]
        tensor.CopyFrom(numpy_helper.from_array(np.full((8, 8, 3, 3), np.nan, np.float32), tensor.name))
    assert compare(old, new).same


def test_constants_and_initializers_are_one_thing() -> None:
    old = (
        HEAD + "g (float[2, 6] x) => (float[3, 4] y) { t = Constant<value = int64[2] {3, 4}> ()\n y = Reshape (x, t) }"
    )
    new = HEAD + "g (float[2, 6] x) => (float[3, 4] y) <int64[2] shape = {3, 4}> { y = Reshape (x, shape) }"
    other = new.replace("{3, 4}", "{-1, 4}")
    assert compare(old, new).same
    (change,) = compare(old, other).nodes
    assert [(one.what, one.before, one.after) for one in change.details] == [("input 1", "[3, 4]", "[-1, 4]")]


def test_axes_that_moved_to_an_input_are_no_change() -> None:
    old = '<ir_version: 6, opset_import: ["" : 11]> g (float[2, 1, 6] x) => (float[2, 6] y) { y = Squeeze<axes = [1]> (x) }'
    new = (
        '<ir_version: 6, opset_import: ["" : 13]> g (float[2, 1, 6] x) => (float[2, 6] y) '
        "<int64[1] axes = {1}> { y = Squeeze (x, axes) }"
    )
    diff = compare(old, new)
    assert not diff.nodes
    assert [(one.what, one.before, one.after) for one in diff.header] == [("opset ai.onnx", "11", "13")]


def test_inputs_and_outputs() -> None:
    old = HEAD + "g (float[1, 3] x) => (float[1, 3] y) { y = Relu (x) }"
    new = HEAD + "g (float[N, 3] image) => (float[N, 3] y, float[N, 3] z) { y = Relu (image)\n z = Neg (image) }"
    diff = compare(old, new)
    assert [(one.what, one.before, one.after) for one in diff.header] == [
        ("input", "x float32[1, 3]", "image float32[N, 3]"),
        ("output", "y float32[1, 3]", "y float32[N, 3]"),
        ("output", "", "z float32[N, 3]"),
    ]
    assert [(change.change, change.op) for change in diff.nodes] == [(Change.ADDED, "Neg")]


def test_bodies_are_compared_within_their_node() -> None:
    text = """
g (bool c, float[2] x) => (float[2] y) {
    n = Relu (x)
    y = If (c) <then_branch = t () => (float[2] p) { p = Neg (n) }, else_branch = e () => (float[2] q) { q = Abs (n) }>
}"""
    diff = compare(HEAD + text, HEAD + text.replace("q = Abs (n)", "q = Ceil (n)"))
    (change,) = diff.nodes
    assert change.location.graph.endswith("else_branch")
    assert (change.details[0].before, change.details[0].after) == ("Abs", "Ceil")


def test_functions_are_compared_by_name() -> None:
    text = (
        '<ir_version: 9, opset_import: ["" : 18, "own" : 1]> g (float[2] x) => (float[2] y) { y = own.twice (x) }\n'
        '<domain: "own", opset_import: ["" : 18]> twice (a) => (b) { b = Add (a, a) }'
    )
    diff = compare(text, text.replace("Add (a, a)", "Mul (a, a)"))
    (change,) = diff.nodes
    assert change.location.graph == "function:own.twice"


def test_swapped_inputs_are_seen() -> None:
    old = HEAD + "g (float[2] x) => (float[2] y) { a = Exp (x)\n b = Neg (x)\n y = Sub (a, b) }"
    new = HEAD + "g (float[2] x) => (float[2] y) { a = Exp (x)\n b = Neg (x)\n y = Sub (b, a) }"
    diff = compare(old, new)
    assert not diff.same
    assert {one.what for change in diff.nodes for one in change.details} <= {"input 0", "input 1"}


def test_a_long_net_takes_time_in_proportion() -> None:
    import time

    def chain(length: int, extra: bool) -> onnx.ModelProto:
        nodes = [onnx.helper.make_node(("Relu", "Neg", "Exp")[i % 3], [f"v{i}"], [f"v{i + 1}"]) for i in range(length)]
        if extra:
            nodes.insert(length // 2, onnx.helper.make_node("Abs", [f"v{length // 2}"], ["more"]))
            nodes[length // 2 + 1].input[0] = "more"
        ends = [onnx.helper.make_tensor_value_info(name, 1, [4]) for name in ("v0", f"v{length}")]
        graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:])
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)])

    seconds = []
    for length in (2_000, 16_000):
        old, new = view(chain(length, False)), view(chain(length, True))
        started = time.process_time()
        diff = compare_views(old, new)
        seconds.append(time.process_time() - started)
        assert [(change.change, change.op) for change in diff.nodes] == [(Change.ADDED, "Abs")]
    assert seconds[1] < 30 * seconds[0]  # 8 times as many nodes


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
@pytest.mark.parametrize("name", ["op11_st", "op17_dyn", "dynamo_dyn"])
def test_a_real_model_equals_itself_renumbered(name: str) -> None:
    model = onnx.load(DATA / f"original_{name}.onnx")
    other = renumbered(model, 5)
    if name == "dynamo_dyn":  # names hold the modules' path only where the exporter wrote it there
        assert compare(model, other).same
    diff = compare(model, other)
    assert diff.same
    assert not diff.unaligned
