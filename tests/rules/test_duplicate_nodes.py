"""Nodes that repeat others are merged, and every output stays, bit for bit, under its name."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxlint.fixes.engine import fix_model
from onnxlint.lint.engine import Plan
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Options, Request
from onnxlint.model.skeleton import Model

RULE = load_registry().find("GRF010")
ONE_TO_ONE = ("Relu", "Neg", "Abs", "LeakyRelu")


def merged(model: onnx.ModelProto) -> onnx.ModelProto:
    """What the rule alone makes of a model."""
    fixed, report = fix_model(Model("m.onnx", model, 0), Plan((RULE,), Options()), Request())
    assert not report.rolled_back
    assert not report.left
    return fixed


def model_of(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


@st.composite
def repetitive(draw: st.DrawFn) -> onnx.ModelProto:
    """A graph of few operators over few values, so that many nodes repeat others, directly or after merging."""
    values, nodes = ["x"], []
    constants = [numpy_helper.from_array(np.float32(draw(st.integers(0, 1))), f"c{i}") for i in range(3)]
    for i in range(draw(st.integers(2, 14))):
        kind = draw(st.sampled_from((*ONE_TO_ONE, "Add", "Mul", "Split")))
        read = draw(st.sampled_from(values))
        if kind in ONE_TO_ONE:
            attributes: dict[str, Any] = {"alpha": draw(st.sampled_from((0.25, 0.5)))} if kind == "LeakyRelu" else {}
            nodes.append(helper.make_node(kind, [read], [f"v{i}"], **attributes))
        elif kind == "Split":
            nodes.append(helper.make_node(kind, [read], [f"v{i}", f"w{i}"], axis=0))
            nodes.append(helper.make_node("Concat", [f"w{i}", f"v{i}"], [f"u{i}"], axis=0))
            values.append(f"u{i}")
            continue
        else:
            other = draw(st.sampled_from([*values, *(one.name for one in constants)]))
            nodes.append(helper.make_node(kind, [read, other], [f"v{i}"]))
        values.append(f"v{i}")
    outputs = draw(st.lists(st.sampled_from(values[1:]), min_size=1, max_size=3, unique=True))
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x", *outputs)]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@settings(max_examples=80, deadline=None)
@given(repetitive())
def test_outputs_are_the_same_to_the_bit(model: onnx.ModelProto) -> None:
    fixed = merged(model)
    assert [one.name for one in fixed.graph.output] == [one.name for one in model.graph.output]
    data = {"x": np.array([-1.5, 0.0, 2.25, np.nan], np.float32)}
    before, after = (ReferenceEvaluator(one).run(None, data) for one in (model, fixed))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(before, after, strict=True))
    onnx.checker.check_model(fixed, full_check=True)
    assert len(fixed.graph.node) <= len(model.graph.node)


def test_what_reads_a_duplicate_is_one_too_and_a_graph_output_keeps_its_name() -> None:
    fixed = merged(
        model_of("""
        <ir_version: 8, opset_import: ["": 13]>
        g (float[4] x) => (float[4] y) {
            a = Relu (x)
            b = Relu (x)
            c = Exp (a)
            d = Exp (b)
            e = Add (c, d)
            y = Add (d, c)
            z = Neg (e)
        }
        """)
    )
    assert [node.op_type for node in fixed.graph.node if node.op_type != "Neg"] == ["Relu", "Exp", "Add"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a function of the model may do anything",
            """
            <ir_version: 8, opset_import: ["": 13, "mine": 1]>
            g (float[4] x) => (float[4] y) { a = mine.Noise (x) b = mine.Noise (x) y = Sub (a, b) }
            <domain: "mine", opset_import: ["": 13]> Noise (p) => (q) { q = RandomNormalLike (p) }
            """,
        ),
        (
            "a nested graph defines a value of the same name",
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x, bool c) => (float[4] y) {
                a = Relu (x)
                b = Relu (x)
                y = If (c) <
                    then_branch = t () => (float[4] p) { a = Neg (b) p = Add (a, b) },
                    else_branch = e () => (float[4] q) { q = Abs (b) }
                >
            }
            """,
        ),
        (
            "a branch returns the outer value by its name",
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x, bool c) => (float[4] y) {
                a = Relu (x)
                b = Relu (x)
                z = Neg (a)
                v = If (c) <
                    then_branch = t () => (float[4] b) { },
                    else_branch = e () => (float[4] q) { q = Abs (a) }
                >
                y = Add (v, z)
            }
            """,
        ),
        (
            "each DequantizeLinear stands next to its reader",
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (uint8[4] x) => (float[4] y) <float s = {0.5}> {
                a = DequantizeLinear (x, s)
                b = DequantizeLinear (x, s)
                c = Relu (a)
                d = Neg (b)
                y = Add (c, d)
            }
            """,
        ),
        (
            "0 and -0",
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[4] y) <float p = {0.0}, float q = {-0.0}> {
                a = Max (x, p)
                b = Max (x, q)
                y = Div (a, b)
            }
            """,
        ),
        (
            "constants of equal bytes and other shapes",
            """
            <ir_version: 8, opset_import: ["": 13]>
            g (float[4] x) => (float[1,4] y) <float[1] p = {2}, float[1,1] q = {2}> {
                a = Mul (x, p)
                b = Mul (x, q)
                y = Add (a, b)
            }
            """,
        ),
    ],
)
def test_left_alone(name: str, text: str) -> None:
    model = model_of(text)
    assert merged(model).SerializeToString() == model.SerializeToString(), name


def test_an_identity_of_a_constant_is_one() -> None:
    fixed = merged(
        model_of("""
        <ir_version: 8, opset_import: ["": 13]>
        g (float[4] x) => (float[4] y) <float c = {2}> {
            d = Identity (c)
            a = Mul (x, c)
            b = Mul (x, d)
            y = Add (a, b)
        }
        """)
    )
    assert [node.op_type for node in fixed.graph.node if node.op_type != "Identity"] == ["Mul", "Add"]


def test_branches_merge_what_is_their_own() -> None:
    fixed = merged(
        model_of("""
        <ir_version: 8, opset_import: ["": 13]>
        g (float[4] x, bool c) => (float[4] y) {
            y = If (c) <
                then_branch = t () => (float[4] p) { a = Neg (x) b = Neg (x) p = Add (a, b) },
                else_branch = e () => (float[4] q) { q = Neg (x) }
            >
        }
        """)
    )
    bodies = {attribute.name: attribute.g for attribute in fixed.graph.node[0].attribute}
    assert [node.op_type for node in bodies["then_branch"].node] == ["Neg", "Add"]


def test_many_nodes_take_time_in_proportion() -> None:
    nodes = [helper.make_node("Gather", ["x", f"i{i}"], [f"v{i}"]) for i in range(3000)]
    nodes.append(helper.make_node("Sum", [f"v{i}" for i in range(3000)], ["y"]))
    constants = [numpy_helper.from_array(np.int64(i % 1500), f"i{i}") for i in range(3000)]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (("x", [1500]), ("y", []))]
    model = helper.make_model(
        helper.make_graph(nodes, "g", info[:1], info[1:], constants), opset_imports=[helper.make_opsetid("", 13)]
    )
    assert sum(node.op_type == "Gather" for node in merged(model).graph.node) == 1500
