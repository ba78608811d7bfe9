"""What a user asks for in so many words: done, and verified against the original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest

import onnxlint
from onnxlint.errors import OnnxlintError
from onnxlint.fixes.heads import read_heads
from onnxlint.fixes.results import FixReport
from onnxlint.fixes.rule_tests import run
from onnxlint.model.metadata import DROPPED_KEY, HEADS_KEY, SYMBOLS_KEY, metadata
from tests.support import zoo

pytest.importorskip("onnxruntime")

RESIZE = """
<ir_version: 8, opset_import: ["": 17]>
g (float[N,3,H,W] x, float[4] factor) => (float[N,3,P,Q] y) {
    y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , factor)
}
"""

HEADS = """
<ir_version: 8, opset_import: ["": 13]>
g (float[N,6,4] x) => (float[N,6,4] bbox, float[N,6,2] conf, float[N,6,10] landm)
<float[4,2] a = {1, 0, 0, 1, 1, 1, 0, 0}, float[4,10] b> {
    bbox = Relu (x)
    logits = MatMul (x, a)
    conf = Softmax <axis = -1> (logits)
    landm = MatMul (x, b)
}
"""


def heads() -> onnx.ModelProto:
    model = onnx.parser.parse_model(HEADS.replace("float[4,10] b", f"float[4,10] b = {{{', '.join(['0.5'] * 40)}}}"))
    onnx.checker.check_model(model)
    return model


def saved(folder: Path, model: onnx.ModelProto | str) -> Path:
    proto = onnx.parser.parse_model(model) if isinstance(model, str) else model
    path = folder / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def fix(path: Path, **wanted: Any) -> tuple[onnx.ModelProto, FixReport]:
    output = path.with_name("fixed.onnx")
    report = onnxlint.fix(path, output, isolated=True, **wanted)
    return onnx.load(output), report


def outputs(proto: onnx.ModelProto) -> list[str]:
    return [value.name for value in proto.graph.output]


def test_renamed_joined_and_dropped_is_compared_with_the_original(tmp_path: Path) -> None:
    fixed, report = fix(
        saved(tmp_path, heads()),
        rename={"x": "features", "conf": "scores"},
        concat_heads=["landm", "scores", "bbox"],
        drop_output_activations=True,
        select=["OUT002"],
    )
    assert outputs(fixed) == ["output"]
    assert report.verification is not None
    assert report.verification.verified
    assert not report.not_compared
    x = np.random.default_rng(0).standard_normal((2, 6, 4)).astype(np.float32)
    (joined,) = run(fixed, {"features": x})
    bbox, conf, landm = run(heads(), {"x": x})
    np.testing.assert_array_equal(joined[..., :10], landm)
    np.testing.assert_array_equal(joined[..., 12:], bbox)
    logits = np.exp(joined[..., 10:12])
    np.testing.assert_allclose(logits / logits.sum(-1, keepdims=True), conf, rtol=1e-6)


@pytest.mark.parametrize(
    "wanted",
    [
        {"rename": {"x": "image"}},
        {"drop_output_activations": True},
        {"concat_heads": ["bbox", "conf", "landm"]},
        {"static": ["x=2,?,?"]},
    ],
)
def test_each_alone_is_run(tmp_path: Path, wanted: dict[str, Any]) -> None:
    _, report = fix(saved(tmp_path, heads()), select=["OUT002"], **wanted)
    assert report.changed
    assert report.verification is not None
    assert report.verification.verified


def test_what_an_earlier_fix_dropped_and_joined_may_be_renamed(tmp_path: Path) -> None:
    dropped, _ = fix(saved(tmp_path, heads()), drop_output_activations=True, select=["OUT002"])
    renamed, report = fix(saved(tmp_path, dropped), rename={"conf": "scores"}, select=["OUT002"])
    assert outputs(renamed) == ["bbox", "scores", "landm"]
    assert report.verification is not None
    assert report.verification.verified
    assert not report.not_compared
    joined, _ = fix(saved(tmp_path, renamed), concat_heads=["landm", "scores", "bbox"], select=["OUT002"])
    again, report = fix(saved(tmp_path, joined), rename={"output": "all"}, select=["OUT002"])
    assert outputs(again) == ["all"]
    assert report.verification is not None
    assert report.verification.verified
    assert not report.not_compared
    (record,) = read_heads(again)  # its first field is called "output", as the output was
    assert record.output == "all"
    assert [(head.name, head.activation) for head in record.heads] == [
        ("landm", ""),
        ("scores", "Softmax"),
        ("bbox", ""),
    ]


@pytest.mark.parametrize("key", [HEADS_KEY, DROPPED_KEY, SYMBOLS_KEY])
@pytest.mark.parametrize("value", ["", "null", "3", '["conf"]', '[["conf"]]', '{"conf": 1}', "[" * 50_000, "9" * 5000])
def test_records_that_are_damaged_are_left_alone(tmp_path: Path, key: str, value: str) -> None:
    model = heads()
    model.metadata_props.add(key=key, value=value)
    path = saved(tmp_path, model)
    renamed, _ = fix(path, rename={"conf": "scores"}, select=["OUT002"], verify=False)
    assert outputs(renamed) == ["bbox", "scores", "landm"]
    dropped, _ = fix(path, drop_output_activations=True, select=["OUT002"], verify=False)
    assert json.loads(metadata(dropped)[DROPPED_KEY])["conf"] == {"op": "Softmax", "axis": -1}


def test_symbols_keep_their_names_where_an_input_is_called_alike(tmp_path: Path) -> None:
    model = heads()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "x"
    model.metadata_props.add(key=SYMBOLS_KEY, value='{"x": [["x", 1]]}')
    renamed, _ = fix(saved(tmp_path, model), rename={"x": "image"}, select=["OUT002"])
    assert json.loads(metadata(renamed)[SYMBOLS_KEY]) == {"x": [["image", 1]]}


def test_an_edit_that_breaks_the_model_is_an_error_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxlint.fixes import rename

    right = rename.rename_ends

    def wrong(view: Any, names: Any) -> onnx.ModelProto:
        model = right(view, names)
        model.graph.node[0].op_type = "Neg"
        return model

    monkeypatch.setattr(rename, "rename_ends", wrong)
    with pytest.raises(OnnxlintError, match="renamed 'x' to 'image': the result differs from the original"):
        fix(saved(tmp_path, heads()), rename={"x": "image"}, select=["OUT002"])
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]


def test_a_softmax_behind_a_reshape_is_applied_to_the_output(tmp_path: Path) -> None:
    """[N, 2, 3, 3] → Softmax along the classes → [N, 9, 2]."""
    text = """
    <ir_version: 8, opset_import: ["": 13]>
    g (float[N,2,3,3] x) => (float[N,9,2] y) <int64[3] shape = {0, 2, -1}> {
        logits = Neg (x)
        chosen = Softmax <axis = 1> (logits)
        flat = Reshape (chosen, shape)
        y = Transpose <perm = [0, 2, 1]> (flat)
    }
    """
    _, report = fix(saved(tmp_path, text), drop_output_activations=True, select=["OUT002"])
    assert report.verification is not None
    assert report.verification.verified
    assert not report.not_compared


@pytest.mark.parametrize(
    ("opset", "attributes", "shape", "turn", "record"),
    [
        (13, "<axis = 1>", "[N,2,3]", "<perm = [0, 2, 1]>", {"op": "Softmax", "axis": 2}),
        (13, "<axis = -2>", "[N,2,3]", "<perm = [0, 2, 1]>", {"op": "Softmax", "axis": -1}),
        (13, "<axis = -1>", "[N,2,3]", "<perm = [0, 1, 2]>", {"op": "Softmax", "axis": -1}),
        (11, "", "[N,2,1]", "<perm = [0, 2, 1]>", {"op": "Softmax", "axis": 2}),
    ],
)
def test_the_record_of_a_dropped_softmax_has_the_axis_of_the_output(
    tmp_path: Path, opset: int, attributes: str, shape: str, turn: str, record: dict[str, Any]
) -> None:
    text = f"""
    <ir_version: 7, opset_import: ["": {opset}]>
    g (float{shape} x) => (float[N,A,B] y) {{
        logits = Neg (x)
        chosen = Softmax {attributes} (logits)
        y = Transpose {turn} (chosen)
    }}
    """
    fixed, report = fix(saved(tmp_path, text), drop_output_activations=True, select=["OUT002"])
    assert report.verification is not None
    assert report.verification.verified
    (entry,) = (entry for entry in fixed.metadata_props if entry.key == DROPPED_KEY)
    assert json.loads(entry.value) == {"y": record}
    x = np.random.default_rng(0).standard_normal((2, 2, 3 if opset == 13 else 1)).astype(np.float32)
    numbers = np.exp(zoo.session(fixed).run(None, {"x": x})[0])
    wanted = numbers / numbers.sum(record["axis"], keepdims=True)
    np.testing.assert_allclose(wanted, zoo.session(zoo.parse(text)).run(None, {"x": x})[0], rtol=1e-6)


def test_a_softmax_over_several_axes_stays(tmp_path: Path) -> None:
    """Before opset 13, one over classes and places: callers have none that does the same."""
    text = """
    <ir_version: 7, opset_import: ["": 11]>
    g (float[N,2,3] x) => (float[N,2,3] y) { logits = Neg (x) y = Softmax <axis = 1> (logits) }
    """
    _, report = fix(saved(tmp_path, text), drop_output_activations=True, select=["OUT002"])
    assert not report.changed


def test_what_is_changed_on_purpose_is_said_not_to_be_compared(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,2,H] x) => (float[A,8] y) <int64[2] shape = {-1, 8}> { a = Identity (x) y = Reshape (a, shape) }
    """
    path = saved(tmp_path, text)
    fixed, report = fix(path, unsafe=True, select=["SHP004", "GRF003"])
    assert [one.finding.code for one in report.applied] == ["SHP004", "GRF003"]
    assert report.not_compared == ("what --unsafe changed on purpose",)
    x = np.zeros((3, 2, 8), np.float32)
    assert run(onnx.load(path), {"x": x})[0].shape == (6, 8)
    assert run(fixed, {"x": x})[0].shape == (3, 16)


# --bind


def test_a_bound_input_is_a_constant(tmp_path: Path) -> None:
    path = saved(tmp_path, RESIZE)
    fixed, report = fix(path, bind={"factor": "1,1,3,3"}, select=["SHP"])
    assert [value.name for value in fixed.graph.input] == ["x"]
    assert report.verification is not None
    assert report.verification.verified
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 5)).astype(np.float32)
    wanted = run(onnx.parser.parse_model(RESIZE), {"x": x, "factor": np.array([1, 1, 3, 3], np.float32)})[0]
    np.testing.assert_array_equal(run(fixed, {"x": x})[0], wanted)
    np.save(tmp_path / "values.npy", np.array([1, 1, 3, 3], np.float32))
    again, _ = fix(path, bind={"factor": str(tmp_path / "values.npy")}, select=["SHP"])
    assert again.graph == fixed.graph


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("1,1,3", "the value has shape [3], and the input takes [4]"),
        ("1,1,x,3", "neither numbers of type float32"),
        ("missing.npy", "missing.npy: cannot be read: No such file"),
        ("", "neither numbers"),
        ("1," * 20_000, "write them to an .npy file"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path: Path, value: str, says: str) -> None:
    with pytest.raises(OnnxlintError) as caught:
        fix(saved(tmp_path, RESIZE), bind={"factor": value})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("damage", ["truncated", "header", "pickle", "huge", "type"])
def test_damaged_arrays_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "v.npy"
    np.save(path, np.array([1, 1, 3, 3], np.float64 if damage == "type" else np.float32))
    data = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(data[:-3])
    elif damage == "header":
        path.write_bytes(data.replace(b"'shape'", b"'shap\xff'"))
    elif damage == "huge":
        path.write_bytes(data.replace(b"(4,), }             ", b"(99999999999999,), }"))
    elif damage == "pickle":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(OnnxlintError, match=r"v\.npy"):
        fix(saved(tmp_path, RESIZE), bind={"factor": str(path)})


def test_an_input_that_does_not_exist_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(OnnxlintError, match="no input 'facto'; did you mean 'factor'"):
        fix(saved(tmp_path, RESIZE), bind={"facto": "1,1,3,3"})


# Some axes of a shape


def test_a_question_mark_leaves_an_axis(tmp_path: Path) -> None:
    fixed, _ = fix(saved(tmp_path, RESIZE), static=["x=1,3,?,8"], select=["SHP"])
    dims = [dim.dim_param or dim.dim_value for dim in fixed.graph.input[0].type.tensor_type.shape.dim]
    assert dims == [1, 3, "H", 8]
    freed, report = fix(saved(tmp_path, fixed), dynamic=["x=B,?,?,?"], select=["SHP"])
    dims = [dim.dim_param or dim.dim_value for dim in freed.graph.input[0].type.tensor_type.shape.dim]
    assert dims == ["B", 3, "H", 8]
    assert report.verification is not None
    assert report.verification.equal


@pytest.mark.parametrize("size", ["0", "99999999999999999999999", "\u0663", "-1", "1.5", "a b"])
def test_a_size_is_a_number_in_bounds(tmp_path: Path, size: str) -> None:
    with pytest.raises(OnnxlintError, match="a size is a number"):
        fix(saved(tmp_path, RESIZE), static=[f"x=1,3,4,{size}"])


# Empty inputs

EMPTY = """
<ir_version: 8, opset_import: ["": 17]>
g (float[B,4,H,W] x) => (float[B,4,P] y) <int64[1] i0 = {0}, int64[1] i1 = {1}, int64[2] rest = {4, -1}> {
    s = Shape (x)
    b = Slice (s, i0, i1)
    t = Concat <axis = 0> (b, rest)
    y = Reshape (x, t)
}
"""


def test_that_sizes_have_to_be_at_least_one_is_said_once_and_recorded(tmp_path: Path) -> None:
    from onnxlint.model.metadata import MIN_SIZE_KEY, metadata
    from onnxlint.report.fix import render_fix

    text = EMPTY.replace("int64[2] rest = {4, -1}", "int64[1] four = {4}").replace("(b, rest)", "(b, four, area)")
    text = text.replace("t = Concat", "h = Slice (s, i2, i3) w = Slice (s, i3, i4) area = Mul (h, w) t = Concat")
    text = text.replace(
        "int64[1] i1 = {1}", "int64[1] i1 = {1}, int64[1] i2 = {2}, int64[1] i3 = {3}, int64[1] i4 = {4}"
    )
    path = saved(tmp_path, text)
    fixed, report = fix(path, select=["SHP"])
    assert report.has_minimum
    assert metadata(fixed)[MIN_SIZE_KEY] == "1"
    assert render_fix(report, None).count("sizes of at least 1 (--allow-empty keeps 0)") == 1
    assert "--" not in render_fix(report, None, "deploy")
    kept, report = fix(path, select=["SHP"], allow_empty=True)
    assert not report.has_minimum
    assert MIN_SIZE_KEY not in metadata(kept)
    x = np.zeros((0, 4, 2, 3), np.float32)
    assert run(kept, {"x": x})[0].shape == (0, 4, 6)


def test_a_padded_map_that_is_empty_is_not_pooled(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N,3,H,W] x) => (float[N,3,A,B] y) <int64[8] pads = {0, 0, 1, 1, 0, 0, 1, 1}> {
        padded = Pad (x, pads)
        y = AveragePool <kernel_shape = [2, 2]> (padded)
    }
    """
    path = saved(tmp_path, text)
    _, report = fix(path, select=["GRF009"])
    assert report.changed
    assert report.has_minimum
    _, report = fix(path, select=["GRF009"], allow_empty=True)
    assert not report.changed


def test_a_minimum_that_the_original_has_is_none_of_ours(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[B,4,H,W] x) => (float[B,4,P] y) <int64[3] shape = {0, 4, -1}> { a = Identity (x) y = Reshape (a, shape) }
    """
    _, report = fix(saved(tmp_path, text), select=["GRF"])
    assert report.changed
    assert not report.has_minimum


EINSUM = """<ir_version: 8, opset_import: ["": 17]> g (float[N,4] x, float[M,4] w) => (float[A,4] y) {
    y = Einsum <equation = "ij,ij->ij"> (x, w) }"""


def test_a_size_that_an_einsum_would_repeat_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, EINSUM)
    np.save(tmp_path / "one.npy", np.ones((1, 4), np.float32))
    np.save(tmp_path / "three.npy", np.ones((3, 4), np.float32))
    says = r"Einsum 'y' would repeat axis 'i' of its first operand, which onnxruntime takes for 1"
    for wanted in ({"bind": {"x": str(tmp_path / "one.npy")}}, {"static": ["x=1,4"]}):
        with pytest.raises(OnnxlintError, match=says):
            fix(path, verify=False, **wanted)
    fix(path, verify=False, bind={"x": str(tmp_path / "three.npy")})
    fix(path, verify=False, bind={"w": str(tmp_path / "one.npy")})  # its first size is that of x
    one = saved(tmp_path, EINSUM.replace("float[N,4] x, float[M,4] w", "float[1,4] x, float[1,4] w"))
    with pytest.raises(OnnxlintError, match=says):
        fix(one, verify=False, dynamic=["w=M,4"])


def test_a_value_of_a_size_that_no_input_fits_is_refused(tmp_path: Path) -> None:
    path = saved(
        tmp_path,
        """<ir_version: 8, opset_import: ["": 17]> g (float[N,H] x, float[N,H] z) => (float[N,2] y)
        <float[3,2] w = {1, 2, 3, 4, 5, 6}> { a = Add (x, z) y = MatMul (a, w) }""",
    )
    np.save(tmp_path / "z.npy", np.ones((2, 4), np.float32))
    with pytest.raises(
        OnnxlintError, match="bind: the model does not accept these sizes: MatMul 'y' needs sizes 4 and 3"
    ):
        fix(path, verify=False, bind={"z": str(tmp_path / "z.npy")})


ANCHORS = """<ir_version: 8, opset_import: ["": 17]> g (float[N,3,H,W] x) => (float[N,P,2] cls, float[N,Q,4] box)
    <float[4,3,1,1] w = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, int64[3] two = {0, -1, 2}, int64[3] four = {0, -1, 4}> {
        a = Conv (x, w) b = Transpose <perm = [0, 2, 3, 1]> (a) cls = Reshape (b, two) c = Neg (PART) box = Reshape (c, four)
    }"""


def test_heads_whose_sizes_never_meet_are_not_joined(tmp_path: Path) -> None:
    path = saved(tmp_path, ANCHORS.replace("PART", "b"))
    with pytest.raises(OnnxlintError, match=r"the outputs differ in axis 1 too \('cls' 2\*H\*W, 'box' H\*W\)"):
        fix(path, verify=False, concat_heads=["cls", "box"])
    twice = ANCHORS.replace("PART", "d").replace("c = Neg", "d = Concat <axis = 1> (b, b) c = Neg")
    joined, report = fix(saved(tmp_path, twice), concat_heads=["cls", "box"])
    assert outputs(joined) == ["output"]
    assert report.verification is not None
    assert report.verification.verified


PARTLY = """<ir_version: 8, opset_import: ["": 17]> g (INPUTS) => (float[OUT] cls, float[OTHER] box)
    <float[4,4,2] up = {UP}, float[2,4,1] w = {1, 2, 3, 4, 5, 6, 7, 8}, int64[3] one = {1, -1, 2},
     float[4,2] m = {1, 2, 3, 4, 5, 6, 7, 8}> { BODY }""".replace("UP", ",".join(map(str, range(32))))
HALVED = """a = MaxPool <kernel_shape = [2], strides = [2]> (x)
    cls = ConvTranspose <kernel_shape = [2], strides = [2]> (a, up) box = Conv (x, w)"""


def partly(tmp_path: Path, inputs: str, body: str) -> Path:
    sizes = ("A,B", "C,D") if "NonZero" in body else ("A,B,C", "D,E,F")
    text = PARTLY.replace("INPUTS", inputs).replace("BODY", body).replace("OUT", sizes[0]).replace("OTHER", sizes[1])
    return saved(tmp_path, text)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize(
    ("inputs", "body", "says"),
    [
        ("float[1,4,h] x", HALVED, r"axis 2 too .* equal if h % 2 == 0: allow it with assume 'h % 2 == 0'"),
        ("float[1,P,4] x, float[1,Q,2] z", "cls = Relu (x) box = Relu (z)", r"axis 1 too \('cls' P, 'box' Q\)$"),
        (
            "float[N,P,4] x",
            "cls = Relu (x) b = MatMul (x, m) box = Reshape (b, one)",
            r"axis 0 too \('cls' N, 'box' 1\)$",
        ),
    ],
)
def test_heads_that_meet_at_some_sizes_only_are_refused(
    tmp_path: Path, inputs: str, body: str, says: str, verify: bool
) -> None:
    with pytest.raises(OnnxlintError, match=says):
        fix(partly(tmp_path, inputs, body), verify=verify, concat_heads=["cls", "box"])


def test_heads_that_meet_under_a_condition_are_joined_where_it_is_assumed(tmp_path: Path) -> None:
    path = partly(tmp_path, "float[1,4,h] x", HALVED)
    joined, report = fix(path, concat_heads=["cls", "box"], assume=["h % 4 == 0"])
    assert report.conditions == ("h % 2 == 0",)
    assert metadata(joined)["onnxlint.assumes"] == "h % 2 == 0"
    assert report.verification is not None
    assert report.verification.verified


def test_heads_of_sizes_that_the_model_itself_demands_are_joined(tmp_path: Path) -> None:
    body = HALVED.replace("box =", "b =") + " c = Concat <axis = 1> (cls, b) box = Relu (b)"
    sizes = body.replace("box = Relu (b)", "d = ReduceSum <keepdims = 0> (c) box = Add (b, d)")
    joined, report = fix(partly(tmp_path, "float[1,4,h] x", sizes), concat_heads=["cls", "box"])
    assert outputs(joined) == ["output"]
    assert report.conditions == ()


def test_heads_of_sizes_that_nobody_knows_are_joined_where_the_models_are_run(tmp_path: Path) -> None:
    unknown = """n = NonZero (x) f = Cast <to = 1> (n) cls = Transpose <perm = [1, 0]> (f) g = NonZero (z)
        h = Cast <to = 1> (g) i = Transpose <perm = [1, 0]> (h) box = Mul (i, i)"""
    path = partly(tmp_path, "float[N,4] x, float[N,4,1] z", unknown)
    with pytest.raises(OnnxlintError, match="cannot be told from the graph, and was not seen"):
        fix(path, verify=False, concat_heads=["cls", "box"])
    joined, report = fix(path, concat_heads=["cls", "box"])
    assert outputs(joined) == ["output"]
    assert report.verification is not None
    assert report.verification.verified


def test_a_head_without_elements_is_not_joined(tmp_path: Path) -> None:
    path = saved(
        tmp_path,
        """<ir_version: 8, opset_import: ["": 17]> g (float[N,8] x) => (float[N,0] a, float[N,8] b)
        <int64[1] zero = {0}, int64[1] one = {1}> { a = Slice (x, zero, zero, one) b = Neg (x) }""",
    )
    with pytest.raises(OnnxlintError, match="'a' has no elements along axis 1"):
        fix(path, verify=False, concat_heads=["a", "b"])


def test_an_unsafe_copy_of_the_batch_beside_a_minus_one_needs_a_batch(tmp_path: Path) -> None:
    path = saved(
        tmp_path,
        """<ir_version: 8, opset_import: ["": 17]> g (float[N,6,2] x) => (float[1,P,3] y) <int64[3] t = {1, -1, 3}> {
        y = Reshape (x, t) }""",
    )
    _, report = fix(path, unsafe=True, select=["SHP003"])
    assert report.applied
    assert report.has_minimum
