"""Which axis is the batch."""

from __future__ import annotations

import onnx.parser
import pytest

from onnxlint.model import Model
from onnxlint.view import GraphView


def axis(text: str, name: str = "y") -> int | None:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> net {text}')
    view = GraphView(Model("m.onnx", proto, 0))
    return view.batch_axis(view.main, name)


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("y = Relu (x)", 0),
        ("y = Transpose <perm = [0, 2, 3, 1]> (x)", 0),
        ("y = Transpose <perm = [2, 3, 0, 1]> (x)", 2),
        ("y = Transpose (x)", 3),
        ("y = Flatten (x)", 0),
        ("y = Flatten <axis = 2> (x)", None),  # the batch is folded into a longer axis
        ("axes = Constant <value_ints = [0]> () y = Unsqueeze (x, axes)", 1),
        ("axes = Constant <value_ints = [1]> () y = Unsqueeze (x, axes)", 0),
        ("y = ReduceMean <axes = [2, 3], keepdims = 0> (x)", 0),
        ("y = ReduceMean <axes = [0], keepdims = 0> (x)", None),
        ("y = Concat <axis = 1> (x, x)", 0),
        ("y = Concat <axis = 0> (x, x)", None),  # twice the batch is no batch any more
        ("c = Constant <value_float = 2.0> () y = Mul (x, c)", 0),
        ("t = Constant <value_ints = [0, -1, 2]> () y = Reshape (x, t)", 0),
        ("t = Constant <value_ints = [-1, 2]> () y = Reshape (x, t)", None),
        ("i = Constant <value_int = 0> () y = Gather <axis = 0> (x, i)", None),
        ("i = Constant <value_int = 0> () y = Gather <axis = 1> (x, i)", 0),
        ("y = NonZero (x)", None),  # unknown to the trace: the batch is lost, and rules stay silent
    ],
)
def test_through_operators(nodes: str, expected: int | None) -> None:
    assert axis(f"(float[N,4,H,W] x) => (float[A,B] y) {{ {nodes} }}") == expected


def test_inputs() -> None:
    assert axis("(float[1,3,8,8] x) => (float[A] y) { y = Relu (x) }", "x") == 0
    assert axis("(float[N,128] x) => (float[A] y) { y = Relu (x) }", "x") == 0
    assert axis("(float[5,128] x) => (float[A] y) { y = Relu (x) }", "x") is None
    assert axis("(float[N] x) => (float[A] y) { y = Relu (x) }", "x") is None


def test_operands_that_disagree_lose_it() -> None:
    text = """(float[N,4,8,8] x) => (float[A] y) {
        turned = Transpose <perm = [1, 0, 2, 3]> (x)
        y = Add (x, turned)
    }"""
    assert axis(text) is None


def test_a_weight_has_none() -> None:
    text = "(float[N,4] x) => (float[A] y) <float[4] w = {1, 2, 3, 4}> { y = Add (x, w) }"
    assert axis(text, "w") is None
    assert axis(text) == 0
