"""A patch that breaks a model is found by running both, taken back and reported; the others stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxlint.fixes.engine import fix_model
from onnxlint.fixes.session import comparer
from onnxlint.lint.engine import Plan
from onnxlint.lint.rule import Request
from tests.support.fixing import nameless, parse

ort = pytest.importorskip("onnxruntime")


def test_a_patch_that_breaks_the_model_is_found_and_taken_back() -> None:
    """One of eight patches is made wrong; the other seven stay."""
    from onnxlint_rules.shp.shp002_shape_chain import ShapeChain

    class Wrong(ShapeChain):
        def patch(self, finding: Any, view: Any, surgeon: Any, request: Any) -> None:
            super().patch(finding, view, surgeon, request)
            if finding.location.node == "r5":
                node = surgeon.graph.nodes[finding.location.index]
                node.inputs[1] = surgeon.constant("wrong", np.array([0, 2, -1], np.int64))

    nodes = "\n".join(
        f"""s{i} = Shape (x) b{i} = Gather <axis = 0> (s{i}, zero) l{i} = Unsqueeze (b{i}, axes)
        t{i} = Concat <axis = 0> (l{i}, minus, four) [r{i}] y{i} = Reshape (x, t{i})"""
        for i in range(8)
    )
    outputs = ", ".join(f"float[N,P,4] y{i}" for i in range(8))
    text = f"""<ir_version: 8, opset_import: ["": 17]>
        g (float[N,H,W,8] x) => ({outputs})
        <int64 zero = {{0}}, int64[1] axes = {{0}}, int64[1] minus = {{-1}}, int64[1] four = {{4}}> {{ {nodes} }}"""
    model = parse(text)

    fixed, report = fix_model(model, Plan((Wrong,)), Request(), comparer(model))
    assert report.verification is not None
    assert report.verification.verified
    assert len(report.applied) == 7
    assert [left.finding.location.node for left in report.rolled_back] == ["r5"]
    assert "with it the outputs differ: different at N=" in report.rolled_back[0].why
    assert sum(node.op_type == "Shape" for node in fixed.graph.node) == 1


@pytest.mark.parametrize("wrong", [0, 3])
def test_a_rollback_hits_the_patch_of_a_node_without_a_name(wrong: int) -> None:
    from onnxlint_rules.shp.shp002_shape_chain import ShapeChain

    class Wrong(ShapeChain):
        def patch(self, finding: Any, view: Any, surgeon: Any, request: Any) -> None:
            node = surgeon.graph.nodes[finding.location.index]
            super().patch(finding, view, surgeon, request)
            if node.outputs[0].name == f"y{wrong}":
                node.inputs[1] = surgeon.constant("wrong", np.array([0, 2, -1], np.int64))

    model = nameless(5)
    fixed, report = fix_model(model, Plan((Wrong,)), Request(), comparer(model))
    assert report.verification is not None
    assert report.verification.verified
    assert len(report.applied) == 4
    (left,) = report.rolled_back
    assert left.finding.location.index is not None
    assert fixed.graph.node[left.finding.location.index].output[0] == f"y{wrong}"
