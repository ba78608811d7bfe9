"""A constant added to a convolution becomes its bias where it is one number for each channel, and nowhere else."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxlint.fixes.engine import fix_model
from onnxlint.lint.engine import Plan
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Options, Request
from onnxlint.model.skeleton import Model

RULE = load_registry().find("GRF011")


@st.composite
def sums(draw: st.DrawFn) -> tuple[onnx.ModelProto, bool]:
    """A convolution and a constant added to it, and whether that is a bias."""
    op = draw(st.sampled_from(("Conv", "ConvTranspose")))
    axes = draw(st.integers(1, 2))
    group = draw(st.integers(1, 2)) if op == "Conv" else 1  # onnx's reference has groups of ConvTranspose wrong
    each_in, each_out = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    channels = each_out * group
    shape = (channels, each_in) if op == "Conv" else (each_in, each_out)
    generator = np.random.default_rng(draw(st.integers(0, 99)))

    def tensor(dims: tuple[int, ...], name: str) -> onnx.TensorProto:
        return numpy_helper.from_array(generator.integers(-4, 5, dims).astype(np.float32), name)

    dims = tuple(draw(st.lists(st.sampled_from((1, channels, 4)), max_size=axes + 3)))
    constants = [tensor((*shape, *[1] * axes), "w"), tensor(dims, "c")]
    if has_bias := draw(st.booleans()):
        constants.append(tensor((channels,), "b"))
    order = ["t", "c"] if draw(st.booleans()) else ["c", "t"]
    nodes = [
        helper.make_node(op, ["x", "w", *["b"] * has_bias], ["t"], **cast(Any, {"group": group} if group > 1 else {})),
        helper.make_node("Add", order, ["y"]),
    ]
    info = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", each_in * group, *[4] * axes]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
    ]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    whole = [1] * (axes + 2 - len(dims)) + list(dims)
    is_bias = len(dims) <= axes + 2 and whole[1] in (1, channels) and all(size == 1 for size in (whole[0], *whole[2:]))
    return model, is_bias


@settings(max_examples=80, deadline=None)
@given(sums())
def test_what_is_a_bias_becomes_one(made: tuple[onnx.ModelProto, bool]) -> None:
    model, is_bias = made
    shape = [dim.dim_value or 2 for dim in model.graph.input[0].type.tensor_type.shape.dim]
    data = {"x": np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32)}
    try:
        (before,) = ReferenceEvaluator(model).run(None, data)
    except (TypeError, ValueError):  # shapes that cannot be added
        assert not is_bias
        return
    fixed, report = fix_model(Model("m.onnx", model, 0), Plan((RULE,), Options()), Request())
    assert bool(report.applied) == is_bias
    assert [node.op_type for node in fixed.graph.node].count("Add") == (not is_bias)
    np.testing.assert_array_equal(before, cast(Any, ReferenceEvaluator(fixed).run(None, data))[0])
