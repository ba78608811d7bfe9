"""Equalization, rounding against outputs, `auto` and `mixed`."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnxlint.accuracy.loss import AnswerLoss
from onnxlint.backends import rounding
from onnxlint.backends.closeness import EXACT_DB
from onnxlint.backends.ncnn import auto as ncnn_auto
from onnxlint.backends.ncnn import calibrate, plain, ranges, reconstruct
from onnxlint.backends.ncnn.centre import centre
from onnxlint.backends.ncnn.equalize import channel_classes, equalize
from onnxlint.backends.ncnn.evaluate import Evaluator, heads, spread
from onnxlint.backends.ncnn.format import Blob, Layer, dump_bin, dump_param, load, parse_bin, parse_param
from onnxlint.backends.ncnn.heads import corrected, last_layers
from onnxlint.backends.ncnn.influence import Outputs
from onnxlint.backends.ncnn.plain import Rivals, nearest_table
from onnxlint.backends.ncnn.quantize import quantize
from onnxlint.backends.ncnn.run import Runner
from onnxlint.backends.ncnn.table import diagnose, dump_table, load_table, parse_table
from onnxlint.backends.outputs import evenly
from onnxlint.backends.rounding import Doubles, round_weights
from onnxlint.errors import OnnxlintError
from onnxlint.images.recipe import PRESETS, find_images, tensors
from tests.support.ncnn_nets import DATA, REFERENCE, inputs, needs_data, small

NET = small()
NET_TEXT = dump_param(NET)


def test_classes_go_through_split_and_sum_and_stop_at_the_ends() -> None:
    channels = ranges.Extents.of(NET, inputs()).channels
    classes = channel_classes(NET, channels)
    assert (classes["in0"] == -1).all()
    assert (classes["out0"] == -1).all()
    assert np.array_equal(classes["3"], classes["4"])
    assert np.array_equal(classes["6"], classes["7"])  # the addends of a sum
    assert np.array_equal(classes["6"], classes["10"])  # through ReLU and pooling
    assert len(set(classes["1"]) | set(classes["2"]) | set(classes["3"])) == 8 + 8 + 16


def test_equalized_net_computes_the_same() -> None:
    extents = ranges.Extents.of(NET, inputs())
    peaks = extents.peaks
    even, factors = equalize(NET, extents.channels, peaks)
    assert Evaluator(NET, inputs()).score(even) > 90
    new = ranges.Extents.of(even, inputs()).peaks
    for name in ("1", "2", "4"):
        assert np.allclose(new[name], peaks[name] / factors[name], rtol=1e-3)
        alive = new[name] > 0
        assert alive.sum() > 5
        assert np.allclose(new[name][alive] / new[name].max(), 1, atol=1e-3)


def test_rounding_beats_rounding_to_the_nearest() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 2000)) + 2 * rng.normal(size=(1, 2000))
    hessian = (x @ x.T / 2000)[None]
    rows = rng.normal(size=(1, 6, 30))
    scales = 7 / np.abs(rows).max(axis=2)

    def error(q: Doubles) -> float:
        e = q / scales[..., None] - rows
        return float(np.einsum("gmi,gij,gmj->", e, hessian, e))

    q = round_weights(rows, scales, hessian, 7, 0.01)
    assert np.abs(q).max() <= 7
    assert error(q) < 0.5 * error(np.clip(np.round(rows * scales[..., None]), -7, 7))


def test_auto_beats_kl_at_the_same_size() -> None:
    judge = Evaluator(NET, inputs())
    kl = quantize(NET, calibrate.make_table(NET, inputs(), "kl"))
    made = ncnn_auto.auto(NET, inputs())
    assert judge.score(made.quantized.net) > judge.score(kl.net) + 2
    assert len(dump_bin(made.quantized.net)) <= len(dump_bin(kl.net))
    assert made.quantized.int8_layers == kl.int8_layers
    assert not [i for i in diagnose(made.table, NET) if i.fatal or "same blob" in i.message]


def test_auto_gives_the_same_bytes_again() -> None:
    once, again = (dump_bin(ncnn_auto.auto(NET, inputs(), threads=t).quantized.net) for t in (1, 2))
    assert once == again


def test_mixed_keeps_its_budget() -> None:
    pure = ncnn_auto.auto(NET, inputs())
    mixed = ncnn_auto.auto(NET, inputs(), mixed=True, budget=0.1)
    assert mixed.steps
    assert len(dump_bin(mixed.quantized.net)) <= 1.1 * len(dump_bin(pure.quantized.net))
    states = {d.layer: d.state for d in mixed.quantized.decisions}
    assert all(states[s.layer] == "fp16" for s in mixed.steps)


def test_heads_are_what_a_last_concat_joins() -> None:
    assert heads(NET) == ["out0"]


@pytest.mark.parametrize("passing", [(), ("Reshape",), ("Permute", "Flatten")])
def test_what_a_last_softmax_reads_is_a_head_whatever_reshapes_its_result(passing: tuple[str, ...]) -> None:
    lines = NET_TEXT.replace(" out0 ", " logits ").splitlines()
    added = [*lines, "Softmax prob 1 1 logits s0"]
    added += [f"{kind} p{i} 1 1 s{i} s{i + 1}" for i, kind in enumerate(passing)]
    added[1] = f"{len(added) - 2} {int(lines[1].split()[1]) + 1 + len(passing)}"
    assert heads(parse_param("\n".join(added))) == ["logits"]


def test_more_small_images_judge_than_large_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is fitted to those that judge; plain methods see all of them."""
    seen: dict[str, list[bytes]] = {}
    fitted_to = reconstruct.reconstruct

    def rivals(net: Any, images: Any, stats: Any, judge: Evaluator, *more: Any) -> Rivals:
        seen["judging"], seen["all"] = ([x.tobytes() for x in some] for some in (judge.images, images))
        return Rivals(net, images, stats, judge, *more)

    def fit(net: Any, scales: Any, some: Any, **more: Any) -> Any:
        seen["fitted"] = [x.tobytes() for x in some]
        return fitted_to(net, scales, some, **more)

    monkeypatch.setattr(ncnn_auto, "Rivals", rivals)
    monkeypatch.setattr(ncnn_auto, "reconstruct", fit)
    images = inputs(160)
    made = ncnn_auto.auto(NET, images)
    assert made.judged == "other calibration images"
    assert len(seen["judging"]) == 48  # a third of those that are held
    assert len(seen["fitted"]) == 144 - 48
    assert not set(seen["judging"]) & set(seen["fitted"])
    assert seen["all"] == [x.tobytes() for x in images]
    # aciq cannot come closer any more after a few of them
    (key,) = (key for key in made.methods if key.startswith("aciq, first "))
    count = int(key.split()[2])
    assert count < 48
    judging = [x for x in images if x.tobytes() in seen["judging"]]
    judge = Evaluator(NET, judging, outputs=True)
    theirs = judge.powers(quantize(NET, calibrate.make_table(NET, images, "aciq")).net)
    assert made.methods[key] == pytest.approx(theirs.first(count).score)
    assert key == f"aciq, first {count} other calibration images"
    ours = judge.powers(made.quantized.net)
    assert made.methods[f"auto, first {count} other calibration images"] == pytest.approx(ours.first(count).score)
    assert theirs.score < ours.score == pytest.approx(made.methods["auto"])


def test_kl_is_tried_where_it_may_win(monkeypatch: pytest.MonkeyPatch) -> None:
    images = inputs(30)
    far = ncnn_auto.auto(NET, images).methods
    assert not [key for key in far if key.startswith("kl")]
    monkeypatch.setattr(plain, "KL_SLACK", 100.0)
    near = ncnn_auto.auto(NET, images).methods
    (key,) = (key for key in near if key.startswith("kl"))
    made = quantize(NET, calibrate.make_table(NET, images)).net
    count = int(key.split()[2]) if "first" in key else 10
    at = sorted(evenly(range(30), 10))
    judge = Evaluator(NET, [images[i] for i in at][:count], outputs=True)
    assert near[key] == pytest.approx(judge.powers(made).score)


def test_nets_are_judged_no_longer_than_they_can_win() -> None:
    judge = Evaluator(NET, inputs(12))
    table = calibrate.make_table(NET, inputs(), "aciq")
    made = quantize(NET, table).net
    whole = judge.powers(made)
    score = float(whole.decibels.mean())
    assert len(judge.powers(made, score - 1e-6).noise) == len(judge.images)
    few = judge.powers(made, score + 20)
    assert 0 < len(few.noise) < len(judge.images)
    assert np.array_equal(few.noise, whole.first(len(few.noise)).noise)
    assert judge.score(made, score - 1e-6) == score
    assert np.isnan(judge.score(made, score + 20))


def test_outputs_that_are_not_finite_have_no_snr() -> None:
    layer = NET.layer("dense")
    bias = np.full(layer.integer(0), np.nan, np.float32)
    bad = NET.with_layers({layer.name: layer.with_blobs(Blob("bias", bias))})
    judge = Evaluator(NET, inputs())
    assert np.isnan(judge.score(bad))
    assert (judge.powers(bad).decibels == -EXACT_DB).all()
    assert not judge.powers(bad).is_closer(judge.powers(NET))


def test_images_are_taken_evenly() -> None:
    stream = (np.full((1, 1, 1), i, np.float32) for i in range(1000))
    values = [int(x[0, 0, 0]) for x in spread(stream, 8)]
    assert len(values) == 8
    assert values[0] == 0
    assert values[-1] >= 850
    assert np.ptp(np.diff(values)) <= 130


def test_no_layer_to_quantize_and_no_images() -> None:
    with pytest.raises(OnnxlintError, match="no image to calibrate with"):
        ncnn_auto.auto(NET, [])
    with pytest.raises(OnnxlintError, match="has no layer that can be quantized"):
        ncnn_auto.auto(quantize(NET, calibrate.make_table(NET, inputs())).net, inputs())


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(("budget", "bar"), [(0.0, 20.5), (0.001, 23.0), (0.08, 27.0)])
def test_retinaface_on_its_calibration_images(budget: float, bar: float) -> None:
    net = load(REFERENCE / "fp32.param")
    images = [x for _, x in tensors(find_images(DATA / "calibration"), PRESETS["retinaface"])]
    made = ncnn_auto.auto(net, images, mixed=budget > 0, budget=budget)
    kl = quantize(net, load_table(REFERENCE / "kl" / "model.table")).net
    judge = Evaluator(net, images)
    assert judge.score(made.quantized.net) > bar
    assert judge.score(kl) < 15.5
    assert len(dump_bin(made.quantized.net)) <= (1 + budget) * len(dump_bin(kl))


def test_a_net_computes_on_from_its_blobs() -> None:
    runner = Runner(NET)
    for size in (23, 24):  # rows and channels that are aligned in memory, and that are not
        (x,) = inputs(1, size)
        middle, end = runner.run(x, ["2", "out0"])
        (again,) = runner.run({"in0": x, "2": np.array(middle)}, ["out0"])
        assert np.array_equal(end, again)
        changed = np.array(middle) + 1
        assert not np.array_equal(runner.run({"in0": x, "2": changed}, ["out0"])[0], end)


def test_sums_that_would_overflow_winograd_get_fewer_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    def peak() -> int:
        blob = ncnn_auto.auto(NET, inputs()).quantized.net.layer("left").blob("weight")
        assert blob is not None
        return int(np.abs(blob.data.astype(int)).max())

    assert peak() == 127
    monkeypatch.setattr(reconstruct, "LARGEST_SUM", 40_000)
    assert peak() in (31, 63)


def test_ncnn2int8_would_make_the_same_of_the_table() -> None:
    made = ncnn_auto.auto(NET, inputs(), mixed=True, budget=0.1)
    table = parse_table(dump_table(made.table))  # as printed
    again = quantize(parse_bin(parse_param(dump_param(made.rounded.net)), dump_bin(made.rounded.net)), table)
    for layer in made.quantized.net.layers:
        for blob in layer.blobs:
            other = again.net.layer(layer.name).blob(blob.name)
            assert other is not None
            assert np.allclose(other.data, blob.data, rtol=1e-6, atol=1e-6)


def test_last_layers_are_corrected_and_their_integers_stay() -> None:
    images = inputs()
    rounded = ncnn_auto.auto(NET, images).rounded
    shifted = replace(
        rounded,
        net=rounded.net.with_layers(
            {
                layer.name: layer.with_blobs(replace(bias, data=bias.data + np.float32(0.5)))
                for layer in last_layers(rounded.net)
                if (bias := layer.blob("bias")) is not None
            }
        ),
    )
    assert last_layers(rounded.net)
    judge = Evaluator(NET, images)

    def score(one: reconstruct.Rounded) -> float:
        return judge.score(quantize(one.net, one.table, weights=one.weights).net)

    again = corrected(NET, shifted, images)
    assert score(shifted) < score(rounded) - 3
    assert score(again) > score(rounded) - 1
    assert again.weights == rounded.weights


def test_a_larger_budget_keeps_what_a_smaller_one_keeps() -> None:
    extents = ranges.Extents.of(NET, inputs())
    peaks = extents.peaks
    even, factors = equalize(NET, extents.channels, peaks)
    scales = ncnn_auto.input_scales(even, {name: peak / factors[name] for name, peak in peaks.items()})
    kept: list[list[str]] = []
    for budget in (0.0, 0.01, 0.05, 0.1, 0.3, 1.0, 10.0):
        steps = ncnn_auto.choose_float_layers(even, scales, inputs(), budget=budget)
        kept.append([step.layer for step in steps])
    assert kept[-1]
    for smaller, larger in itertools.pairwise(kept):
        assert larger[: len(smaller)] == smaller


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e-36, 1e-31])
def test_channels_of_tiny_weights(size: float) -> None:
    layer = NET.layer("wide")
    weight = layer.blob("weight")
    assert weight is not None
    values = weight.values().copy()
    values[: len(values) // layer.integer(0)] = np.float32(size)
    tiny = NET.with_layers({"wide": layer.with_blobs(replace(weight, data=values))})
    judge = Evaluator(tiny, inputs())
    assert judge.score(ncnn_auto.auto(tiny, inputs()).quantized.net) > 20
    for method in ("kl", "aciq"):
        table = calibrate.make_table(tiny, inputs(), method)
        plain = calibrate.make_table(NET, inputs(), method)
        usual = Evaluator(NET, inputs()).score(quantize(NET, plain).net)
        assert judge.score(quantize(tiny, table).net) > usual - 1


@needs_data
@pytest.mark.slow
def test_a_larger_budget_never_misses_more_faces_on_the_calibration_images() -> None:
    net = load(REFERENCE / "fp32.param")
    images = [x for _, x in tensors(find_images(DATA / "calibration"), PRESETS["retinaface"])][:4]
    missed = []
    for budget in (0.001, 0.02, 0.08):
        made = ncnn_auto.auto(net, images, mixed=True, budget=budget, task=AnswerLoss())
        by_length = dict(made.tried)
        assert by_length, "the outputs of RetinaFace are recognized"
        missed.append(by_length[len(made.steps)].rank[0])
    assert missed == sorted(missed, reverse=True)


def test_moments_of_inputs_far_from_zero_keep_their_variance() -> None:
    rng = np.random.default_rng(0)
    x = (1000 + rng.normal(0, 0.01, (1, 20, 4000))).astype(np.float32)
    origin = x[..., :100].mean(axis=2, keepdims=True)
    for weight in (np.eye(20, dtype=np.float32)[None], np.ones((1, 1, 20), np.float32)):
        m = rounding.centred([rounding.sums_of(x - origin, x - origin, weight)], x.shape[2], weight, origin)
        assert np.allclose(m.target, (weight @ x.mean(axis=2, dtype=np.float64)[..., None])[..., 0], rtol=1e-6)
        assert np.allclose(m.cross, weight @ m.hessian, atol=1e-7)
    assert np.allclose(m.hessian[0], np.cov(x[0].astype(np.float64), bias=True), atol=1e-7)
    assert (np.linalg.eigvalsh(m.hessian[0]) > 0).all()


def test_a_matrix_that_is_not_positive_definite_is_damped() -> None:
    hessian = np.diag([1.0, 1.0, -0.05])[None]
    q = rounding.round_weights(np.ones((1, 2, 3)), np.full((1, 2), 7.0), hessian, 7, 0.01)
    assert np.array_equal(q, np.full((1, 2, 3), 7.0))


def test_layers_without_a_bias_are_refitted_with_their_mean() -> None:
    rng = np.random.default_rng(0)
    exact = (3 + rng.normal(size=(1, 6, 4000))).astype(np.float32)
    given = np.round(exact * 0.4) / np.float32(0.4) + np.float32(0.3)
    old = rng.normal(size=(1, 5, 6)).astype(np.float32)
    m = rounding.centred([rounding.sums_of(exact, given, old)], exact.shape[2], old)
    weight = old.astype(np.float64)

    def error(new: Doubles) -> float:
        return float(((weight @ exact - new @ given) ** 2).mean())

    around = error(rounding.refit(weight, rounding.around_zero(m), 0.01))
    assert around < 0.8 * error(rounding.refit(weight, m, 0.01))
    assert around < 0.8 * error(weight)


def test_a_net_without_biases_is_better_than_by_plain_methods() -> None:
    bare = NET.with_layers(
        {
            layer.name: replace(layer.with_param(5 if layer.type != "InnerProduct" else 1, "0"), blobs=(weight,))
            for layer in NET.layers
            if (weight := layer.blob("weight")) is not None
        }
    )
    made = ncnn_auto.auto(bare, inputs())
    assert made.method == "auto"
    assert {key.split(",")[0] for key in made.methods} >= {"auto", "aciq", "min-max"}
    for key, score in made.methods.items():
        name, *where = key.split(", ")
        assert score <= made.methods[", ".join(["auto", *where])], name


def test_a_plain_method_is_taken_where_it_is_closer(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **more: Any) -> reconstruct.Rounded:
        good = reconstruct.reconstruct(*args, **more)
        return replace(good, weights={name: q // 4 for name, q in good.weights.items()})

    monkeypatch.setattr(ncnn_auto, "reconstruct", broken)
    made = ncnn_auto.auto(NET, inputs())
    assert made.method in ("kl", "aciq", "min-max")
    best = made.methods[made.method]
    assert best > made.methods["auto"] + 3
    again = quantize(NET, parse_table(dump_table(made.table))).net  # a table of the float net
    judge = Evaluator(NET, inputs())
    assert abs(judge.score(again) - judge.score(made.quantized.net)) < 0.5


def test_ranges_are_narrowed_only_where_the_outputs_are_closer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "IMAGES_EACH", 1)  # all of them tell the noise
    images = inputs(size=48)
    images[0][:, 20, 20] *= 100  # one bright dot: what is rounded within its range loses the rest
    extents = ranges.Extents.of(NET, images)
    found, middles = ranges.chosen(NET, images, extents)
    outputs = Outputs(NET, images, 1)
    classes = channel_classes(NET, extents.channels)
    whole = {name: ranges._halves(extents, name, middles[name], classes[name]) for name in found}
    changed = [name for name in found if not np.array_equal(found[name], whole[name])]
    assert changed
    assert "in0" not in changed
    for blob in outputs.places(changed):
        middle = middles[blob.name]
        assert ranges._noise(blob, found[blob.name], middle) < ranges._noise(blob, whole[blob.name], middle)


def test_noise_of_a_layer_alone_is_not_that_of_its_bias() -> None:
    """Rounding weights by 0.1 % moves the output by 0.1 % of what stands for 0, which a bias takes back."""
    extents = ranges.Extents.of(NET, inputs())
    stored, halves, zeros = centre(NET, extents.peaks, {name: 120 if name == "1" else 0 for name in extents.lows})
    scales = ncnn_auto.input_scales(stored, halves)
    table = nearest_table(stored, scales)
    layer = stored.layer("depth")
    judge = Evaluator(NET, inputs())

    def score(one: Layer) -> float:
        keep = frozenset(scales) - {"depth"}
        return judge.score(quantize(stored.with_layers({"depth": one}), table, keep=keep, rest="fp32").net)

    assert zeros.keys() == {"depth"}
    assert score(ncnn_auto._unmoved(layer, table, zeros["depth"])) > score(layer) + 3
    assert ncnn_auto._unmoved(layer, table, 0.0) is layer
