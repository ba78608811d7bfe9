"""Conditions on sizes: those that a check finds hold, and the option that it names is enough."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

import onnxlint
from onnxlint.lint.finding import Applicability

SCALED = 'Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">'
POOL = "MaxPool<kernel_shape = [2, 2], strides = [2, 2]>"

MODELS = {
    "length": f"""(float[b, 4, t] x) => (y) {{ s = Shape(x) c = MaxPool<kernel_shape = [2], strides = [2]>(x)
        y = {SCALED}(c, , , s) }}""",
    "channels_last": f"""(float[b, h, w, 4] x) => (y) {{ t = Transpose<perm = [0, 3, 1, 2]>(x) s = Shape(t)
        c = {POOL}(t) y = {SCALED}(c, , , s) }}""",
    "no_batch": f"""(float[3, h, w] x) => (y) <int64[1] z = {{0}}> {{ t = Unsqueeze(x, z) s = Shape(t) c = {POOL}(t)
        y = {SCALED}(c, , , s) }}""",
    "volume": f"""(float[b, 2, d, h, w] x) => (y) {{ s = Shape(x)
        c = MaxPool<kernel_shape = [2, 2, 2], strides = [2, 2, 2]>(x) y = {SCALED}(c, , , s) }}""",
    "times_eight": f"""(float[b, 2, eight_h, w] x) => (y) <int64[2] z = {{0, 0}}> {{ s = Shape(x)
        c = MaxPool<kernel_shape = [16, 3], strides = [16, 3]>(x) y = {SCALED}(c, , , s) }}""",
    "cropped": """(float[b, 3, h, w] x) => (y) <int64[2] at = {2, 3}, int64[2] z = {0, 0},
        float[3, 1, 2, 2] k = {1,1,1,1,1,1,1,1,1,1,1,1}> {
        s = Shape(x) hw = Gather(s, at) c = MaxPool<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(x)
        u = ConvTranspose<strides = [2, 2], group = 3>(c, k) y = Slice(u, z, hw, at) }""",
    "windows": """(float[b, h, w, 4] x) => (y) <int64[1] i = {0}, int64[1] j = {1}, int64[1] k = {2}, int64[1] seven = {7},
        int64[1] four = {4}> { s = Shape(x) n = Gather(s, i) h0 = Gather(s, j) w0 = Gather(s, k) h1 = Div(h0, seven)
        w1 = Div(w0, seven) t = Concat<axis = 0>(n, h1, seven, w1, seven, four) y = Reshape(x, t) }""",
    "padded": """(float[b, h, w, 4] x) => (y) <int64[1] j = {1}, int64[1] twelve = {12}, int64[1] z = {0},
        int64[5] some = {0, 0, 0, 0, 0}, int64[2] rest = {0, 0}> { s = Shape(x) h0 = Gather(s, j) m = Mod(h0, twelve)
        r = Sub(twelve, m) p = Mod(r, twelve)
        pads = Concat<axis = 0>(some, p, rest) q = Pad(x, pads) e = Slice(q, z, h0, j) y = Neg(e) }""",
    "start_and_end": """(float[b, 3, h, w] x) => (y) <int64[1] zero = {0}, int64[1] two = {2}, int64[1] one = {1},
        int64[1] three = {3}> { s = Shape(x) c = Gather(s, one) start = Sub(c, three) h0 = Gather(s, two) half = Div(h0, two)
        end = Mul(half, two)
        y = Slice(x, start, end, two) }""",
}


def build(name: str) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {MODELS[name]}')
    if name == "times_eight":
        dims = proto.graph.input[0].type.tensor_type.shape.dim
        dims[2].dim_param, dims[3].dim_param = "8*h", "w * 3"
    return proto


def allowed_by(flag: str) -> dict[str, Any]:
    """The arguments of `onnxlint.fix` for an option as it is printed."""
    option, value = shlex.split(flag)
    return {"multiple_of": int(value)} if option == "--multiple-of" else {"assume": value.split(",")}


def run(proto: onnx.ModelProto, x: np.ndarray[Any, Any]) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, {"x": x})[0]


def conditions_of(path: Path) -> dict[str, str]:
    """Condition → the option that the check names for it."""
    fixes = [finding.fix for finding in onnxlint.check(path, isolated=True) if finding.fix is not None]
    return {fix.condition: fix.flag or "" for fix in fixes if fix.condition}


@pytest.mark.parametrize("name", MODELS)
def test_the_option_that_a_check_names_is_enough(name: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(build(name), path)
    found = conditions_of(path)
    if name == "start_and_end":  # its start is constant at any size, and goes first
        onnxlint.fix(path, path, isolated=True)
        found = conditions_of(path)
    (flag,) = set(found.values())
    report = onnxlint.fix(path, tmp_path / "f.onnx", isolated=True, **allowed_by(flag))
    assert not report.rolled_back
    assert not [left for left in report.left if left.finding.code.startswith("SHP")]
    assert report.conditions
    assert set(" and ".join(found).split(" and ")) == set(report.conditions)
    assert not conditions_of(tmp_path / "f.onnx")


@pytest.mark.parametrize(("name", "shape"), [("times_eight", (2, 2, 48, 9)), ("windows", (2, 14, 21, 4))])
def test_what_holds_under_a_condition_is_fixed_for_such_sizes_alone(
    name: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    path, fixed = tmp_path / "m.onnx", tmp_path / "f.onnx"
    onnx.save(build(name), path)
    for flag in set(conditions_of(path).values()):
        report = onnxlint.fix(path, fixed, isolated=True, verify=False, **allowed_by(flag))
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        assert np.array_equal(run(build(name), x), run(onnx.load(fixed), x))
        assert report.applied
        assert all("if " in applied.proof for applied in report.applied if applied.finding.code != "GRF002")


def test_a_start_and_an_end_hold_under_their_own_conditions(tmp_path: Path) -> None:
    path, fixed = tmp_path / "m.onnx", tmp_path / "f.onnx"
    onnx.save(build("start_and_end"), path)
    for multiple, stays in ((None, True), (2, False)):
        report = onnxlint.fix(path, fixed, isolated=True, verify=False, multiple_of=multiple)
        assert bool([left for left in report.left if left.finding.code == "SHP002"]) == stays
        assert report.conditions == (() if stays else ("h % 2 == 0",))
    assert [one.proof for one in report.applied if one.finding.code == "SHP002"] == ["proved if h % 2 == 0"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"multiple_of": 16},
        {"assume": ["h % 2 == 0"]},
        {"assume": ["8*h % 16 == 0"]},
        {"assume": [" 8 * h  % 16 == 0", "3*w % 3 == 0"]},
        {"assume": ["H % 16 == 0"]},
    ],
)
def test_a_condition_on_a_size_is_one_on_its_symbol(wanted: dict[str, Any], tmp_path: Path) -> None:
    proto = build("times_eight")
    proto.graph.input[0].type.tensor_type.shape.dim[3].dim_param = "3*w"
    onnx.save(proto, tmp_path / "m.onnx")
    if wanted["assume" if "assume" in wanted else "multiple_of"] == [" 8 * h  % 16 == 0", "3*w % 3 == 0"]:
        proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = " 8 * h "
        onnx.save(proto, tmp_path / "m.onnx")
    report = onnxlint.fix(tmp_path / "m.onnx", tmp_path / "f.onnx", isolated=True, **wanted)
    assert not [left for left in report.left if left.finding.code != "SPC001"]
    assert report.verification is not None
    assert report.verification.verified
    assert report.conditions == ("h % 2 == 0",)
    fixed = onnx.load(tmp_path / "f.onnx")
    assert not [one for one in onnxlint.check(tmp_path / "f.onnx", isolated=True) if one.code == "SHP011"]
    fixed.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 24
    onnx.save(fixed, tmp_path / "s.onnx")
    assert [one.code for one in onnxlint.check(tmp_path / "s.onnx", isolated=True) if one.code == "SHP011"] == [
        "SHP011"
    ]


def test_conditions_that_are_found_are_no_reason_to_leave_a_chain_long(tmp_path: Path) -> None:
    onnx.save(build("windows"), tmp_path / "m.onnx")
    (finding,) = (one for one in onnxlint.check(tmp_path / "m.onnx", isolated=True) if one.code == "SHP002")
    assert finding.fix is not None
    assert finding.fix.applicability is Applicability.ASSUMES
    assert "if h % 7 == 0 and w % 7 == 0" in finding.message
