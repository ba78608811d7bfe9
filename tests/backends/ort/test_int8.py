"""int8 for onnxruntime: dynamic, and static with each calibrator."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxlint.backends import Artifact, Job, Port, backend_for, find_target
from onnxlint.backends.ort import auto, qdq
from onnxlint.backends.ort.calibrate import CANDIDATES, Histogram, clipped, divergence
from onnxlint.backends.ort.calibration import parts_of
from onnxlint.backends.ort.plan import METHODS
from onnxlint.backends.ort.session import OrtSession
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import ImageSet, Recipe

PIXELS = np.random.default_rng(7).integers(0, 256, (6, 24, 24, 3), dtype=np.uint8)


class FakeSession:
    """What `parts_of` reads of a session."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.inputs = (Port("x", shape, "float32"),)


RECIPE = Recipe(None, (127.5,) * 3, (1 / 64,) * 3, "RGB")


def network(opset: int = 11, size: int | str = "H") -> onnx.ModelProto:
    """Depthwise-separable layers whose channels have very different ranges, and two joined heads of different sizes."""
    generator = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def conv(name: str, source: str, out: int, inside: int, kernel: int, spread: float = 0.0, **more: Any) -> str:
        weight = generator.standard_normal((out, inside, kernel, kernel)) / np.sqrt(inside * kernel * kernel)
        weight *= np.exp(spread * generator.standard_normal((out, 1, 1, 1)))
        weights.append(numpy_helper.from_array(weight.astype(np.float32), f"{name}.w"))
        weights.append(numpy_helper.from_array(generator.standard_normal(out).astype(np.float32) * 0.1, f"{name}.b"))
        pads: dict[str, Any] = {"pads": [kernel // 2] * 4, "kernel_shape": [kernel, kernel]}
        nodes.append(helper.make_node("Conv", [source, f"{name}.w", f"{name}.b"], [name], name=name, **pads, **more))
        return name

    def leaky(source: str) -> str:
        nodes.append(helper.make_node("LeakyRelu", [source], [f"{source}.act"], name=f"{source}.act", alpha=0.1))
        return f"{source}.act"

    value = leaky(conv("stem", "x", 8, 3, 3, 1.5, strides=[2, 2]))
    for i in range(2):
        value = leaky(conv(f"deep{i}", value, 8, 1, 3, 1.5, group=8))
        value = leaky(conv(f"wide{i}", value, 8, 8, 1, 1.5))
    joined = [conv("box", value, 4, 8, 1), conv("class", value, 2, 8, 1, 2.0)]
    nodes.append(helper.make_node("Concat", joined, ["y"], name="join", axis=1))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N" if size == "H" else 1, 3, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 6, None, None])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    model.metadata_props.add(key="onnxlint.heads", value="[]")
    return model


def make(tmp_path: Path, model: onnx.ModelProto, to: str = "onnx_quan_st", **more: Any) -> tuple[Artifact, str, str]:
    source = tmp_path / "model.onnx"
    onnx.save(model, source)
    backend, target = find_target(to)
    out = tmp_path / f"model{target.files[0]}"
    more = {"recipe": RECIPE, **more}
    made = backend.make(target, str(source), (str(out),), Job(**more))
    return made, str(source), str(out)


def heads_snr(source: str, made: str, size: int = 24) -> float:
    """Mean SNR of the two heads on images that nothing was calibrated on."""
    images = np.random.default_rng(99).standard_normal((4, 3, size, size)).astype(np.float32)
    signal, noise = np.zeros(2), np.zeros(2)
    a, b = backend_for(source).open(source), backend_for(made).open(made)
    for image in images:
        r, c = (one.run({"x": image[None]})[0].astype(np.float64) for one in (a, b))
        for i, part in enumerate((slice(0, 4), slice(4, 6))):
            signal[i] += np.sum(r[:, part] ** 2)
            noise[i] += np.sum((r - c)[:, part] ** 2)
    return float(np.mean(10 * np.log10(signal / noise)))


def test_each_calibrator_makes_a_model_that_runs(tmp_path: Path) -> None:
    found = {}
    for method in ("minmax", "percentile", "entropy", "auto"):
        made, source, out = make(tmp_path, network(), images=ImageSet("pixels", arrays=PIXELS), method=method)
        proto = onnx.load(out)
        onnx.checker.check_model(proto)
        assert next(entry.version for entry in proto.opset_import if entry.domain == "") >= 13
        assert [(entry.key, entry.value) for entry in proto.metadata_props] == [("onnxlint.heads", "[]")]
        weights = {tensor.name: tensor for tensor in proto.graph.initializer}
        quantized = weights["wide0.w_quantized"]
        assert quantized.data_type == TensorProto.INT8
        assert numpy_helper.to_array(weights["wide0.w_scale"]).shape == (8,)
        assert "wide0.w_zero_point" not in weights  # none: 0
        assert {one.state for one in made.decisions} == {"int8"}
        assert made.details["images"] == 6
        found[method] = heads_snr(source, out)
        heads_snr(source, out, 40)  # sizes stay free
    assert found["auto"] > max(found["minmax"], found["percentile"], found["entropy"]) + 3
    assert found["minmax"] > 5


def test_mixed_keeps_what_hurts_within_its_budget(tmp_path: Path) -> None:
    images = ImageSet("pixels", arrays=PIXELS)
    _, source, out = make(tmp_path, network(), images=images)
    pure = heads_snr(source, out)
    made, _, _ = make(tmp_path, network(), images=images, mixed=True, budget=0.1)
    kept = [one for one in made.decisions if one.state == "fp32"]
    assert kept
    assert sum(one.bytes or 0 for one in kept) <= 0.1 * made.details["pure_int8_bytes"]
    assert made.details["bytes"] <= 1.1 * made.details["pure_int8_bytes"]
    assert heads_snr(source, out) > pure
    none, _, _ = make(tmp_path, network(), images=images, mixed=True, budget=0.0)
    assert all(one.state == "int8" for one in none.decisions)


def test_the_same_again_is_the_same_and_threads_do_not_matter(tmp_path: Path) -> None:
    images = ImageSet("pixels", arrays=PIXELS)
    first = Path(make(tmp_path, network(), images=images)[2]).read_bytes()
    assert Path(make(tmp_path, network(), images=images, threads=1)[2]).read_bytes() == first
    assert str(tmp_path).encode() not in first
    assert b"/tmp/" not in first
    again = [Path(make(tmp_path, network(), "onnx_quan_dy")[2]).read_bytes() for _ in range(2)]
    assert again[0] == again[1]


def test_kept_nodes_stay_in_float(tmp_path: Path) -> None:
    images = ImageSet("pixels", arrays=PIXELS)
    for to, method in (("onnx_quan_st", "minmax"), ("onnx_quan_st", "auto"), ("onnx_quan_dy", "auto")):
        made, _, out = make(tmp_path, network(), to, images=images, method=method, keep=("wide1",))
        assert {one.layer for one in made.decisions if one.state == "fp32"} == {"wide1"}
        assert "wide1.w" in {tensor.name for tensor in onnx.load(out).graph.initializer}
    with pytest.raises(OnnxlintError, match=r"has no node 'wide7'.*did you mean 'wide"):
        make(tmp_path, network(), images=images, keep=("wide7",))


def test_wrong_calibration_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(OnnxlintError, match="give some with --images"):
        make(tmp_path, network())
    good = ImageSet("pixels", arrays=PIXELS)
    with pytest.raises(OnnxlintError, match=r"--method kull: .* knows auto, learned, minmax"):
        make(tmp_path, network(), images=good, method="kull")
    black = ImageSet("black", arrays=np.zeros((3, 24, 24, 3), np.uint8))
    with pytest.raises(OnnxlintError, match="every image is of one colour"):
        make(tmp_path, network(), images=black)
    with pytest.raises(OnnxlintError, match=r"is 1×3×24×24, and the recipe makes 1×3×16×16 .* check --shape"):
        make(tmp_path, network(size=24), images=good, recipe=Recipe((16, 16)))
    with pytest.raises(OnnxlintError, match="NaN or infinity"):
        make(tmp_path, network(), images=ImageSet("n", arrays=np.full((1, 3, 24, 24), np.nan, np.float32)))
    assert not list(tmp_path.glob("*_quan*"))


TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
g (int64[N, L] ids, int64[N, L] mask) => (float[N, L, 8] y) {
    t = Constant <value = float[4, 8] {1,2,3,4,5,6,7,8, 1,1,2,2,3,3,4,4,
        -1,1,-1,1,-2,2,-2,2, 0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8}> ()
    e = Gather (t, ids)
    f = Cast <to = 1> (mask)
    axes = Constant <value = int64[1] {2}> ()
    g2 = Unsqueeze (f, axes)
    h = Mul (e, g2)
    y = MatMul (h, w)
}
"""


def test_texts_go_without_images(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(TEXT)
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    images = ImageSet("pixels", arrays=PIXELS)
    made, _, _ = make(tmp_path, model, "onnx_quan_dy", images=images)
    assert made.details["snr_db"] > 25
    assert made.notes == ("run on made-up inputs: it takes no images",)
    with pytest.raises(OnnxlintError, match=r"has 2 inputs \(ids, mask\).*onnx-int8-dynamic and onnx-fp16"):
        make(tmp_path, model, images=images)


def test_nothing_to_quantize(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 3, 24, 24] x) => (float[1, 3, 24, 24] y) { y = Tanh (x) }"""
    for to, method in (("onnx_quan_dy", "auto"), ("onnx_quan_st", "auto"), ("onnx_quan_st", "minmax")):
        with pytest.raises(OnnxlintError, match="has no layer with weights"):
            make(tmp_path, onnx.parser.parse_model(text), to, images=ImageSet("p", arrays=PIXELS), method=method)


def test_the_entropy_search_searches() -> None:
    """A normal distribution with a few far outliers: the threshold lies between its bulk and them."""
    generator = np.random.default_rng(0)
    x = np.concatenate([generator.standard_normal(200_000), [40.0, -40.0, 39.0]])
    histogram = Histogram(-40.0, 40.0, np.histogram(x, 4096, (-40, 40))[0].astype(np.float64))
    low, high = clipped("entropy", histogram)
    assert 3 < high < 20
    assert -20 < low < -3
    costs = [divergence(histogram, (-40 * part, 40 * part)) for part in CANDIDATES]
    assert len({round(cost, 9) for cost in costs}) > len(costs) // 2
    assert clipped("minmax", histogram) == (-40.0, 40.0)
    assert clipped("percentile", histogram)[1] < 40
    low, high = clipped("mse", histogram)
    assert 3 < high < 40


def test_a_quantized_model_is_not_quantized_again(tmp_path: Path) -> None:
    images = ImageSet("pixels", arrays=PIXELS)
    _, _, out = make(tmp_path, network(), images=images, method="minmax")
    for to in ("onnx_fp16", "onnx_quan_dy", "onnx_quan_st"):
        with pytest.raises(OnnxlintError, match="is quantized already"):
            make(tmp_path, onnx.load(out), to, images=images)


def test_sizes_are_not_quantized(tmp_path: Path) -> None:
    """A chain that exporters leave when a picture is resized to the size of another; int8 would round the sizes."""
    text = """
    <ir_version: 8, opset_import: ["" : 13]>
    g (float[N, 3, H, W] x) => (float[N, 3, A, B] y) {
        p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)
        c = Conv (p, w)
        s = Shape (x)
        f = Cast <to = 1> (s)
        two = Constant <value = float {1.5}> ()
        m = Mul (f, two)
        i = Cast <to = 7> (m)
        zero = Constant <value = int64[1] {2}> ()
        end = Constant <value = int64[1] {4}> ()
        hw = Slice (i, zero, end)
        o = Shape (c)
        a = Constant <value = int64[1] {0}> ()
        nc = Slice (o, a, zero)
        sizes = Concat <axis = 0> (nc, hw)
        r = Resize <mode = "nearest"> (c, , , sizes)
        y = Conv (r, v)
    }
    """
    model = onnx.parser.parse_model(text)
    generator = np.random.default_rng(0)
    for name in ("w", "v"):
        weight = generator.standard_normal((3, 3, 1, 1)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(weight, name))
    for method in ("minmax", "auto"):
        made, _, out = make(tmp_path, model, images=ImageSet("p", arrays=PIXELS), method=method)
        y = backend_for(out).open(out).run({"x": np.ones((1, 3, 26, 22), np.float32)})[0]
        assert y.shape == (1, 3, 39, 33)
        assert made.details["snr_db"] > 25


def test_only_what_layers_read_is_rounded(tmp_path: Path) -> None:
    _, _, out = make(tmp_path, network(), images=ImageSet("pixels", arrays=PIXELS))
    proto = onnx.load(out)
    rounded = [node.input[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    assert rounded == ["x", "stem.act", "deep0.act", "wide0.act", "deep1.act", "wide1.act"]
    pairs = {node.input[0]: node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    for node in proto.graph.node:
        if node.op_type == "Conv":
            assert node.input[0] in pairs.values()
            assert pairs[f"{node.name}.w_quantized"] == node.input[1]


def test_relu_networks_run_in_integers(tmp_path: Path) -> None:
    """onnxruntime makes integer convolutions of what stands between two roundings, a ReLU included."""
    model = network(13)
    for node in model.graph.node:
        if node.op_type == "LeakyRelu":
            node.op_type = "Relu"
            del node.attribute[:]
    made, _, out = make(tmp_path, model, images=ImageSet("pixels", arrays=PIXELS))
    assert made.details["integer_layers"] == 5  # all but the two heads, whose results are floats
    assert not [note for note in made.notes if "integers" in note]
    assert {one.name for one in tmp_path.iterdir()} == {"model.onnx", Path(out).name}


def test_layers_that_onnxruntime_computes_in_float_are_said(tmp_path: Path) -> None:
    made, _, _ = make(tmp_path, network(13), images=ImageSet("pixels", arrays=PIXELS))
    assert made.details["integer_layers"] == 0
    assert len([one for one in made.decisions if one.state == "int8"]) == 7
    (note,) = (note for note in made.notes if "integers" in note)
    assert (
        "computes 0 of 7 int8 layers in integers here, and the others in float, as LeakyRelu or Concat follows" in note
    )


@pytest.mark.parametrize(("bits", "largest"), [(8, 127), (7, 64)])
def test_bits_of_weights(tmp_path: Path, bits: int, largest: int) -> None:
    for method in ("auto", "minmax"):
        made, source, out = make(
            tmp_path, network(), images=ImageSet("pixels", arrays=PIXELS), weight_bits=bits, method=method
        )
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(out).graph.initializer}
        peaks = [int(np.abs(value.astype(int)).max()) for name, value in tensors.items() if name.endswith("_quantized")]
        assert max(peaks) == largest
        assert made.details["weight_bits"] == bits
        assert "VNNI" in made.details["weight_bits_why"] or "AVX2" in made.details["weight_bits_why"]
        assert heads_snr(source, out) > 5
    with pytest.raises(OnnxlintError, match="has 7 or 8"):
        make(tmp_path, network(), images=ImageSet("pixels", arrays=PIXELS), weight_bits=4)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [0.0, 1e-38, 1e-45, 1e-31])
def test_channels_of_tiny_weights(tmp_path: Path, size: float) -> None:
    model = network()
    for tensor in model.graph.initializer:
        if tensor.name in ("wide0.w", "deep1.w", "class.w"):
            values = numpy_helper.to_array(tensor).copy()
            values[1] = np.float32(size)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for to, method in (("onnx_quan_st", "auto"), ("onnx_quan_st", "minmax"), ("onnx_quan_dy", "auto")):
        made, _, out = make(tmp_path, model, to, images=ImageSet("pixels", arrays=PIXELS), method=method)
        assert made.details["snr_db"] > 5
        for tensor in onnx.load(out).graph.initializer:
            assert np.isfinite(numpy_helper.to_array(tensor).astype(np.float64)).all()


def test_a_calibrator_that_suits_badly_is_said(tmp_path: Path) -> None:
    """A lone large value carries the answer: what clips it is far behind min-max."""
    text = """<ir_version: 8, opset_import: ["" : 13]> g (float[N, 3, 24, 24] x) => (float[N, 3, 24, 24] y)
    { c = Conv(x, w) s = Mul(c, c) q = Mul(s, s) p = Mul(q, q) y = Conv(p, v) }"""
    model = onnx.parser.parse_model(text)
    for name in ("w", "v"):
        model.graph.initializer.append(numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1), name))
    made, _, _ = make(tmp_path, model, images=ImageSet("pixels", arrays=PIXELS), method="entropy")
    plain, _, _ = make(tmp_path, model, images=ImageSet("pixels", arrays=PIXELS), method="minmax")
    behind = plain.details["snr_db"] - made.details["snr_db"]
    assert bool(made.notes) == (behind > 1), behind
    assert behind > 1
    assert "minmax is" in made.notes[0]


def test_a_condition_of_the_model_explains_a_shape(tmp_path: Path) -> None:
    model = network()
    model.metadata_props.add(key="onnxlint.assumes", value="H % 16 == 0")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[2].dim_param = "H"
    arrays = np.random.default_rng(0).standard_normal((3, 3, 24, 24)).astype(np.float32)
    with pytest.raises(OnnxlintError, match=r"is 1×3×24×24: 24 on axis 2 violates .*\(H % 16 == 0\)"):
        make(tmp_path, model, images=ImageSet("inputs", arrays=arrays))


def test_a_plain_method_is_taken_where_it_is_closer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(base: onnx.ModelProto, candidates: Any, *_: Any) -> tuple[onnx.ModelProto, tuple[str, ...]]:
        return qdq.quantize(base, {key: one[0] for key, one in candidates.items()}, frozenset(), levels=1), ()

    pixels = ImageSet("pixels", arrays=PIXELS)
    plain = [make(tmp_path, network(), images=pixels, method=one)[0].details["snr_db"] for one in METHODS]
    monkeypatch.setattr(auto, "_rounded", broken)
    artifact, _, _ = make(tmp_path, network(), images=pixels, method="auto")
    (note,) = [one for one in artifact.notes if "was taken" in one]
    assert note.split()[0] in METHODS
    assert artifact.details["snr_db"] in plain


@pytest.mark.parametrize("method", ["minmax", "auto"])
def test_ranges_come_from_all_images(tmp_path: Path, method: str) -> None:
    """One of 60 images is bright; wherever it is, its values are not cut off."""
    dark = np.random.default_rng(0).integers(100, 140, (60, 24, 24, 3), dtype=np.uint8)
    for at in (0, 1, 2, 3, 31):
        pixels = dark.copy()
        pixels[at, 4:9] = 255
        _, _, out = make(tmp_path, network(), images=ImageSet("pixels", arrays=pixels), method=method)
        held = {one.name: numpy_helper.to_array(one) for one in onnx.load(out).graph.initializer}
        highest = (255 - int(held["x_zero_point"])) * float(held["x_scale"])
        assert highest == pytest.approx((255 - 127.5) / 64, rel=0.01), at


def test_small_images_judge_in_greater_number() -> None:
    job = Job(RECIPE, ImageSet("inputs", arrays=np.zeros((100, 1))))
    small, large = (parts_of(cast(OrtSession, FakeSession((1, 3, size, size))), job) for size in (32, 640))
    assert (len(small.held), len(small.unfitted), len(small.rest)) == (32, 33, 35)
    assert (len(large.held), len(large.unfitted), len(large.rest)) == (12, 8, 80)


def test_a_product_without_a_bias_keeps_its_mean(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    model = network(size=24)
    del model.graph.output[:]
    weight = generator.standard_normal((8, 6)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "bare.w"))
    model.graph.node.extend(
        [
            helper.make_node("Transpose", ["wide1.act"], ["last"], perm=[0, 2, 3, 1], name="last"),
            helper.make_node("MatMul", ["last", "bare.w"], ["product"], name="bare"),
            helper.make_node("ReduceMean", ["product"], ["z"], axes=[1, 2], keepdims=0, name="mean"),
        ]
    )
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 6]))
    ours, _, _ = make(tmp_path, model, images=ImageSet("pixels", arrays=PIXELS), method="auto")
    plain, _, _ = make(tmp_path, model, images=ImageSet("pixels", arrays=PIXELS), method="percentile")
    assert ours.details["snr_db"] > plain.details["snr_db"]


def test_zero_points_of_a_dense_layer_are_named(tmp_path: Path) -> None:
    """onnxruntime 1.21 takes a default zero point for one of all channels, and refuses a Gemm that has scales for each."""
    generator = np.random.default_rng(0)
    weights = {"c": (8, 3, 3, 3), "d": (8, 5), "e": (4, 5)}
    held = [
        numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    nodes = [
        helper.make_node("Conv", ["x", "c"], ["a"], name="first", kernel_shape=[3, 3]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["f"]),
        helper.make_node("Gemm", ["f", "d"], ["g"], name="second"),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "e"], ["y"], name="third", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 24, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    _, source, out = make(tmp_path, model, images=ImageSet("pixels", arrays=PIXELS))
    proto = onnx.load(out)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for name, scales in (("d", 5), ("e", 4)):
        assert arrays[f"{name}_scale"].shape == (scales,)
        assert np.array_equal(arrays[f"{name}_zero_point"], np.zeros(scales, np.int8))
    assert "c_zero_point" not in arrays
    image = PIXELS[0].transpose(2, 0, 1)[None].astype(np.float32) / 64 - 2
    (exact,), (rounded,) = (backend_for(path).open(path).run({"x": image}, ["y"]) for path in (source, out))
    assert 20 * np.log10(np.linalg.norm(exact) / np.linalg.norm(exact - rounded)) > 20


@pytest.mark.parametrize(("count", "judged"), [(21, "mirrored images"), (22, "other calibration images")])
def test_plain_methods_are_compared_on_images_that_nothing_was_fitted_to(
    tmp_path: Path, count: int, judged: str
) -> None:
    pixels = np.random.default_rng(8).integers(0, 256, (count, 24, 24, 3), dtype=np.uint8)
    made, _, _ = make(tmp_path, network(), images=ImageSet("pixels", arrays=pixels))
    trials = made.details["trials_db"]
    assert isinstance(trials, dict)
    assert f"auto, first 2 {judged}" in trials
    assert made.details["images"] == count
