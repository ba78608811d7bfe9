"""GraphView: producers, consumers, scopes, constants, and claims kept apart from what is known."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxlint.errors import OnnxlintError
from onnxlint.model import Model
from onnxlint.view import GraphView

HEAD = '<ir_version: 8, opset_import: ["": 17]>'


def view(text: str, head: str = HEAD) -> GraphView:
    return GraphView(Model("m.onnx", onnx.parser.parse_model(f"{head} net {text}"), 0))


BRANCHES = """(bool c, float[N,4] x) => (float[N,4] y) <float[4] w = {1, 2, 3, 4}> {
    a = Add (x, w)
    y = If (c) <
        then_branch = then () => (float[N,4] t) { x2 = Neg (a)  t = Add (x2, w) },
        else_branch = otherwise () => (float[N,4] e) { a = Neg (x)  e = Neg (a) }
    >
}"""


def test_producers_and_consumers_across_scopes() -> None:
    seen = view(BRANCHES)
    main, then, otherwise = seen.graphs
    assert [graph.path for graph in seen.graphs][1:] == [then.path, otherwise.path]
    assert "then_branch" in then.path
    producer = then.producer("a")
    assert producer is not None
    assert producer.graph is main
    own = otherwise.producer("a")  # shadows the outer value of that name
    assert own is not None
    assert own.graph is otherwise
    assert [node.op for node in main.consumers("a")] == ["Neg"]
    assert [node.graph.path for node in main.consumers("w")] == ["graph", then.path]
    assert [node.graph.path for node in main.consumers("x")] == ["graph", otherwise.path]
    assert then.owner("w") is main
    assert then.owner("nowhere") is None


def test_constants_are_seen_through_identity_and_from_branches() -> None:
    seen = view(BRANCHES)
    np.testing.assert_array_equal(seen.graphs[1].constant("w"), [1, 2, 3, 4])  # type: ignore[arg-type]
    copied = view("(float[4] x) => (float[4] y) <float w = {2}> { v = Identity (w)  u = Identity (v)  y = Mul (x, u) }")
    value = copied.main.constant("u")
    assert value is not None
    assert value == 2.0


@pytest.mark.parametrize(("version", "expected"), [(3, True), (8, False)])
def test_an_initializer_that_is_an_input_is_a_constant_only_before_ir_version_4(version: int, expected: bool) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "w")],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "w")],
    )
    seen = GraphView(Model("m.onnx", helper.make_model(graph, ir_version=version), 0))
    assert (seen.main.constant("w") is not None) is expected
    assert seen.main.data_inputs == ["x"]


def test_declared_shapes_are_claims() -> None:
    seen = view("(float[2,3] x) => (float[6,1] y) { y = Relu (x) }")
    assert seen.main.declared_shape("y") == (6, 1)
    assert seen.main.shape("y") == (2, 3)
    assert seen.main.shape("x") == (2, 3)


def test_free_sizes_are_never_taken_for_numbers() -> None:
    seen = view(
        """(float[N,3,H,W] x, float[8,3,3,3] w) => (float[A,B,C,D] y) {
            y = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w)
        }"""
    )
    shape = seen.main.shape("y")
    assert shape is not None
    assert shape[:2] == ("N", 8)
    assert not any(isinstance(dim, int) for dim in shape[2:])


def test_unsorted_graphs_are_put_in_order_and_cycles_refused() -> None:
    text = "(float[N] x) => (float[N] y) { y = Neg (b)  b = Neg (a)  a = Neg (x) }"
    seen = view(text)
    assert not seen.main.is_sorted
    assert [node.output() for node in seen.main.order] == ["a", "b", "y"]
    with pytest.raises(OnnxlintError, match=r"cycle through Add #0, Neg #1"):
        view("(float[N] x) => (float[N] y) { a = Add (x, b)  b = Neg (a)  y = Neg (b) }")


def test_operators_of_other_domains_are_never_taken_for_standard_ones() -> None:
    seen = view(
        "(float[N] x) => (float[N] y) { a = team.Resize (x)  y = ai.onnx.Relu (a) }",
        '<ir_version: 8, opset_import: ["": 17, "team": 1, "ai.onnx": 17]>',
    )
    assert list(seen.nodes("Resize")) == []
    assert [node.op for node in seen.nodes("team::Resize")] == ["team::Resize"]
    assert len(list(seen.nodes("Relu"))) == 1


def test_functions_are_graphs_of_their_own() -> None:
    seen = view(
        "(float[N] x) => (float[N] y) { y = team.Twice (x) }\n"
        '<domain: "team", opset_import: ["": 17]> Twice (a) => (b) { b = Add (a, a) }',
        '<ir_version: 8, opset_import: ["": 17, "team": 1]>',
    )
    assert [graph.path for graph in seen.graphs] == ["graph", "function:team.Twice"]
    assert seen.graphs[1].inputs == ["a"]
    assert [node.graph.path for node in seen.nodes("Add")] == ["function:team.Twice"]


def test_a_node_is_found_again_by_its_location() -> None:
    seen = view(BRANCHES)
    for graph in seen.graphs:
        for node in graph.nodes:
            assert seen.find(seen.at(node)) is node


def test_missing_inputs_and_outputs() -> None:
    seen = view("(float[1,1,4,4] x) => (float[1,1,8,8] y) <float[4] s = {1, 1, 2, 2}> { y = Resize (x, , s) }")
    (node,) = seen.nodes("Resize")
    assert node.inputs == ("x", "", "s")
    assert (node.input(1), node.input(7), node.output(3)) == ("", "", "")
    assert node.constant(1) is None
    assert node.producer(1) is None
    assert node.shape(7) is None
    assert node.attribute("mode", "nearest") == "nearest"
