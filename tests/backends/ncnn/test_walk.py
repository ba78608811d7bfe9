"""Nets computed in parts, and light ones, which forget what was read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxlint.backends.ncnn import auto as ncnn_auto
from onnxlint.backends.ncnn import calibrate, ranges, reconstruct
from onnxlint.backends.ncnn.evaluate import Evaluator, heads
from onnxlint.backends.ncnn.format import Network, parse_bin, parse_param
from onnxlint.backends.ncnn.influence import Outputs
from onnxlint.backends.ncnn.packed import Packed
from onnxlint.backends.ncnn.quantize import quantize
from onnxlint.backends.ncnn.run import Runner
from onnxlint.backends.ncnn.table import source_blobs
from onnxlint.backends.ncnn.walk import Walk, part
from tests.support.ncnn_nets import inputs, small

NET = small()

IN_PLACE = """7767517
5 6
Input                    in0    0 1 in0
BinaryOp                 scale  1 1 in0 0 0=2 1=1 2=5.000000e-01
Split                    fork   1 2 0 1 2
Convolution              conv   1 1 1 3 0=3 1=3 4=1 5=1 6=81
BinaryOp                 add    2 1 2 3 out0 0=0
"""


def in_place() -> Network:
    """A net whose first layer works in place on the input, and whose sum reads a copy before the layer with weights."""
    net = parse_param(IN_PLACE)
    rng = np.random.default_rng(3)
    weight = (rng.normal(size=81) / 5).astype("<f4").tobytes()
    return parse_bin(net, bytes(4) + weight + rng.normal(size=3).astype("<f4").tobytes())


def test_layers_that_work_in_place_on_the_input() -> None:
    net = in_place()
    images = inputs()
    before = [x.copy() for x in images]
    blobs = ["0", "3", "out0"]
    whole, light = (Runner(net, light=is_light) for is_light in (False, True))
    for x in images:
        for a, b in zip(whole.run(x, blobs), light.run(x, blobs), strict=True):
            assert np.array_equal(a, b)
    table = calibrate.make_table(net, images, "kl")
    made = ncnn_auto.auto(net, images)
    judge = Evaluator(net, images)
    assert judge.score(made.quantized.net) > judge.score(quantize(net, table).net) > 15
    assert all(np.array_equal(x, y) for x, y in zip(images, before, strict=True))


def test_light_nets_give_blobs_in_any_order() -> None:
    x = inputs()[0]
    blobs = [top for layer in NET.layers for top in layer.tops]
    whole, light = (Runner(NET, light=is_light) for is_light in (False, True))
    expected = dict(zip(blobs, whole.run(x, blobs), strict=True))
    for some in (blobs[::-1], blobs, [*blobs[2:5], blobs[2]]):
        for name, found in zip(some, light.run(x, some), strict=True):
            assert np.array_equal(found, expected[name]), name


def test_a_walk_reaches_what_the_whole_net_gives() -> None:
    images = inputs()
    source = source_blobs(NET)
    stops = list(dict.fromkeys(source[name] for name in ranges.Extents.of(NET, images).lows))
    runner = Runner(NET)
    most = 0
    for ends in ([], heads(NET)):
        walk = Walk(Runner(NET, light=True), images, stops, ends)
        for name in stops:
            for x, found in zip(images, walk.reach(name), strict=True):
                assert np.allclose(found.array(), runner.run(x, [name])[0], rtol=1e-4, atol=1e-5), name
            if ends:  # all outputs can be computed from what is known
                known = walk.known[0]
                end = Runner(part(NET, known, heads(NET)), light=True)
                ys = end.run({key: known[key] for key in end.inputs}, heads(NET))
                for a, b in zip(ys, runner.run(images[0], heads(NET)), strict=True):
                    assert np.allclose(a, b, rtol=1e-4, atol=1e-5)
        most = max(most, len(walk.known[0]))
        if not ends:
            assert set(walk.known[0]) == {"in0", stops[-1]}
    assert most < len(stops)


def test_the_noise_of_a_copy_is_that_of_its_reader() -> None:
    """Split makes all copies again where one is asked for: a value of one must not be lost so."""
    net = in_place()
    images = inputs()
    extents = ranges.Extents.of(net, images)
    (name,) = extents.lows
    (blob,) = Outputs(net, images, 1).places([name])
    halves = extents.peaks[name]
    coarse = halves * 20
    assert ranges._noise(blob, coarse, 0) > 50 * ranges._noise(blob, halves, 0) > 0
    rounded = [ranges._rounded(Runner(net).run(x, [name])[0], coarse, 0, range(3)) for x in images]
    conv = Runner(part(net, {name}, {"3"}))
    exact = [Runner(net).run(x, ["3", "out0"]) for x in images]
    noise = sum(
        float(((conv.run({name: x}, ["3"])[0] - y[0]) ** 2).sum()) for x, y in zip(rounded, exact, strict=True)
    ) / sum(float((y[1] ** 2).sum()) for y in exact)
    assert ranges._noise(blob, coarse, 0) == pytest.approx(noise, rel=1e-3)


@pytest.mark.parametrize("size", [1, 7, 12])
def test_extents_are_those_of_whole_blobs(size: int) -> None:
    images = inputs(5, size=4 * size + 20)
    extents = ranges.Extents.of(NET, images)
    runner = Runner(NET)
    names = list(extents.lows)
    blobs = [dict(zip(names, map(np.array, runner.run(x, names)), strict=True)) for x in images]
    for name in names:
        rows = np.concatenate([one[name].reshape(one[name].shape[0], -1) for one in blobs], axis=1)
        assert np.allclose(extents.highs[name], np.maximum(rows.max(axis=1), 0), rtol=1e-5)
        assert np.allclose(extents.lows[name], np.maximum(-rows.min(axis=1), 0), rtol=1e-5)


@pytest.mark.parametrize("shape", [(16,), (8, 5), (1, 7), (16, 1, 1), (24, 3, 5), (8, 13, 11), (5, 1, 2), (32, 16, 16)])
@pytest.mark.parametrize("pack", [1, 4, 8])
def test_extents_of_channels_that_lie_beside_each_other(shape: tuple[int, ...], pack: int) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    if shape[0] % pack:
        pack = 1
    packed = x.reshape(shape[0] // pack, pack, *shape[1:])
    packed = np.moveaxis(packed, 1, -1).reshape(shape[0] // pack, *shape[1:-1], -1) if x.ndim > 1 else x
    rows = x.reshape(shape[0], -1)
    expected = np.maximum([-rows.min(axis=1), rows.max(axis=1)], 0)
    blob = Packed(np.ascontiguousarray(packed), pack)
    assert np.array_equal(ranges._ends(blob), expected)
    assert blob.shape == shape
    assert np.array_equal(blob.array(), x)


def test_weights_of_very_large_layers_are_rounded_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moments grow with the square of the inputs: a fully connected layer with 25,088 would take gigabytes."""
    monkeypatch.setattr(reconstruct, "LARGEST", 20)
    made = ncnn_auto.auto(NET, inputs())
    judge = Evaluator(NET, inputs())
    assert judge.score(made.quantized.net) > 15
    before, after = (one.layer("dense").blob("bias") for one in (NET, made.rounded.net))
    assert before is not None
    assert after is not None
    assert not np.array_equal(after.values(), before.values())
    kept = ncnn_auto.auto(NET, inputs(), keep=["dense"])
    assert judge.score(kept.quantized.net) > 15


def test_a_part_of_a_net() -> None:
    made = part(NET, ["4", "5"], ["out0"])
    assert made.inputs() == ["4", "5"]
    assert [layer.name for layer in made.layers[2:]] == ["left", "right", "sum", "relu", "pool", "dense"]
    assert made.blob_count == sum(len(layer.tops) for layer in made.layers)
    assert made.layer("left").blobs == NET.layer("left").blobs
    assert part(NET, ["in0", "4"], ["4"]).layers == (replace(NET.layers[0], name="4", tops=("4",), params=()),)
