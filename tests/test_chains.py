"""Tracing an operand back to the shapes that it is computed from."""

from __future__ import annotations

import onnx.parser

from onnxlint.chains import origins, trace
from onnxlint.model import Model
from onnxlint.view import GraphView, Node

HEAD = '<ir_version: 8, opset_import: ["": 17]>'


def only(text: str, op: str = "Reshape") -> Node:
    proto = onnx.parser.parse_model(f"{HEAD} net {text}")
    (node,) = GraphView(Model("m.onnx", proto, 0)).nodes(op)
    return node


VIEW = """(float[N,C,H,W] x) => (float[A,B] y)
<int64 zero = {0}, int64[1] axis = {0}, int64[1] rest = {-1}> {
    shape = Shape (x)
    batch = Gather (shape, zero)
    batches = Unsqueeze (batch, axis)
    target = Concat <axis = 0> (batches, rest)
    y = Reshape (x, target)
}"""


def test_the_chain_of_a_view() -> None:
    chain = trace(only(VIEW), 1)
    assert chain is not None
    assert [node.op for node in chain.nodes] == ["Concat", "Unsqueeze", "Gather", "Shape"]
    assert [node.op for node in chain.shapes] == ["Shape"]
    assert chain.ends == ()
    assert chain.path() == ["Shape", "Gather", "Unsqueeze", "Concat"]


def test_a_constant_target_is_no_chain() -> None:
    node = only("(float[N,4] x) => (float[A,B] y) <int64[2] target = {-1, 2}> { y = Reshape (x, target) }")
    assert trace(node, 1) is None
    assert origins(node, 1) is None


def test_a_target_that_is_an_input_is_no_chain_but_has_an_origin() -> None:
    node = only("(float[N,4] x, int64[2] target) => (float[A,B] y) { y = Reshape (x, target) }")
    assert trace(node, 1) is None
    found = origins(node, 1)
    assert found is not None
    assert found.ends == ("target",)


def test_a_target_computed_from_data_ends_at_the_data() -> None:
    text = """(float[N,4] x, float[2] sizes) => (float[A,B] y) {
        positive = Softplus (sizes)
        whole = Cast <to = 7> (positive)
        shape = Shape (x)
        target = Max (whole, shape)
        y = Reshape (x, target)
    }"""
    chain = trace(only(text), 1)
    assert chain is not None
    assert chain.ends == ("positive",)
    assert [node.op for node in chain.shapes] == ["Shape"]


def test_a_chain_from_outside_of_a_branch() -> None:
    text = """(bool c, float[N,4] x) => (float[A,B] y) {
        shape = Shape (x)
        y = If (c) <
            then_branch = then () => (float[A,B] a) { a = Reshape (x, shape) },
            else_branch = otherwise () => (float[A,B] b) { b = Identity (x) }
        >
    }"""
    chain = trace(only(text), 1)
    assert chain is not None
    assert chain.path() == ["Shape"]
    assert chain.nodes[0].graph.path == "graph"


def test_what_two_operands_share_is_visited_once() -> None:
    text = """(float[N,C] x) => (float[A,B] y) {
        shape = Shape (x)
        twice = Add (shape, shape)
        again = Mul (twice, shape)
        y = Reshape (x, again)
    }"""
    chain = trace(only(text), 1)
    assert chain is not None
    assert [node.op for node in chain.nodes] == ["Mul", "Add", "Shape"]
    assert chain.path() == ["Shape", "Mul"]


def test_a_long_chain_is_followed_without_recursion() -> None:
    steps = "\n".join(f"s{i + 1} = Neg (s{i})" for i in range(1500))
    chain = trace(only(f"(float[N,C] x) => (float[A,B] y) {{ s0 = Shape (x)\n{steps}\ny = Reshape (x, s1500) }}"), 1)
    assert chain is not None
    assert len(chain.nodes) == 1501
    assert len(chain.path()) == 1501
