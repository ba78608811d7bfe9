"""GraphView: who makes and reads what, in which graph, and which shapes are facts."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
import pytest

from onnxlint.errors import OnnxlintError
from onnxlint.graph.view import Graph, GraphView, Node
from tests.support.zoo import parse, view

NESTED = """
<ir_version: 10, opset_import: ["": 21, "own": 1]>
net (float[N,3] x, bool c) => (float[N,3] y, float[N,3] z) <float[3] w = {1, 2, 3}> {
    [first] t = Relu (x)
    [branch] y = If (c) <
        then_branch = g1 () => (float[N,3] a) { [then] a = Add (t, w) },
        else_branch = g2 () => (float[N,3] b) <float[3] w = {4, 5, 6}> {
            [shadow] s = Mul (x, w)
            [inner] b = If (c) <
                then_branch = g3 () => (float[N,3] p) { [deep] p = Sub (t, s) },
                else_branch = g4 () => (float[N,3] q) { [t_again] t = Neg (x) [uses] q = Abs (t) }
            >
        }
    >
    [call] z = own.twice (t)
}
<domain: "own", opset_import: ["": 21]>
twice (p) => (q) { [sum] q = Add (p, p) }
"""


@pytest.fixture
def nested() -> GraphView:
    return view(parse(NESTED))


def graph(held: GraphView, path: str) -> Graph:
    return next(graph for graph in held.graphs if graph.path == path)


def names(nodes: Iterable[Node]) -> list[str]:
    return [node.name for node in nodes]


def test_graphs_and_their_places(nested: GraphView) -> None:
    assert [graph.path for graph in nested.graphs] == [
        "graph",
        "graph/branch.then_branch",
        "graph/branch.else_branch",
        "graph/branch.else_branch/inner.then_branch",
        "graph/branch.else_branch/inner.else_branch",
        "function:own.twice",
    ]
    assert names(nested.nodes("Add")) == ["then", "sum"]
    assert names(nested.nodes("If", "Relu")) == ["first", "branch", "inner"]
    assert "own::twice" in nested.ops


def test_producers_and_consumers_reach_through_scopes(nested: GraphView) -> None:
    main = nested.main
    assert names(main.consumers("t")) == ["call", "then", "deep"], "not the one that reads its own t"
    deep = graph(nested, "graph/branch.else_branch/inner.then_branch").nodes[0]
    assert [node.name for node in (deep.producer(0), deep.producer(1)) if node] == ["first", "shadow"]
    uses = graph(nested, "graph/branch.else_branch/inner.else_branch").nodes[1]
    assert names([one for one in (uses.producer(0),) if one]) == ["t_again"]
    assert names(main.nodes[0].consumers()) == ["call", "then", "deep"]


def test_constants_are_those_of_the_innermost_scope(nested: GraphView) -> None:
    then, shadow = (next(iter(nested.nodes(op))) for op in ("Add", "Mul"))
    found = [node.constant(1) for node in (then, shadow)]
    assert [value.tolist() for value in found if value is not None] == [[1, 2, 3], [4, 5, 6]]


def test_a_function_does_not_see_the_graph() -> None:
    text = NESTED.replace("q = Add (p, p)", "q = Add (p, w)")
    held = view(parse(text))
    assert graph(held, "function:own.twice").nodes[0].constant(1) is None
    assert graph(held, "function:own.twice").owner("w") is None


def test_kinds_of_constants() -> None:
    held = view(
        """net (float[3] x) => (float[3] y) <int64[2] w = {7, 8}> {
            a = Constant <value_int = 5> ()
            b = Constant <value_floats = [1.0, 2.0]> ()
            c = Constant <value = float[1] {3}> ()
            d = Identity (w)
            e = Identity (d)
            f = Neg (a)
            y = Relu (x)
        }"""
    )
    found = {name: held.main.constant(name) for name in "abcdewfx"}
    assert {name: value.tolist() for name, value in found.items() if value is not None} == {
        "a": 5,
        "b": [1, 2],
        "c": [3],
        "d": [7, 8],
        "e": [7, 8],
        "w": [7, 8],
    }
    assert [name for name in "abcdewfx" if held.main.is_constant(name)] == ["a", "b", "c", "w"]


def test_an_initializer_that_a_caller_may_override_is_no_constant() -> None:
    proto = parse("net (float[3] x, float[3] w) => (float[3] y) <float[3] w = {1, 2, 3}> { y = Add (x, w) }")
    assert view(proto).main.constant("w") is None
    assert view(proto).main.data_inputs == ["x"]
    proto.ir_version = 3
    assert view(proto).main.constant("w") is not None, "before IR version 4 all of them had to be listed"


def test_what_the_file_declares_is_not_what_is_inferred() -> None:
    held = view(
        """net (float[N,3] x) => (float[7,7] y) <float[N,99] t> {
            t = Relu (x)
            y = Concat <axis = 1> (t, t)
        }"""
    )
    assert held.main.declared_shape("t") == ("N", 99)
    assert held.main.shape("t") == ("N", 3)
    assert held.main.declared_shape("y") == (7, 7)
    assert held.main.shape("y") == ("N", 6)
    assert held.main.declared_shape("nothing") is None
    assert held.main.shape("nothing") is None


def test_shapes_within_branches_and_of_outer_values(nested: GraphView) -> None:
    then = graph(nested, "graph/branch.then_branch")
    assert then.shape("a") == ("N", 3)
    assert then.shape("t") == ("N", 3)
    assert then.dtype("a") == onnx.TensorProto.FLOAT


def test_a_model_that_contradicts_itself_still_gives_what_can_be_known() -> None:
    held = view(
        """net (float[N,3] x) => (float[N,3] y) {
            t = Relu (x)
            u = Reshape <allowzero = 7> (t, t)
            y = Relu (t)
        }"""
    )
    assert held.is_contradictory
    assert held.main.shape("y") == ("N", 3)


def test_unsorted_nodes_are_put_in_order_and_cycles_are_refused() -> None:
    proto = parse("net (float[3] x) => (float[3] y) { a = Relu (x) b = Neg (a) y = Abs (b) }")
    turned = list(proto.graph.node)[::-1]
    proto.graph.ClearField("node")
    proto.graph.node.extend(turned)
    held = view(proto)
    assert not held.main.is_sorted
    assert [node.op for node in held.main.order] == ["Relu", "Neg", "Abs"]
    proto.graph.node[2].input[0] = "y"
    with pytest.raises(OnnxlintError, match="the graph has a cycle through"):
        view(proto)


def test_the_nearest_output_names_what_has_no_other_name() -> None:
    held = view(
        """net (float[3] x) => (float[3] near, float[3] far) {
            a = Relu (x)
            b = Neg (a)
            near = Abs (b)
            c = Exp (b)
            far = Log (c)
            d = Sin (x)
        }"""
    )
    places = {node.op: held.at(node).near for node in held.main.nodes}
    assert places == {"Relu": "near", "Neg": "near", "Abs": "near", "Exp": "far", "Log": "far", "Sin": ""}
    inner = view(parse(NESTED))
    assert inner.nearest_output(next(iter(inner.nodes("Sub")))) == "y", "that of the node it is nested in"


def test_locations_lead_back_to_their_nodes(nested: GraphView) -> None:
    for node in nested.nodes():
        assert nested.find(nested.at(node)) is node
    with pytest.raises(KeyError):
        nested.find(nested.at(value="x"))


def test_operator_sets() -> None:
    held = view(parse(NESTED))
    assert (held.opset, held.opset_of("ai.onnx"), held.opset_of("own"), held.opset_of("other")) == (21, 21, 1, 0)
    proto = parse(NESTED)
    proto.opset_import[0].version = 2**62
    assert view(proto).opset == 2**31 - 1
