"""Operator sets lowered: the same numbers, or a refusal that names the node."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.parser
import pytest

import onnxlint
from fixtures.old_operators import MODELS, OldModel
from onnxlint.errors import OnnxlintError
from onnxlint.fixes.opset import convert
from onnxlint.fixes.opset_lower import lower
from onnxlint.model.skeleton import Model, open_model
from onnxlint.symbolic.view import make_view

ort = pytest.importorskip("onnxruntime")
DATA = Path(__file__).parents[2].parent / "shared" / "data" / "retinaface"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")


REFUSED = ("DFT",)
"""New in 17."""


def lowered(model: onnx.ModelProto | str, version: int) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(model) if isinstance(model, str) else model
    return lower(make_view(Model("m.onnx", proto, 0)), version).proto


def run(proto: onnx.ModelProto, feeds: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return list(ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_what_is_lowered_computes_the_same(model: OldModel) -> None:
    """Every old operator is raised, and lowered again where that is possible."""
    proto, feeds = model.proto(), model.feeds()
    wanted = run(proto, feeds)
    done = 0
    for high in (17, 18, 20):
        if high <= model.opset:
            continue
        raised = convert(make_view(Model("m.onnx", proto, 0)), high)
        for low in (11, 13, 16):
            try:
                result = lower(make_view(Model("m.onnx", raised, 0)), low)
            except OnnxlintError:
                continue  # refused
            done += 1
            onnx.checker.check_model(result.proto)
            tolerance = 0.0 if result.exact else 1e-5
            for a, b in zip(wanted, run(result.proto, feeds), strict=True):
                np.testing.assert_allclose(b, a, rtol=tolerance, atol=tolerance)
    assert done or any(op in model.body for op in REFUSED), "it can be lowered to none of these opsets"


@pytest.mark.parametrize(
    ("opset", "body", "version", "why"),
    [
        (
            20,
            "(float[1,1,4,4] x, float[1,2,2,2] g) => (float[1,1,2,2] y) { y = GridSample (x, g) }",
            13,
            "it is new in opset 16",
        ),
        (18, "(uint8[N,4] x) => (uint8[N,4] y) { y = BitwiseAnd (x, x) }", 13, "it is new in opset 18"),
        (17, "(float[N,4] x, int64[2] t) => (float[A,B] y) { y = Reshape <allowzero = 1> (x, t) }", 13, "may hold a 0"),
        (17, "(int32[N,4] x) => (int32[N,4] y) { y = Relu (x) }", 13, "it did not take int32"),
        (18, "(float[N,4] x, int64[K] a) => (float[] y) { y = ReduceMean (x, a) }", 17, "its axes are computed"),
        (
            18,
            "(float[N,C] x) => (float[N,D] y, float[N,E] z) { y, z = Split <axis = 1, num_outputs = 2> (x) }",
            13,
            "the size of",
        ),
        (17, "(float[N,4] x) => (float[N,4] y) { y = Relu (x) }", 5, "opset 5 is too old"),
    ],
)
def test_refusals_name_the_node_in_one_line(opset: int, body: str, version: int, why: str) -> None:
    with pytest.raises(OnnxlintError) as caught:
        lowered(f'<ir_version: 8, opset_import: ["": {opset}]> g {body}', version)
    assert why in str(caught.value)
    assert "m.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_constant_axes_become_an_attribute_again() -> None:
    text = """
    <ir_version: 8, opset_import: ["": 18]>
    g (float[N,4,4] x) => (float[N,1,4] y) <int64[1] axes = {1}> { y = ReduceMean (x, axes) }
    """
    result = lowered(text, 13)
    (node,) = result.graph.node
    assert list(node.input) == ["x"]
    assert [(a.name, list(a.ints)) for a in node.attribute] == [("axes", [1])]
    assert not result.graph.initializer
    x = np.random.default_rng(0).standard_normal((2, 4, 4)).astype(np.float32)
    np.testing.assert_array_equal(run(onnx.parser.parse_model(text), {"x": x})[0], run(result, {"x": x})[0])


@needs_data
def test_retinaface_from_17_to_13(tmp_path: Path) -> None:
    report = onnxlint.fix(
        DATA / "original_op17_dyn.onnx", tmp_path / "m.onnx", opset=13, select=["OPS001"], isolated=True
    )
    assert report.verification is not None
    assert report.verification.verified
    assert report.asked == ("lowered the opset from 17 to 13",)
    assert open_model(tmp_path / "m.onnx").proto.opset_import[0].version == 13
