"""Learned scales and weights: PyTorch computes what onnxruntime does, and what is learned is kept where it is closer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxlint.backends import Array, Job, find_target
from onnxlint.backends.closeness import ENOUGH
from onnxlint.backends.ort import learn, qdq
from onnxlint.backends.ort.judge import Judge
from onnxlint.backends.ort.session import run, start
from onnxlint.backends.ort.targets import METHODS
from onnxlint.backends.ort.torch_part import OPERATORS, Part, understood
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import ImageSet
from tests.backends.ort.test_int8 import PIXELS, RECIPE, make, network

torch = pytest.importorskip("torch", reason="needs onnxlint[torch]")

NODES = {
    "Add": "y = Add(x, c)",
    "AveragePool": "y = AveragePool<kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 0]>(x)",
    "Clip": "y = Clip(x, low, high)",
    "Concat": "y = Concat<axis=1>(x, x)",
    "Conv": "y = Conv<pads=[1, 0, 0, 2], strides=[2, 1], dilations=[1, 2]>(x, w, b)",
    "ConvTranspose": "y = ConvTranspose<pads=[1, 0, 1, 0], strides=[2, 1]>(x, w, b)",
    "Div": "y = Div(x, c)",
    "Gemm": "y = Gemm<transB=1>(x, m, b)",
    "GlobalAveragePool": "y = GlobalAveragePool(x)",
    "HardSigmoid": "y = HardSigmoid<alpha=0.3>(x)",
    "LeakyRelu": "y = LeakyRelu<alpha=0.2>(x)",
    "MatMul": "y = MatMul(x, n)",
    "MaxPool": "y = MaxPool<kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 0, 1]>(x)",
    "Mul": "y = Mul(x, c)",
    "Pow": "y = Pow(x, two)",
    "ReduceMean": "y = ReduceMean<axes=[2, 3], keepdims=1>(x)",
    "Relu": "y = Relu(x)",
    "Resize": 'y = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , scales)',
    "Sigmoid": "y = Sigmoid(x)",
    "Softmax": "y = Softmax<axis=1>(x)",
    "Split": "s, y = Split<axis=2>(x, sizes)",
    "Sqrt": "p = Mul(x, x)\n y = Sqrt(p)",
    "Sub": "y = Sub(x, c)",
    "Transpose": "y = Transpose<perm=[0, 2, 3, 1]>(x)",
}
"""Operator → nodes that use it."""

CONSTANTS: dict[str, Array] = {
    "c": np.array([[[1.5]], [[-2.0]]], np.float32),
    "low": np.array(-0.25, np.float32),
    "high": np.array(0.5, np.float32),
    "sizes": np.array([2, 4], np.int64),
    "two": np.array(2.0, np.float32),
    "scales": np.array([1, 1, 2, 2], np.float32),
    "w": np.random.default_rng(1).standard_normal((2, 2, 3, 2)).astype(np.float32),
    "m": np.random.default_rng(2).standard_normal((2, 42)).astype(np.float32),
    "n": np.random.default_rng(3).standard_normal((7, 3)).astype(np.float32),
    "b": np.array([0.5, -1.0], np.float32),
}

SHAPES = {"Gemm": (3, 42)}
"""Of the input, where it is no image."""


def of_text(text: str, shape: tuple[int, ...] = (1, 2, 6, 7)) -> onnx.ModelProto:
    sizes = ",".join(map(str, shape))
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 13]> g (float[{sizes}] x) => (float y) {{ {text} }}'
    )
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in CONSTANTS.items() if k in used)
    return model


def part_of(model: onnx.ModelProto) -> Part:
    return Part(list(model.graph.node), {tensor.name: tensor for tensor in model.graph.initializer}, ("x",), ("y",))


def test_every_operator_is_tried() -> None:
    assert set(NODES) == set(OPERATORS)


@pytest.mark.parametrize("operator", NODES)
def test_operators_compute_what_onnxruntime_does(operator: str) -> None:
    shape = SHAPES.get(operator, (1, 2, 6, 7))
    model = of_text(NODES[operator], shape)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    (right,) = run(start(model), "m", {"x": x})
    part = part_of(model)
    assert all(understood(node, {name: len(one.dims) for name, one in part.constants.items()}) for node in part.nodes)
    (found,) = part([x])
    np.testing.assert_allclose(found.detach().numpy(), right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        'y = Conv<auto_pad="SAME_UPPER">(x, w)',
        "y = ConvTranspose<pads=[1, 0, 0, 0]>(x, w)",
        "y = ConvTranspose<output_padding=[1, 0], strides=[2, 2]>(x, w)",
        "y = AveragePool<kernel_shape=[2, 2], pads=[1, 0, 0, 0]>(x)",
        "y = MaxPool<kernel_shape=[2, 2], ceil_mode=1>(x)",
        "y = MaxPool<kernel_shape=[2, 2], dilations=[2, 2]>(x)",
        "y = Gemm<alpha=2.0>(x, m)",
        "y = Conv(x, n)",
        "y = Split<axis=1>(x)",
        "y = Transpose(x)",
        "y = ReduceMean(x)",
        'y = Resize<mode="linear">(x, , scales)',
        'y = Resize<mode="nearest">(x, , , sizes)',
        "y = Erf(x)",
    ],
)
def test_what_is_not_computed_is_not_understood(text: str) -> None:
    part = part_of(of_text(text))
    assert not understood(part.nodes[0], {name: len(one.dims) for name, one in part.constants.items()})


def rounded(model: onnx.ModelProto, largest: float) -> onnx.ModelProto:
    """The model in int8, with one range for all values."""
    return qdq.quantize(model, dict.fromkeys(qdq.activations(model), (-largest, largest)))


def inputs(count: int, seed: int = 0) -> list[dict[str, Array]]:
    generator = np.random.default_rng(seed)
    return [{"x": generator.standard_normal((1, 3, 24, 24)).astype(np.float32)} for _ in range(count)]


def test_wide_ranges_are_learned_and_all_again_is_the_same() -> None:
    model = network(17, 24)
    made = rounded(model, 60.0)
    before = made.SerializeToString()
    found = learn.learn(model, made, inputs(8), inputs(4, 1), name="m")
    assert made.SerializeToString() == before
    assert found.parts == found.closer == 3
    judge = Judge.of("m", model, inputs(8, 2), 1)
    assert judge.score(found.model) > judge.score(made) + 3
    onnx.checker.check_model(found.model)
    weights = {one.name: numpy_helper.to_array(one) for one in found.model.graph.initializer}
    assert weights["wide0.w_quantized"].dtype == np.int8
    assert np.abs(weights["wide0.w_quantized"].astype(int)).max() <= 127
    again = learn.learn(model, made, inputs(8), inputs(4, 1), name="m", threads=1)
    assert again.model.SerializeToString() == found.model.SerializeToString()


def test_weights_of_seven_bits_stay_so() -> None:
    model = network(17, 24)
    made = qdq.quantize(model, dict.fromkeys(qdq.activations(model), (-8.0, 8.0)), levels=64)
    found = learn.learn(model, made, inputs(4), inputs(2, 1), name="m", levels=64)
    assert found.closer
    weights = [numpy_helper.to_array(one) for one in found.model.graph.initializer if one.name.endswith("_quantized")]
    assert max(np.abs(one.astype(int)).max() for one in weights) == 64


def test_what_layers_compute_with_is_read_back() -> None:
    model = network(17, 24)
    made = qdq.quantize(model, dict.fromkeys(qdq.activations(model), (-3.0, 9.0)), {"wide0"})
    back, keep = learn.reconstructed(model, made)
    assert keep == {"wide0"}
    again = qdq.quantize(back.model, back.ranges, keep, back.weights)
    judge = Judge.of("m", made, inputs(2), 1)
    assert judge.score(again) == ENOUGH


def test_what_is_no_closer_on_other_inputs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learn, "RATES", dict.fromkeys(learn.RATES, 1e6))  # infinite after a step
    made = rounded(network(17, 24), 8.0)
    found = learn.learn(network(17, 24), made, inputs(4), inputs(2, 1), name="m")
    assert (found.parts, found.closer) == (3, 0)
    assert found.model.SerializeToString() == made.SerializeToString()


def test_a_part_that_is_computed_otherwise_is_left() -> None:
    """Half of a pixel lies between what this Resize takes and what PyTorch's does."""
    text = 'r = Conv<pads=[1, 0, 1, 1]>(x, w, b)\n y = Resize<mode="nearest", nearest_mode="ceil">(r, , scales)'
    model = of_text(text)
    for node in model.graph.node:
        node.name = node.output[0]
    made = rounded(model, 4.0)
    x = [{"x": one["x"][:, :2, :6, :7]} for one in inputs(4)]
    found = learn.learn(model, made, x, x, name="m")
    assert (found.parts, found.closer) == (1, 0)


def test_layers_behind_what_is_not_understood_are_learned_too() -> None:
    """A convolution along one axis, which is left, stands between others."""
    text = """k = Conv<pads=[1, 0, 1, 1]>(x, w, b)
        e = Erf(k)
        d = Conv<pads=[1, 0, 1, 1]>(e, w2, b)
        f = Reshape(d, flat)
        g = Conv(f, w3)
        h = Reshape(g, back)
        y = Conv<pads=[1, 0, 1, 1]>(h, w4, b)"""
    model = of_text(text)
    weight = CONSTANTS["w"]
    more = {"w2": weight, "w3": weight[:, :, :1, 0], "w4": weight}
    more |= {"flat": np.array([1, 2, 42]), "back": np.array([1, 2, 6, 7])}
    model.graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in more.items())
    for node in model.graph.node:
        node.name = node.output[0]
    x = [{"x": one["x"][:, :2, :6, :7]} for one in inputs(6)]
    found = learn.learn(model, rounded(model, 30.0), x[:4], x[4:], name="m")
    assert found.parts == 3
    assert found.closer


def test_the_method_says_what_it_gained(tmp_path: Path) -> None:
    images = ImageSet("pixels", arrays=np.random.default_rng(8).integers(0, 256, (24, 24, 24, 3), dtype=np.uint8))
    made, _, out = make(tmp_path, network(), images=images, method="learned")
    assert any("learned scales and weights: " in note and "on other calibration images" in note for note in made.notes)
    assert made.details["method"] == "learned"
    facts = made.details["learned"]
    assert facts["inputs"] == 16
    assert 0 <= facts["closer"] <= facts["parts"] == 3
    onnx.checker.check_model(onnx.load(out))
    assert {one.state for one in made.decisions} == {"int8"}


def test_without_torch_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxlint.backends.ort import targets

    monkeypatch.setattr(targets, "not_installed", lambda packages, extra: f"{packages[0]}: onnxlint[{extra}]")
    with pytest.raises(OnnxlintError, match=r"--method learned: torch: onnxlint\[torch\]"):
        make(tmp_path, network(), images=ImageSet("pixels", arrays=PIXELS), method="learned")


def test_tensorrt_has_no_learned_scales(tmp_path: Path) -> None:
    backend, target = find_target("tensorrt-int8")
    onnx.save(network(17, 24), tmp_path / "m.onnx")
    job = Job(RECIPE, ImageSet("pixels", arrays=PIXELS), method="learned")
    with pytest.raises(OnnxlintError, match="tensorrt-int8 knows auto, minmax, percentile, entropy and mse"):
        backend.make(target, str(tmp_path / "m.onnx"), (str(tmp_path / "o.onnx"),), job)
    assert "learned" in METHODS
