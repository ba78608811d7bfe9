"""Files for TensorRT: types, Q/DQ and what its parser says, as far as that is known without it; numbers in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import onnxlint
from onnxlint.backends import Artifact, Job, backend_for, find_target
from onnxlint.backends.ort.calibrate import Histogram
from onnxlint.backends.tensorrt.backend import NOT_RUN
from onnxlint.backends.tensorrt.symmetric import groups, mirrored, shortcuts
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import Recipe
from tests.support.conv_nets import IMAGES, RECIPE, conv_net

pytest.importorskip("onnxruntime")

X = np.random.default_rng(3).standard_normal((1, 3, 24, 24)).astype(np.float32)


def make(source: str, to: str, folder: Path, **more: Any) -> tuple[Artifact, onnx.ModelProto]:
    backend, target = find_target(to)
    out = str(folder / f"m{target.files[0]}")
    made = backend.make(target, source, (out,), Job(**{"recipe": Recipe(), **more}))
    return made, onnx.load(out)


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def snr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10((a.astype(np.float64) ** 2).sum() / ((a - b) ** 2).sum()))


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Artifact, onnx.ModelProto]:
    folder = tmp_path_factory.mktemp("tensorrt")
    source = conv_net(folder / "m.onnx")
    made, model = make(source, "tensorrt-int8", folder, images=IMAGES, recipe=RECIPE)
    return source, made, model


def test_numbers_in_onnxruntime(int8: tuple[str, Artifact, onnx.ModelProto]) -> None:
    source, made, _ = int8
    expected, got = (backend_for(path).open(path).run({"x": X}) for path in (source, made.files[0]))
    for a, b in zip(expected, got, strict=True):
        assert b.dtype == np.float32
        assert snr(a, b) > 15
    assert {one.layer: one.state for one in made.decisions}["stem"] == "int8"
    assert NOT_RUN in made.notes
    assert made.details["run_in"] == "onnxruntime"


def test_activations_are_int8_around_zero_and_weights_have_all_bits(
    int8: tuple[str, Artifact, onnx.ModelProto],
) -> None:
    model = int8[2]
    held = arrays(model)
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(pairs) > 10
    peaks = []
    for node in pairs:
        if len(node.input) > 2:
            assert held[node.input[2]].dtype == np.int8
            assert not held[node.input[2]].any()
            assert held[node.input[1]].ndim == (node.input[0] in held)  # of weights, a dense layer's
        if node.input[0] in held:
            weights = held[node.input[0]]
            assert weights.dtype == np.int8, "no Q/DQ on biases, which are int32"
            assert held[node.input[1]].shape == (weights.shape[1 if node.output[0].startswith("up") else 0],)
            peaks.append(np.abs(weights.astype(int)).max())
    assert max(peaks) == 127


def test_the_rest_is_float16_by_casts(int8: tuple[str, Artifact, onnx.ModelProto]) -> None:
    source, made, model = int8
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 19
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    held = arrays(model)
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        assert held[node.input[2]].dtype == np.float16
    scales = {held[node.input[1]].dtype for node in model.graph.node if node.op_type.endswith("tizeLinear")}
    assert scales == {np.dtype(np.float16)} or made.details["float32"]
    del source


def test_a_shortcut_is_quantized(int8: tuple[str, Artifact, onnx.ModelProto]) -> None:
    model = int8[2]
    makers = {name: node for node in model.graph.node for name in node.output}
    add = next(node for node in model.graph.node if node.op_type == "Add")
    kinds = sorted(makers[name].op_type for name in add.input)
    assert kinds == ["Conv", "DequantizeLinear"]
    assert shortcuts(model) == {
        list(model.graph.node).index(add): [makers[n].op_type for n in add.input].index(kinds[1])
    }


def test_what_a_concat_joins_shares_a_scale() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 13]>
        g (float[1,2,4,4] a, float[1,2,4,4] b, float[1,2,4,4] c) => (float[1,4,4,4] y, float[1,4,4,4] z) {
            pooled = MaxPool <kernel_shape = [1, 1]> (b)
            y = Concat <axis = 1> (a, pooled)
            z = Concat <axis = 1> (c, c)
        }
        """
    )
    first = groups(model, ["a", "b", "c", "y"])
    assert first["a"] == first["b"] == first["y"] != first["c"]
    found = {name: Histogram(low, high, np.ones(4096)) for name, low, high in (("a", -1, 2), ("b", 0, 8), ("y", -1, 8))}
    for name, one in mirrored(found, first).items():
        assert (one.low, one.high) == (-8, 8), name
        np.testing.assert_array_equal(one.counts, one.counts[::-1])
        assert one.counts.sum() == pytest.approx(2 * 3 * 4096)


def test_float16(tmp_path: Path) -> None:
    source = conv_net(tmp_path / "m.onnx", "size")
    made, model = make(source, "tensorrt-fp16", tmp_path)
    assert not [node for node in model.graph.node if node.op_type.endswith("tizeLinear")]
    expected, got = (backend_for(path).open(path).run({"x": X}) for path in (source, made.files[0]))
    assert min(snr(a, b) for a, b in zip(expected, got, strict=True)) > 40
    assert NOT_RUN in made.notes
    assert any(note.startswith("check --target tensorrt-11: TGT002 ") for note in made.notes), (
        "free sizes need a profile"
    )


def test_check_knows_what_the_parser_refuses(int8: tuple[str, Artifact, onnx.ModelProto], tmp_path: Path) -> None:
    source, made, _ = int8
    assert not list(onnxlint.check(made.files[0], targets=["tensorrt-11"], select="TGT"))
    backend, target = find_target("onnx-int8-static")
    other = str(tmp_path / "q.onnx")
    backend.make(target, source, (other,), Job(RECIPE, IMAGES, method="minmax"))
    said = " ".join(one.message for one in onnxlint.check(other, targets=["tensorrt-11"], select="TGT"))
    assert "zero points other than 0" in said
    assert "TensorRT 11.5" in said


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_other_methods_kept_nodes_and_the_same_again(tmp_path: Path, method: str) -> None:
    source = conv_net(tmp_path / "m.onnx")
    how = {"images": IMAGES, "recipe": RECIPE, "method": method, "keep": ("wide",)}
    made, _ = make(source, "tensorrt-int8", tmp_path, **how)
    first = Path(made.files[0]).read_bytes()
    states = {one.layer: one.state for one in made.decisions}
    assert states["wide"] == "fp32"
    assert states["stem"] == "int8"
    make(source, "tensorrt-int8", tmp_path, **how, threads=1)
    assert Path(made.files[0]).read_bytes() == first


def test_wrong_requests_are_one_line(tmp_path: Path) -> None:
    source = conv_net(tmp_path / "m.onnx")
    backend, target = find_target("tensorrt-int8")
    with pytest.raises(OnnxlintError, match="--method kl2"):
        backend.preflight(target, source, Job(RECIPE, IMAGES, method="kl2"))
    with pytest.raises(OnnxlintError, match="calibrated on images"):
        make(source, "tensorrt-int8", tmp_path)
    with pytest.raises(OnnxlintError, match="has no node 'nothing'"):
        make(source, "tensorrt-int8", tmp_path, images=IMAGES, recipe=RECIPE, keep=("nothing",))
