"""kl, aciq and eq."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlint.backends.ncnn import arith, calibrate
from onnxlint.backends.ncnn.evaluate import Evaluator
from onnxlint.backends.ncnn.format import load
from onnxlint.backends.ncnn.quantize import quantize
from onnxlint.backends.ncnn.run import Runner
from onnxlint.backends.ncnn.table import load_table, quantizable
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import find_images, make_recipe, tensors
from tests.support.ncnn_nets import DATA, REFERENCE, inputs, needs_data, small

NET = small()


@needs_data
@pytest.mark.parametrize("method", ["kl", "aciq"])
def test_tables_are_those_of_ncnn2table(method: calibrate.Method) -> None:
    recipe = make_recipe(mean="104,117,123", norm="1,1,1", shape="[640,640,3]", pixel="BGR")
    images = [x for _, x in tensors(find_images(DATA / "calibration"), recipe)]
    made = calibrate.make_table(load(REFERENCE / "fp32.param"), images, method)
    real = load_table(REFERENCE / method / "model.table")
    assert list(made.weights) == list(real.weights)
    assert list(made.inputs) == list(real.inputs)
    for name, scales in real.weights.items():
        assert np.allclose(made.weights[name], scales, rtol=1e-6)
    off = {
        n: float(made.inputs[n][0] / s[0]) for n, s in real.inputs.items() if abs(made.inputs[n][0] / s[0] - 1) > 1e-6
    }
    if method == "aciq":
        assert not off
    else:  # one scale, one histogram bin
        assert len(off) <= 1
        assert all(abs(ratio - 1) < 1 / calibrate.LEVELS for ratio in off.values())


def test_kl_divergence_is_the_plain_sum() -> None:
    rng = np.random.default_rng(0)
    histogram = rng.poisson(1e4 * np.exp(-np.arange(2048) / 150)).astype(np.int64)
    fast = calibrate.kl_divergences(histogram)
    h = histogram / histogram.sum()
    for t in (128, 129, 300, 1024, 2047):
        p = calibrate.EPSILON + h[:t]
        p[-1] += h[t:].sum()
        mass = np.concatenate([[0], np.cumsum(h[:t])])
        knots = np.arange(129) * t / 128
        e = calibrate.EPSILON + np.diff(np.interp(np.arange(t + 1), knots, np.interp(knots, np.arange(t + 1), mass)))
        assert fast[t - 128] == pytest.approx(float((p * np.log(p / e)).sum()), abs=1e-12)


def test_histogram_counts_what_is_not_zero() -> None:
    blob = np.array([0, 0, 0.1, -1, 1, 0.5], np.float32)
    counts = calibrate._histogram(blob, 1.0)
    assert counts.sum() == 4
    assert (counts[204], counts[1024], counts[2047]) == (1, 1, 2)


def test_statistics_do_not_depend_on_threads() -> None:
    one = calibrate.activation_stats(NET, inputs(), histograms=True, threads=1)
    two = calibrate.activation_stats(NET, inputs(), histograms=True, threads=2)
    assert one.keys() == two.keys()
    for a, b in zip(one.values(), two.values(), strict=True):
        assert (a.peak, a.size) == (b.peak, b.size)
        assert a.histogram is not None
        assert b.histogram is not None
        assert np.array_equal(a.histogram, b.histogram)


def test_six_bits_are_for_winograd_only() -> None:
    assert {la.name for la in NET.layers if quantizable(la) and calibrate.six_bit(la)} == {"left"}


def test_dead_channel_gets_a_finite_scale() -> None:
    layer = NET.layer("wide")
    weight = layer.blob("weight")
    assert weight is not None
    values = weight.values().copy()
    values[:8] = 0
    dead = NET.with_layers({"wide": layer.with_blobs(type(weight)("weight", values, 0))})
    for method in ("kl", "aciq"):
        table = calibrate.make_table(dead, inputs(), method)
        assert table.weights["wide"][0] == 1
        assert np.isfinite(Runner(quantize(dead, table).net).run(inputs()[0], ["out0"])[0]).all()


def test_arithmetic_is_that_of_the_wheel() -> None:
    x = inputs()[0]
    blobs = {la.name: (la.bottoms[0], la.tops[0]) for la in NET.layers if quantizable(la)}
    runner = Runner(NET)
    for name, names in blobs.items():
        source, result = runner.run(x, names)
        layer = NET.layer(name)
        sums = np.matmul(arith.weight_matrix(layer), arith.columns(layer, np.array(source)))
        ours = arith.activate(layer, sums.reshape(-1, sums.shape[-1]) + arith.bias(layer)[:, None])
        assert np.allclose(ours.reshape(result.shape), result, rtol=1e-4, atol=1e-4)
        some = np.array([0, ours.shape[1] - 1])
        if ours.shape[1] > 1:
            columns = arith.columns(NET.layer(name), np.array(source))
            assert np.array_equal(arith.columns(NET.layer(name), np.array(source), some), columns[:, :, some])


def test_eq_is_no_worse_than_kl_and_shares_scales() -> None:
    kl, eq = (calibrate.make_table(NET, inputs(), m) for m in ("kl", "eq"))
    judge = Evaluator(NET, inputs())
    assert judge.score(quantize(NET, eq).net) > judge.score(quantize(NET, kl).net) - 1
    assert eq.inputs["left"] == eq.inputs["right"]


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        ([], "no image to calibrate with"),
        ([np.zeros((3, 24, 24), np.float32)] * 2, "each of the 2 images is of one colour"),
        ([np.full((3, 24, 24), np.nan, np.float32)], "holds NaN or infinity"),
    ],
)
@pytest.mark.parametrize("method", ["kl", "aciq"])
def test_useless_images(images, problem: str, method: calibrate.Method) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(OnnxlintError, match=problem):
        calibrate.make_table(NET, images, method)


def test_wrong_channel_count() -> None:
    with pytest.raises(OnnxlintError):
        calibrate.make_table(NET, [np.ones((1, 24, 24), np.float32)], "kl")


def test_eq_says_what_it_will_take_before_it_starts() -> None:
    said: list[str] = []
    calibrate.make_table(small(), inputs(), "eq", progress=lambda what, _done, _total: said.append(what))
    told = next(i for i, what in enumerate(said) if what.startswith("eq: takes about "))
    assert told < said.index("scales by output")
    few, many = inputs(1, 24)[0], inputs(1, 96)[0]
    layer = small().layer("stem")
    least = [min(calibrate._eq_seconds([(layer, x)]) for _ in range(5)) for x in (few, many)]
    assert 0 < least[0] < least[1]
