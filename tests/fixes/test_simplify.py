"""onnxsim in a process of its own: what it drops comes back, what it breaks is taken back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import onnxlint
from onnxlint.fixes.rule_tests import run
from onnxlint.fixes.simplify import LARGE, simplify
from onnxlint.model.skeleton import Model, open_model

pytest.importorskip("onnxsim")
pytest.importorskip("onnxruntime")

MODEL = """
<ir_version: 8, opset_import: ["": 17], producer_name: "exporter">
g (float[N,3,8,8] x) => (float[N,3,8,8] y, float[N,3,8,8] z)
<float[3,3,3,3] w> {
    c = Conv <pads = [1, 1, 1, 1]> (x, w)
    a = Transpose <perm = [0, 1, 3, 2]> (c)
    b = Transpose <perm = [0, 1, 3, 2]> (a)
    y = Sigmoid (b)
    z = Relu (c)
}
"""


def model() -> onnx.ModelProto:
    """With all that onnxsim drops."""
    values = np.random.default_rng(0).standard_normal(81).astype(np.float32)
    numbers = ", ".join(f"{value:.4f}" for value in values)
    proto = onnx.parser.parse_model(MODEL.replace("float[3,3,3,3] w", f"float[3,3,3,3] w = {{{numbers}}}"))
    proto.doc_string = "a model"
    proto.metadata_props.add(key="team", value="vision")
    proto.graph.metadata_props.add(key="graph", value="kept")
    proto.graph.input[0].doc_string = "an image"
    for i, node in enumerate(proto.graph.node):
        node.name = f"node{i}"
        node.doc_string = f"says {i}"
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['layer{i}']")
    false = proto.graph.value_info.add(name="c")
    false.CopyFrom(onnx.helper.make_tensor_value_info("c", 1, [1, 3, 999, 8]))
    return proto


def test_what_onnxsim_drops_is_put_back() -> None:
    original = model()
    outcome = simplify(Model("m.onnx", original, 0), original)
    proto = outcome.proto
    assert proto is not None
    assert outcome.removed == (("Transpose", 2),)
    before = {node.output[0]: node for node in original.graph.node}
    assert proto.doc_string == "a model"
    assert list(proto.metadata_props) == list(original.metadata_props)
    assert list(proto.graph.metadata_props) == list(original.graph.metadata_props)
    assert list(proto.graph.input) == list(original.graph.input)
    assert list(proto.graph.output) == list(original.graph.output)
    assert list(proto.graph.value_info) == list(original.graph.value_info)
    for node in proto.graph.node:
        old = before[node.output[0]]
        assert (node.name, node.doc_string) == (old.name, old.doc_string)
        assert list(node.metadata_props) == list(old.metadata_props)
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    for wanted, got in zip(run(original, {"x": x}), run(proto, {"x": x}), strict=True):
        np.testing.assert_array_equal(wanted, got)


def test_simplifying_twice_changes_nothing() -> None:
    original = model()
    once = simplify(Model("m.onnx", original, 0), original).proto
    assert once is not None
    assert simplify(Model("m.onnx", once, 0), once).proto is once


def test_large_weights_stay_in_their_file(tmp_path: Path) -> None:
    """Neither onnxsim nor we hold them."""
    proto = model()
    numbers = np.random.default_rng(0).standard_normal((LARGE, 8)).astype(np.float32)
    proto.graph.node.append(onnx.helper.make_node("Relu", ["z"], ["z2"]))
    proto.graph.node.append(onnx.helper.make_node("MatMul", ["big_in", "big"], ["big_out"]))
    proto.graph.input.append(onnx.helper.make_tensor_value_info("big_in", 1, ["M", LARGE]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("big_out", 1, ["M", 8]))
    proto.graph.initializer.append(numpy_helper.from_array(numbers, "big"))
    path = tmp_path / "m.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=1024)
    opened = open_model(path)
    outcome = simplify(opened, opened.proto)
    assert outcome.proto is not None
    assert outcome.proto.ByteSize() < 10_000
    report = onnxlint.fix(path, tmp_path / "out.onnx", simplify=True, isolated=True)
    assert report.verification is not None
    assert report.verification.verified
    assert report.simplified is not None
    assert not report.simplified.refused
    big = {tensor.name: tensor for tensor in onnx.load(tmp_path / "out.onnx").graph.initializer}["big"]
    np.testing.assert_array_equal(numpy_helper.to_array(big), numbers)


def test_wrong_results_are_taken_back_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxsim's process, which swaps one operator for another at its end."""
    import onnxlint.fixes.simplify as module

    swapped = """
model = onnx.load(sys.argv[2])
next(node for node in model.graph.node if node.op_type == "Sigmoid").op_type = "Tanh"
onnx.save(model, sys.argv[2])
"""
    path = tmp_path / "m.onnx"
    path.write_bytes(model().SerializeToString())
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)

    def simplified() -> tuple[str, list[str]]:
        report = onnxlint.fix(path, tmp_path / "out.onnx", simplify=True, isolated=True, select=["OPS001"])
        assert report.simplified is not None
        fixed = onnx.load(tmp_path / "out.onnx")
        for before, after in zip(run(onnx.load(path), {"x": x}), run(fixed, {"x": x}), strict=True):
            np.testing.assert_array_equal(before, after)
        return report.simplified.refused, [node.op_type for node in fixed.graph.node]

    assert simplified() == ("", ["Conv", "Sigmoid", "Relu"])
    monkeypatch.setattr(module, "_CODE", f"{module._CODE}\nimport onnx, sys\n{swapped}")
    refused, ops = simplified()
    assert "with it the outputs differ: different at N=" in refused
    assert ops == ["Conv", "Transpose", "Transpose", "Sigmoid", "Relu"]


@pytest.mark.parametrize(("limits", "says"), [({"memory": 1 << 24}, "onnxsim"), ({"seconds": 1}, "onnxsim")])
def test_limits_hold(limits: dict[str, int], says: str) -> None:
    original = model()
    outcome = simplify(Model("m.onnx", original, 0), original, **limits)
    # A fast machine may be done within a second.
    assert outcome.proto is not None or says in outcome.refused
    if "memory" in limits:
        assert outcome.proto is None


def test_nothing_of_onnxsim_is_used_unless_it_was_verified(tmp_path: Path) -> None:
    from onnxlint.errors import OnnxlintError

    path = tmp_path / "m.onnx"
    path.write_bytes(model().SerializeToString())
    with pytest.raises(OnnxlintError, match="needs verification by running both models"):
        onnxlint.fix(path, tmp_path / "out.onnx", simplify=True, verify=False, isolated=True)
    random = model()
    random.graph.node.append(onnx.helper.make_node("RandomNormalLike", ["z"], ["noise"]))
    random.graph.output.append(onnx.helper.make_tensor_value_info("noise", 1, ["N", 3, 8, 8]))
    path.write_bytes(random.SerializeToString())
    report = onnxlint.fix(path, tmp_path / "out.onnx", simplify=True, isolated=True, select=["OPS001"])
    assert report.simplified is not None
    assert "it cannot be verified" in report.simplified.refused
    assert not report.changed
