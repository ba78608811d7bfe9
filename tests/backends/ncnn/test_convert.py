"""From ONNX to ncnn: what comes out, what is said where it does not."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxlint.api import fix
from onnxlint.backends import Job, NotConvertible
from onnxlint.backends.ncnn import convert as conversion
from onnxlint.backends.ncnn.convert import clean, convert, run_in_child, snr, trace
from onnxlint.backends.ncnn.format import parse_bin, parse_param, save
from onnxlint.backends.ncnn.run import NcnnSession
from onnxlint.backends.ncnn.tools import pnnx_binary
from onnxlint.conversion.session import explain
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import Recipe
from onnxlint.model.skeleton import open_model
from onnxlint.symbolic.view import make_view
from tests.support.ncnn_nets import DATA, REFERENCE, needs_data, small

pytest.importorskip("pnnx", reason="the pnnx wheel is not installed")

JOB = Job(Recipe())


def write(
    folder: Path,
    nodes: list[Any],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    opset: int = 13,
    **data: Any,
) -> str:
    """An ONNX file."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in data.items()],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return str(path)


def weights(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def conv(source: str, made: str, weight: str = "w", **attributes: Any) -> Any:
    return helper.make_node("Conv", [source, weight], [made], name=f"make_{made}", **attributes)


def test_names_stay_and_activations_are_fused(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        [
            conv("image of a face", "y", pads=[1, 1, 1, 1]),
            helper.make_node("HardSwish", ["y"], ["1"]),
            conv("1", "z", "v"),
            helper.make_node("Sigmoid", ["z"], ["scores"]),
            helper.make_node("Identity", ["1"], ["same"]),
        ],
        {"image of a face": ["N", 3, "H", "W"]},
        {"scores": ["N", 2, "H", "W"], "1": ["N", 4, "H", "W"]},
        w=weights(4, 3, 3, 3),
        v=weights(2, 4, 1, 1),
    )
    model = onnx.load(path)
    model.opset_import[0].version = 14
    onnx.save(model, path)
    made = convert(path, Job(Recipe(size=(20, 12))))
    assert made.shapes == {"image of a face": (1, 3, 12, 20)}
    assert made.net.inputs() == ["image_of_a_face"]
    assert set(made.net.outputs()) == {"scores", "1"}
    assert made.blobs == {"image of a face": "image_of_a_face", "scores": "scores", "1": "1"}
    assert min(made.snr_db.values()) > 90
    assert {layer.type for layer in made.net.layers} <= {"Input", "Convolution", "Split"}
    assert [layer.integer(9) for layer in made.net.layers if layer.type == "Convolution"] == [6, 4]
    assert "cannot hold its name" in made.notes[0]


def test_free_sizes_need_a_shape(tmp_path: Path) -> None:
    path = write(
        tmp_path, [conv("x", "y")], {"x": ["N", 3, "H", "W"]}, {"y": ["N", 4, "h", "w"]}, w=weights(4, 3, 1, 1)
    )
    with pytest.raises(OnnxlintError, match=r"input 'x' has free sizes \(N×3×H×W\).*--shape W,H,C"):
        convert(path, JOB)
    assert convert(path, Job(Recipe(), shape={"": (3, 8, 8)})).shapes == {"x": (1, 3, 8, 8)}
    with pytest.raises(OnnxlintError, match="is N×3×H×W, not 1×4×8×8"):
        convert(path, Job(Recipe(), shape={"x": (1, 4, 8, 8)}))


def test_operators_without_a_place_are_named(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        [conv("x", "y"), helper.make_node("Det", ["y"], ["d"], name="the determinant")],
        {"x": [1, 3, 8, 8]},
        {"d": [1, 4]},
        w=weights(4, 3, 1, 1),
    )
    with pytest.raises(NotConvertible) as caught:
        convert(path, JOB)
    assert "Det 'the determinant'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.lint_target == "ncnn"


def test_of_several_the_right_nodes_are_named(tmp_path: Path) -> None:
    """pnnx calls a Resize F.interpolate_7: which node it was follows from its place among its kind."""
    nodes = [helper.make_node("Resize", ["x", "", "twice"], [f"y{i}"], name=f"resize {i}") for i in range(3)]
    nodes.insert(1, helper.make_node("Concat", ["y0", "y0"], ["c"], name="concat", axis=1))
    path = write(tmp_path, nodes, {"x": [1, 3, 8, 8]}, {"y2": [1, 3, 16, 16]}, twice=np.array([1, 1, 2, 2], np.float32))
    graph = make_view(open_model(path)).main
    converted = [("F.interpolate", f"F.interpolate_{i}") for i in (3, 5, 7)] + [("torch.cat", "cat_1")]
    found = trace(graph, [("F.interpolate", "F.interpolate_5"), ("torch.cat", "cat_1")], converted)
    assert {kind: [node.name for node in nodes] for kind, nodes in found.items()} == {
        "F.interpolate": ["resize 1"],
        "torch.cat": ["concat"],
    }
    # Where some of them became something else, any may be at fault.
    found = trace(graph, [("F.interpolate", "F.interpolate_5")], converted[1:])
    assert len(found["F.interpolate"]) == 3


def test_a_net_that_computes_something_else_is_not_reported_as_made(tmp_path: Path, monkeypatch: Any) -> None:
    path = write(tmp_path, [conv("x", "y")], {"x": [1, 3, 8, 8]}, {"y": [1, 4, 8, 8]}, w=weights(4, 3, 1, 1))
    monkeypatch.setattr(conversion, "LEAST_SNR", 1000.0)
    monkeypatch.setattr(conversion, "LEAST_OF_ANY", 1000.0)
    with pytest.raises(NotConvertible, match=r"ncnn computes something else: output 'y' has \d+\.\d dB SNR"):
        convert(path, JOB)


def test_padding_of_one_side_is_refused_until_it_is_written_out(tmp_path: Path) -> None:
    """pnnx pads a MaxPool on both sides where SAME_UPPER means one: Keras exports have that."""
    pool = helper.make_node(
        "MaxPool", ["a"], ["y"], name="pool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"
    )
    path = write(tmp_path, [conv("x", "a"), pool], {"x": [1, 3, 8, 8]}, {"y": [1, 4, 4, 4]}, w=weights(4, 3, 1, 1))
    with pytest.raises(NotConvertible, match=r"ncnn computes something else: output 'y' has -?\d+\.\d dB SNR"):
        convert(path, JOB)
    findings, options = explain(path, "ncnn")
    assert any(line.startswith("OPS010 pool: ") for line in findings)
    assert options == ""
    fixed = str(tmp_path / "fixed.onnx")
    fix(path, fixed)
    assert min(convert(fixed, JOB).snr_db.values()) > 90


@pytest.mark.parametrize(
    ("op", "opset", "axes", "right"),
    [
        ("ReduceMean", 18, [1], False),
        ("ReduceMean", 18, [2, 3], True),
        ("ReduceMean", 17, [1], True),
        ("ReduceSum", 13, [-1], False),
        ("ReduceMax", 17, [2, 3], False),
        ("ReduceMax", 17, [2], True),
    ],
)
def test_the_table_knows_which_reductions_become_right_nets(
    tmp_path: Path, op: str, opset: int, axes: list[int], right: bool
) -> None:
    is_input = opset >= (13 if op == "ReduceSum" else 18)
    inputs, attributes = (["a", "axes"], {}) if is_input else (["a"], {"axes": axes})
    nodes = [conv("x", "a"), helper.make_node(op, inputs, ["y"], name="reduce", **cast(Any, attributes))]
    data = {"w": weights(4, 3, 1, 1), **({"axes": np.array(axes)} if is_input else {})}
    path = write(tmp_path, nodes, {"x": [1, 3, 6, 8]}, {"y": [None] * 4}, opset, **data)
    assert any(line.startswith("TGT004 reduce: ") for line in explain(path, "ncnn")[0]) != right
    if right:
        assert min(convert(path, JOB).snr_db.values()) > 90
    else:
        with pytest.raises(NotConvertible):
            convert(path, JOB)


def test_outputs_that_are_rounding_errors_in_every_runtime_are_no_reason_to_refuse(tmp_path: Path) -> None:
    """As the probabilities of a text detector on noise are: here the difference of two nearly equal sums."""
    large = 1e4 * weights(4, 16, 3, 3)
    path = write(
        tmp_path,
        [
            conv("x", "a", strides=[2, 2]),
            conv("x", "b", "v", strides=[2, 2]),
            helper.make_node("Sub", ["a", "b"], ["y"], name="minus"),
        ],
        {"x": [1, 16, 13, 13]},
        {"y": [1, 4, 6, 6]},
        w=large,
        v=large + weights(4, 16, 3, 3)[::-1],
    )
    made = convert(path, JOB)
    assert 20 < made.snr_db["y"] < conversion.LEAST_SNR
    (note,) = made.notes
    assert "output 'y' has" in note
    assert "if the last bit of the input changes" in note


def test_quantized_and_half_models_are_told_so(tmp_path: Path) -> None:
    path = write(
        tmp_path, [conv("x", "y")], {"x": [1, 3, 8, 8]}, {"y": [1, 4, 8, 8]}, w=weights(4, 3, 1, 1).astype(np.float16)
    )
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, path)
    with pytest.raises(NotConvertible, match=r"its weights are fp16.*give the fp32 model"):
        convert(path, JOB)


def test_external_data_and_odd_paths(tmp_path: Path) -> None:
    folder = tmp_path / "with space (1)"
    folder.mkdir()
    path = write(folder, [conv("x", "y")], {"x": [1, 8, 8, 8]}, {"y": [1, 64, 8, 8]}, w=weights(64, 8, 1, 1))
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.data", size_threshold=0)
    assert convert(path, JOB).snr_db["y"] > 90
    assert sorted(os.listdir(folder)) == ["model.onnx", "weights.data"]


def test_a_crash_is_an_error_with_a_reason(tmp_path: Path) -> None:
    net = parse_param("7767517\n2 2\nInput in 0 1 in\nInnerProduct dense 1 1 in out 0=2 1=0 2=8\n")
    net = parse_bin(net, bytes(4) + weights(8).tobytes())
    save(net, tmp_path / "a.param")
    found = run_in_child(str(tmp_path / "a.param"), {"in": weights(1, 4)}, str(tmp_path))
    assert not isinstance(found, str)
    assert found["out"].shape == (1, 2)
    os.truncate(tmp_path / "a.bin", 20)
    reason = run_in_child(str(tmp_path / "a.param"), {"in": weights(1, 4)}, str(tmp_path))
    assert isinstance(reason, str)
    assert "the .bin is cut" in reason


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: Any) -> None:
    path = write(tmp_path, [helper.make_node("Det", ["x"], ["d"])], {"x": [1, 3, 8, 8]}, {"d": [1, 3]})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=0))
    monkeypatch.setattr(conversion, "run_tool", lambda *_: (1, ""))
    with pytest.raises(OnnxlintError, match="the disk is full"):
        convert(path, JOB)


def test_tools_that_are_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, [conv("x", "y")], {"x": [1, 3, 8, 8]}, {"y": [1, 4, 8, 8]}, w=weights(4, 3, 1, 1))
    with pytest.raises(OnnxlintError, match="not a folder"):
        convert(path, Job(Recipe(), tools=str(tmp_path / "none")))
    # The program of the wheel, as a tool in a folder.
    tools = tmp_path / "tools"
    tools.mkdir()
    binary = pnnx_binary()
    assert binary is not None
    (tools / "pnnx").symlink_to(binary)
    assert convert(path, Job(Recipe(), tools=str(tools))).made_with == "pnnx"


def test_useless_layers_go() -> None:
    net = parse_param(
        "7767517\n6 6\nInput in 0 1 in\nNoop n 1 1 in a\nSplit s 1 1 a b\n"
        "Dropout d 1 1 b c\nReLU r 1 1 c d\nNoop e 1 1 d out\n"
    )
    out = clean(net)
    assert [(layer.name, layer.bottoms, layer.tops) for layer in out.layers] == [
        ("in", (), ("in",)),
        ("r", ("in",), ("d",)),
        ("e", ("d",), ("out",)),
    ]
    assert out.blob_count == 3


@pytest.mark.parametrize(
    "activation", ["ReLU", "ReLU 0=0.1", "Clip 0=-1 1=2", "Sigmoid", "Mish", "HardSwish 0=0.3 1=0.4"]
)
def test_fused_activations_compute_the_same(activation: str) -> None:
    kind, *params = activation.split()
    text = (
        "7767517\n3 3\nInput in 0 1 in\nConvolution c 1 1 in a 0=4 1=3 2=1 3=1 4=0 5=0 6=108 11=3\n"
        f"{kind} r 1 1 a out {' '.join(params)}\n"
    )
    net = parse_bin(parse_param(text), bytes(4) + weights(108).tobytes())
    fused = clean(net)
    assert len(fused.layers) == 2
    assert dict(fused.layers[1].params).keys() <= {0, 1, 6, 9, 10}
    x = weights(1, 3, 9, 9)
    [before], [after] = NcnnSession(net).run({"in": x}), NcnnSession(fused).run({"in": x})
    assert snr(before, after) > 120


def test_an_activation_stays_where_something_else_reads_what_it_reads() -> None:
    net = small()
    assert [layer.type for layer in clean(net).layers] == [layer.type for layer in net.layers]


@needs_data
def test_retinaface_is_the_reference() -> None:
    made = convert(str(DATA / "retinaface" / "hand_fixed_released.onnx"), JOB)
    real = parse_param((REFERENCE / "fp32.param").read_text())
    assert min(made.snr_db.values()) > 100
    assert [layer.name for layer in made.net.layers[1:]] == [layer.name for layer in real.layers[1:]]
    for ours, theirs in zip(made.net.layers, real.layers, strict=True):
        if ours.blobs:
            assert [key for key, _ in ours.params] == [key for key, _ in theirs.params]
        assert all(ours.numbers(key) == theirs.numbers(key) for key, _ in theirs.params)
    assert made.net.outputs() == ["output0"]


def test_an_input_that_gives_a_size_is_to_be_bound(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[1,3,8,8] x, float[4] factor) => (float[1,3,h,w] y)
    { y = Resize<mode = "cubic">(x, , factor) }"""
    onnx.save(onnx.parser.parse_model(text), path)
    with pytest.raises(NotConvertible, match=rf"'onnxlint fix {path} --bind factor=1,1,2,2 -o FILE'"):
        convert(str(path), Job(recipe=Recipe()))
