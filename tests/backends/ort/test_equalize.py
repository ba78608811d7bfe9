"""Cross-layer equalization: what is rescaled computes the same, and channels come closer to each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from onnxlint.backends.ort.calibrate import Ends, Ranges, channel_extremes, whole
from onnxlint.backends.ort.equalize import loosened, tightened
from onnxlint.backends.ort.judge import computer
from onnxlint.backends.ort.plan import Plan
from onnxlint.backends.ort.qdq import activations, layers, nearest, nearly_rounded, quantize
from onnxlint.backends.ort.session import part, run, start
from onnxlint.backends.ort.strength import STRENGTHS, Evener

X = {"x": np.random.default_rng(5).standard_normal((2, 3, 16, 16)).astype(np.float32)}
SPREAD = np.logspace(-1.5, 1.5, 8).reshape(8, 1, 1, 1)

BETWEEN = {
    "scaled": "d = Mul(c, two)  e = Add(d, half)",
    "divided": "d = Div(c, six)  e = Sub(one, d)",
    "hard swish": "a = Add(c, three)  b = Clip(a, zero, six)  m = Mul(c, b)  d = Div(m, six)  e = Add(d, vector)",
    "gate": "p = GlobalAveragePool(c)  q = Conv(p, s)  g = HardSigmoid(q)  e = Mul(c, g)",
    "gate on the left": "p = GlobalAveragePool(c)  q = Conv(p, s)  g = HardSigmoid(q)  m = Mul(g, c)  e = Add(c, m)",
    "gate of one channel": "q = Conv(c, t)  g = Sigmoid(q)  e = Mul(c, g)",
    "slope": "e = PRelu(c, slope)",
}
STAYS = {
    "square": "e = Mul(c, c)",
    "over the height": "e = Add(c, rows)",
    "inverse": "d = Abs(c)  f = Add(d, one)  e = Div(one, f)",
}


def model_of(between: str, last: str = "e", opset: int = 13) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]>\nm (float[n, 3, 16, 16] x) => (float[n, 4, 16, 16] y) '
        f"{{ c = Conv<pads=[1, 1, 1, 1]>(x, w)  {between}  y = Conv({last}, v) }}"
    )
    random = np.random.default_rng(0)
    arrays = {
        "w": random.standard_normal((8, 3, 3, 3)) * SPREAD,
        "v": random.standard_normal((4, 8, 1, 1)),
        "k": random.standard_normal((8, 1, 3, 3)),
        "s": random.standard_normal((8, 8, 1, 1)),
        "t": random.standard_normal((1, 8, 1, 1)),
        "vector": random.standard_normal((1, 8, 1, 1)),
        "slope": random.uniform(0, 1, (8, 1, 1)),
        "rows": random.standard_normal((1, 1, 16, 1)),
        **{
            name: np.array(value)
            for name, value in {"zero": 0, "half": 0.5, "one": 1, "two": 2, "three": 3, "six": 6}.items()
        },
    }
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items() if name in used
    )
    for i, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{i}"
    return onnx.shape_inference.infer_shapes(model)


def values(model: onnx.ModelProto, name: str) -> np.ndarray:
    return np.asarray(run(start(part(model, [name]), name="m"), "m", X)[0])


def even_models(model: onnx.ModelProto, every: Sequence[Ends]) -> dict[str, tuple[onnx.ModelProto, Ranges]]:
    evener = Evener.of(model, X, Plan("m"), activations(model))
    made = {label: evener.made(strength, every) for label, strength in STRENGTHS.items()}
    return {label: (even, whole(ends)) for label, (even, ends) in made.items()}


def evened(model: onnx.ModelProto) -> dict[str, onnx.ModelProto]:
    names = activations(model)
    every = channel_extremes([X], computer(model, names, "m", 1), names)
    found = even_models(model, every)
    for one, ranges in found.values():
        for name, (low, high) in ranges.items():
            inside = values(one, name)
            np.testing.assert_allclose((inside.min(), inside.max()), (low, high), rtol=1e-3)
    return {label: one for label, (one, _) in found.items()}


def spread(model: onnx.ModelProto) -> float:
    """How far the channels that the second layer reads are apart."""
    peaks = np.abs(values(model, "e")).max(axis=(0, 2, 3))
    return float(peaks.max() / peaks.min())


@pytest.mark.parametrize("kind", BETWEEN)
def test_channels_are_evened_and_outputs_stay(kind: str) -> None:
    model = model_of(BETWEEN[kind])
    even = evened(model)
    half, whole = even["equalized by half"], even["equalized"]
    before = values(model, "y")
    for one in (half, whole):
        onnx.checker.check_model(one)
        np.testing.assert_allclose(values(one, "y"), before, rtol=1e-3, atol=1e-3 * np.abs(before).max())
    assert spread(whole) < spread(half) < spread(model)
    read = {name for node in whole.graph.node for name in node.input}
    assert {tensor.name for tensor in whole.graph.initializer} <= read


@pytest.mark.parametrize("kind", STAYS)
def test_what_is_not_homogeneous_stays(kind: str) -> None:
    model = model_of(STAYS[kind])
    whole = evened(model)["equalized"]
    np.testing.assert_array_equal(values(whole, "e"), values(model, "e"))


DEPTHWISE = {
    "hard swish": "e = HardSwish(c)",
    "SiLU": "g = Sigmoid(c)  e = Mul(c, g)",
    "sum": "a = Abs(c)  b = Tanh(c)  e = Add(a, b)",
}


def depthwise_model(between: str) -> onnx.ModelProto:
    """What stands between a convolution and a depthwise one."""
    return model_of(f"{between}  d = Conv<pads=[1, 1, 1, 1], group=8>(e, k)  f = Relu(d)", last="f", opset=14)


def shapes_of(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {"x": X["x"].shape} | {name: values(model, name).shape for node in model.graph.node for name in node.output}


@pytest.mark.parametrize("kind", DEPTHWISE)
def test_depthwise_convolutions_get_factors_of_their_own(kind: str) -> None:
    model = depthwise_model(DEPTHWISE[kind])
    names = activations(model)
    every = channel_extremes([X], computer(model, names, "m", 1), names)
    evener = Evener.of(model, X, Plan("m"), names)
    assert evener.products == {"e:even": "e"}
    before = values(model, "y")
    for strength in (0.0, 0.5, 1.0):
        even, ends = evener.made(strength, every)
        onnx.checker.check_model(even)
        np.testing.assert_allclose(values(even, "y"), before, rtol=1e-3, atol=1e-4 * np.abs(before).max())
        assert "e:even" in activations(even)
        inside = values(even, "e:even")
        np.testing.assert_allclose(whole(ends)["e:even"], (inside.min(), inside.max()), rtol=1e-3)
        peaks = np.abs(inside).max(axis=(0, 2, 3))
        assert peaks.max() / peaks.min() < 4 < 100 < spread(even)
        if not strength:
            plain, less = (
                channel_decibels(model, quantize(one, {key: found[key] for key in activations(one)}, weights_too=False))
                for one, found in ((model, whole(every[0])), (even, whole(ends)))
            )
            assert less.min() > plain.min() + 20
            assert less.mean() > plain.mean() + 10


def channel_decibels(exact: onnx.ModelProto, made: onnx.ModelProto) -> np.ndarray:
    """SNR of the channels behind the depthwise convolution."""
    reference = values(exact, "f")
    noise = ((values(made, "f") - reference) ** 2).sum(axis=(0, 2, 3))
    return np.asarray(10 * np.log10((reference**2).sum(axis=(0, 2, 3)) / noise))


@pytest.mark.parametrize("between", ["e = Clip(c, zero, six)", "e = Relu(c)", "e = Identity(c)"])
def test_what_is_fused_with_the_convolution_before_gets_no_product(between: str) -> None:
    model = depthwise_model(between)
    assert not loosened(model, shapes_of(model), layers(model))[1]


def test_a_convolution_that_stays_float_gets_no_product() -> None:
    model = depthwise_model(DEPTHWISE["hard swish"])
    (kept,) = (node.name for node in model.graph.node if "k" in node.input)
    plan = Plan("m", keep=frozenset({kept}))
    names = activations(model, plan.keep)
    every = channel_extremes([X], computer(model, names, "m", 1), names)
    evener = Evener.of(model, X, plan, names)
    assert not evener.products
    even, ends = evener.made(0.0, every)
    assert even is model
    assert list(ends) == names


def test_a_product_by_1_goes_again() -> None:
    model = depthwise_model(DEPTHWISE["hard swish"])
    loose, products = loosened(model, shapes_of(model), layers(model))
    assert [node.op_type for node in loose.graph.node].count("Mul") == 1
    again, dropped = tightened(loose, products)
    assert dropped == {"e:even"}
    assert again.graph.node == model.graph.node
    assert {one.name for one in again.graph.initializer} == {one.name for one in model.graph.initializer}


def test_weights_that_are_nearly_rounded() -> None:
    model = model_of("e = Relu(c)")
    old, half, whole = (
        {one.name: numpy_helper.to_array(one) for one in nearly_rounded(model, share).graph.initializer}
        for share in (0.0, 0.5, 1.0)
    )
    for name, axis in (("w", 0), ("v", 0)):
        np.testing.assert_allclose(whole[name], nearest(old[name], axis, 127)[0], rtol=1e-6)
        np.testing.assert_allclose(half[name], (old[name] + whole[name]) / 2, rtol=1e-5, atol=1e-7)


def test_float_weights_are_not_rounded_by_onnxruntime() -> None:
    model = model_of("e = Relu(c)")
    ranges = {name: (float(values(model, name).min()), float(values(model, name).max())) for name in ("e",)} | {
        "x": (float(X["x"].min()), float(X["x"].max()))
    }
    tried = quantize(model, ranges, weights_too=False)
    assert {node.op_type for node in tried.graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    expected = start(tried, optimize=False).run(None, X)[0]
    found = computer(tried, ["y"], "m", 1, integers=False)(X)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_channels_that_are_rarely_large_keep_their_range() -> None:
    model = model_of("e = Relu(c)")
    names = activations(model)
    compute = computer(model, names, "m", 1)
    quiet = {"x": X["x"] * np.float32(0.01)}
    every = channel_extremes([quiet, quiet, X], compute, names)  # all channels are large on one image of three
    for one, _ in even_models(model, every).values():
        assert np.array_equal(values(one, "e"), values(model, "e"))
    every = channel_extremes([X, X, quiet], compute, names)
    one, _ = even_models(model, every)["equalized"]
    assert spread(one) < spread(model) / 10
