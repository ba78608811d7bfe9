"""What the examples of the OUT and OPS rules cannot say: metadata, training graphs, real exports, other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from onnxlint_rules.ops.ops007_implicit_resize_mode import _pixels

from onnxlint import Finding, Options
from onnxlint.fixes.rule_tests import parse
from onnxlint.lint.engine import Plan, check_file, check_view
from onnxlint.lint.registry import load_registry
from onnxlint.model.skeleton import Model
from onnxlint.symbolic.view import make_view

RETINAFACE = Path(__file__).parents[3] / "shared" / "data" / "retinaface"


def findings(model: onnx.ModelProto, *codes: str) -> list[Finding]:
    registry = load_registry()
    plan = Plan(tuple(registry.find(code) for code in codes))
    found, _, failures = check_view(make_view(Model("model.onnx", model, 0)), plan)
    assert not failures
    return found


def value(name: str, **metadata: str) -> onnx.ValueInfoProto:
    info = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4])
    for key, text in metadata.items():
        info.metadata_props.add(key=f"pkg.torch.onnx.{key}", value=text)
    return info


def exported(output: onnx.ValueInfoProto, fx_node: str) -> onnx.ModelProto:
    """A model as torch.onnx.export(dynamo=True) writes it, with one node."""
    node = helper.make_node("Softmax", ["x"], [output.name])
    node.metadata_props.add(key="pkg.torch.onnx.fx_node", value=fx_node)
    return helper.make_model(helper.make_graph([node], "main", [value("x")], [output]), producer_name="pytorch")


FX_SOFTMAX = "%softmax : [num_users=1] = call_function[target=torch.ops.aten.softmax.int](args = (%x, -1), kwargs = {})"


def test_out004_a_name_of_torch_export_is_told_from_a_chosen_one() -> None:
    (finding,) = findings(exported(value("softmax"), FX_SOFTMAX), "OUT004")
    assert "the output has a name that the exporter generated: 'softmax'" in finding.message

    assert not findings(exported(value("scores"), FX_SOFTMAX), "OUT004")
    # The caller asked for "cat_1" and got it: the exporter noted what it was called before.
    assert not findings(exported(value("cat_1", original_node_name="softmax"), FX_SOFTMAX), "OUT004")


def test_out004_names_are_escaped() -> None:
    (finding,) = findings(exported(value("/a\x1b[31m_output_0"), FX_SOFTMAX), "OUT004")
    assert "\x1b" not in finding.message


def test_ops003_training_graphs() -> None:
    model = parse('<ir_version: 8, opset_import: ["": 13]> g (float[N,4] x) => (float[N,4] y) { y = Relu (x) }')
    model.training_info.add()
    (finding,) = findings(model, "OPS003")
    assert "carries a training graph (training_info)" in finding.message


def test_ops003_before_opset_7_the_mode_is_an_attribute() -> None:
    text = '<ir_version: 3, opset_import: ["": 6]> g (float[N,4] x) => (float[N,4] y) { y = Dropout %s (x) }'
    assert findings(parse(text % ""), "OPS003")
    assert not findings(parse(text % "<is_test = 1>"), "OPS003")


def test_ops004_an_operator_of_a_newer_onnx_is_not_foreign() -> None:
    newer = onnx.defs.onnx_opset_version() + 1
    text = f'<ir_version: 8, opset_import: ["": {newer}]> g (float[4] x) => (float[4] y) {{ y = Brandnew (x) }}'
    assert not findings(parse(text), "OPS004")


@pytest.mark.parametrize("scale", [0.25, 0.5, 0.7, 1.5, 2.0, 2.5, 3.0, 4.0])
@pytest.mark.parametrize("coordinates", ["asymmetric", "half_pixel", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("rounding", ["floor", "ceil", "round_prefer_floor", "round_prefer_ceil"])
def test_ops007_takes_the_pixels_that_the_reference_takes(scale: float, coordinates: str, rounding: str) -> None:
    size = 20
    x = np.arange(size, dtype=np.float32).reshape(1, 1, 1, size)
    node = helper.make_node(
        "Resize",
        ["x", "", "scales"],
        ["y"],
        mode="nearest",
        coordinate_transformation_mode=coordinates,
        nearest_mode=rounding,
    )
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, 1, scale])
    shapes: list[Any] = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, size]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, None]),
    ]
    graph = helper.make_graph([node], "g", shapes[:1], shapes[1:], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    expected = np.asarray(next(iter(ReferenceEvaluator(model).run(None, {"x": x}))))
    assert _pixels(float(np.float32(scale)), size, coordinates, rounding) == expected.reshape(-1).astype(int).tolist()


@pytest.mark.parametrize("name", sorted(path.name for path in RETINAFACE.glob("*.onnx")) or ["absent"])
def test_retinaface(name: str) -> None:
    if name == "absent":
        pytest.skip(f"{RETINAFACE} is not there")
    rules = tuple(rule for rule in load_registry() if rule.code.startswith(("OUT", "OPS")))
    result = check_file(str(RETINAFACE / name), Plan(rules, Options()))
    assert result.error is None
    codes = [finding.code for finding in result.findings]
    if name.startswith("hand_fixed"):
        assert codes == []
        return
    old = ["OPS001"] if "op9" in name else []
    assert sorted(codes) == [*old, "OUT001", "OUT002", "OUT004"]
    by_code = {finding.code: finding for finding in result.findings}
    assert "4+2+10 = 16" in by_code["OUT001"].message
    if "dynamo" in name:
        assert "F.softmax(classifications" in str(by_code["OUT002"].location.source[-1])
