"""auto_pad becomes pads where these are the same for all sizes, and the model computes the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxlint.fixes.engine import fix_model
from onnxlint.lint.engine import Plan, check_model
from onnxlint.lint.registry import load_registry
from onnxlint.lint.rule import Options, Request
from onnxlint.model.skeleton import Model

RULE = load_registry().find("OPS010")


def network(op: str, auto: str, kernel: int, stride: int, size: int | str, **more: Any) -> onnx.ModelProto:
    """One layer on an axis of this size."""
    weights = [numpy_helper.from_array(np.arange(1, kernel + 1, dtype=np.float32).reshape(1, 1, kernel), "w")]
    inputs = ["x", "w"] if op == "Conv" else ["x"]
    attributes: dict[str, Any] = {"kernel_shape": [kernel], "strides": [stride], "auto_pad": auto, **more}
    graph = helper.make_graph(
        [helper.make_node(op, inputs, ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1, None])],
        weights if op == "Conv" else [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def fixed(model: onnx.ModelProto) -> onnx.ModelProto:
    proto: onnx.ModelProto = fix_model(Model("m.onnx", model, 0), Plan((RULE,), Options()), Request())[0]
    return proto


def run(model: onnx.ModelProto, size: int) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.random.default_rng(size).standard_normal((2, 1, size)).astype(np.float32)})[0]


OPS = st.sampled_from(("AveragePool", "Conv", "LpPool", "MaxPool"))
AUTO = st.sampled_from(("SAME_UPPER", "SAME_LOWER"))


@settings(max_examples=120, deadline=None)
@given(OPS, AUTO, st.integers(1, 5), st.integers(1, 4), st.integers(1, 12))
@example("MaxPool", "SAME_UPPER", 3, 2, 22)
def test_fixed_sizes(op: str, auto: str, kernel: int, stride: int, size: int) -> None:
    model = network(op, auto, kernel, stride, size)
    after = fixed(model)
    kept = {one.name for one in after.graph.node[0].attribute}
    if kernel < (size % stride or stride):  # windows smaller than the stride: onnxruntime refuses to pool with them
        assert after.graph.node == model.graph.node
        return
    assert "auto_pad" not in kept
    np.testing.assert_array_equal(run(after, size), run(model, size))


@settings(max_examples=40, deadline=None)
@given(OPS, AUTO, st.integers(1, 5), st.integers(1, 3))
def test_free_sizes(op: str, auto: str, kernel: int, stride: int) -> None:
    model = network(op, auto, kernel, stride, "L")
    after = fixed(model)
    if stride > 1:
        assert after.graph.node == model.graph.node
        return
    assert "pads" in {one.name for one in after.graph.node[0].attribute}
    for size in range(1, 8):
        np.testing.assert_array_equal(run(after, size), run(model, size))


@pytest.mark.parametrize("more", [{"dilations": [2]}, {"ceil_mode": 1}])
def test_what_runtimes_disagree_about_stays(more: dict[str, Any]) -> None:
    model = network("MaxPool", "SAME_UPPER", 3, 1, 12, **more)
    assert fixed(model).graph.node == model.graph.node


@pytest.mark.parametrize(("size", "fixable"), [("L", False), (12, True)])
def test_a_free_size_gets_the_way_out(size: int | str, fixable: bool) -> None:
    model = Model("m.onnx", network("MaxPool", "SAME_UPPER", 3, 2, size), 0)
    (finding,) = check_model(model, Plan((RULE,), Options())).findings
    assert (finding.fix is not None) == fixable
    assert ("--static" in dict(finding.evidence).get("not fixed", "")) != fixable


def test_targets_that_pad_right_are_left_alone() -> None:
    model = Model("m.onnx", network("MaxPool", "SAME_UPPER", 3, 2, 12), 0)
    for targets, count in ((("onnxruntime", "tensorrt-11"), 0), (("onnxruntime", "ncnn"), 1)):
        assert len(check_model(model, Plan((RULE,), Options(targets=targets))).findings) == count


def test_why_padding_stays_is_said_as_it_is() -> None:
    model = Model("m.onnx", network("MaxPool", "SAME_UPPER", 3, 1, 12, dilations=[2]), 0)
    (finding,) = check_model(model, Plan((RULE,), Options())).findings
    assert dict(finding.evidence)["not fixed"].startswith("runtimes disagree")
