"""Outputs of ReLU stored around zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxlint.backends.ncnn import auto as ncnn_auto
from onnxlint.backends.ncnn import ranges
from onnxlint.backends.ncnn.calibrate import make_table, weight_scales
from onnxlint.backends.ncnn.centre import absorbed, centre, movable, needed, own_layers
from onnxlint.backends.ncnn.evaluate import Evaluator
from onnxlint.backends.ncnn.format import Blob, Layer, Network, parse_bin, parse_param
from onnxlint.backends.ncnn.quantize import quantize, quantize_weights
from onnxlint.backends.ncnn.ranges import Extents
from onnxlint.backends.ncnn.run import Runner
from onnxlint.backends.ncnn.table import Table, source_blobs
from tests.support.ncnn_nets import inputs, small

CHAIN = """7767517
10 13
Input                    in0    0 1 in0
Convolution              one    1 1 in0 1 0=C 1=3 4=1 5=1 6=3*C*9 9=1
ConvolutionDepthWise     two    1 1 1 2 0=C 1=3 4=1 5=1 6=C*9 7=C 9=1
Convolution              three  1 1 2 3 0=C 1=3 3=2 4=1 5=1 6=C*C*9 9=3 -23310=2,0.000000e+00,6.000000e+00
Split                    fork   1 2 3 4 5
Convolution              four   1 1 4 6 0=C 1=5 4=2 5=1 6=C*C*25
Convolution              five   1 1 5 7 0=C 1=1 5=1 6=C*C
Concat                   join   2 1 6 7 8 0=0
ReLU                     relu   1 1 8 9
Convolution              six    1 1 9 out0 0=4 1=1 5=1 6=2*C*4
"""


def chain(channels: int, text: str = CHAIN) -> Network:
    """Layers of all kinds whose ReLU can be stored around zero, padded ones among them."""
    words = [
        f"{left}={eval(right, {'C': channels})}" if "C" in right else word
        for line in text.split("\n")
        for word in (*line.split(" "), "\n")
        for left, _, right in [word.partition("=")]
    ]
    net = parse_param(" ".join(words))
    rng = np.random.default_rng(0)
    data = b""
    for layer in net.layers[1:]:
        size, outputs = layer.integer(6), layer.integer(0)
        if size:
            weight = rng.normal(size=size) / np.sqrt(size / outputs) * 1.4
            data += bytes(4) + weight.astype("<f4").tobytes() + rng.normal(0, 0.1, outputs).astype("<f4").tobytes()
    net = parse_bin(net, data)
    return net.with_layers({layer.name: on_grid(layer) for layer in net.layers if layer.blobs})


def on_grid(layer: Layer) -> Layer:
    """A layer whose weights int8 holds exactly: what is left is the rounding of activations."""
    scales = weight_scales(layer)
    values = quantize_weights(layer, scales).reshape(len(scales), -1) / scales[:, None]
    return layer.with_blobs(Blob("weight", values.astype(np.float32).reshape(-1), 0))


def by_largest(net: Network, peaks: dict[str, ncnn_auto.Floats]) -> Table:
    scales = ncnn_auto.input_scales(net, peaks)
    return Table(
        {name: weight_scales(net.layer(name)) for name in scales},
        {name: np.asarray([scale], np.float32) for name, scale in scales.items()},
    )


def by_relu(net: Network, peaks: dict[str, ncnn_auto.Floats]) -> tuple[dict[str, ncnn_auto.Floats], dict[str, int]]:
    """Half ranges, and what 0 is stored as, where only outputs of ReLU are stored around their middle."""
    source, free = source_blobs(net), absorbed(net)
    middles = {name: 127 if source[name] in free else 0 for name in peaks}
    return {name: peak * np.float32(0.5 if middles[name] else 1) for name, peak in peaks.items()}, middles


@pytest.mark.parametrize("channels", [8, 16, 6])
def test_it_computes_the_same_and_rounds_half_as_much(channels: int) -> None:
    net = chain(channels)
    peaks = Extents.of(net, inputs()).peaks
    new, halves, _ = centre(net, *by_relu(net, peaks))
    changed = [a.name for a, b in zip(net.layers, new.layers, strict=True) if a.integer(9) != b.integer(9)]
    assert changed == ["one", "two"]
    assert new.layer("relu").type == "Clip"
    written = [number for layer in new.layers for _, value in layer.params for number in value.split(",")]
    assert any("e" in number and number.startswith("-") for number in written)
    assert max(map(len, written)) <= 15  # what ncnn reads of a number
    assert new.layer("three").params != net.layer("three").params
    judge = Evaluator(net, inputs())
    assert judge.score(new) > 100
    plain, better = quantize(net, by_largest(net, peaks)), quantize(new, by_largest(new, halves))
    assert better.net.layer("two").numbers(18) == (127.0,)
    assert better.net.layer("six").numbers(18) == ()
    assert better.int8_layers == plain.int8_layers == 6
    assert sum(len(b.data) for la in better.net.layers for b in la.blobs) == sum(
        len(b.data) for la in plain.net.layers for b in la.blobs
    )
    # Half a bit is lost for the input, which stays as it is; the padding has to be exact for any gain.
    assert judge.score(better.net) > judge.score(plain.net) + 2


def test_what_others_read_stays() -> None:
    net = small()  # its ReLU clips a sum, and its depthwise one is read by a layer with weights
    new, _, _ = centre(net, *by_relu(net, Extents.of(net, inputs()).peaks))
    assert [a.name for a, b in zip(net.layers, new.layers, strict=True) if a.params != b.params] == ["depth"]


def test_padding_with_a_negative_number_stays_in_float() -> None:
    net = chain(8)
    layers = tuple(la.with_param(18, "-1.0") if la.name == "two" else la for la in net.layers)
    made = quantize(replace(net, layers=layers), make_table(replace(net, layers=layers), inputs()))
    decision = next(d for d in made.decisions if d.layer == "two")
    assert (decision.state, decision.why) == ("fp16", "ncnn pads int8 wrongly with a number below 0")


def test_auto_reads_pad_values_that_are_numbers() -> None:
    net = chain(8)
    layers = tuple(la.with_param(18, "5.000000e-01") if la.name == "two" else la for la in net.layers)
    padded = replace(net, layers=layers)
    made = ncnn_auto.auto(padded, inputs())
    assert made.quantized.int8_layers == 6
    assert Evaluator(padded, inputs()).score(made.quantized.net) > 20


def test_dead_layers_stay() -> None:
    net = chain(8)
    one = net.layer("one").with_blobs(Blob("bias", np.full(8, -1e6, np.float32)))
    dead = net.with_layers({"one": one})
    new, _, _ = centre(dead, *by_relu(dead, Extents.of(dead, inputs()).peaks))
    assert new.layer("one") == one


LEAKY = CHAIN.replace("9=1\n", "9=2 -23310=1,1.000000e-01\n").replace(
    "9=3 -23310=2,0.000000e+00,6.000000e+00", "9=6 -23310=2,0.166667,0.5"
)


def leaky(channels: int) -> Network:
    """The chain with leaky ReLU and a hard swish, and a Split that a layer without weights reads as well."""
    text = LEAKY.replace("10 13", "10 14").replace("6=2*C*4", "6=3*C*4")
    text = text.replace("fork   1 2 3 4 5", "fork   1 3 3 4 5 10").replace("join   2 1 6 7 8", "join   3 1 6 7 10 8")
    return chain(channels, text)


@pytest.mark.parametrize("channels", [8, 16, 6])
def test_a_layer_of_its_own_stores_other_values_around_their_middle(channels: int) -> None:
    net = leaky(channels)
    extents = Extents.of(net, inputs())
    assert not {"1", "2", "3"} & absorbed(net).keys()
    places = {name: copies for names, copies in movable(net) for name in names}
    # The Concat reads a copy of "3": those that are read by layers with weights are stored in another way, each.
    assert {name: places[name] for name in ("1", "2", "4", "5")} == {"1": 1, "2": 1, "4": 2, "5": 2}
    middles = {name: 100 if name in ("1", "2", "4", "5") else 0 for name in extents.lows}
    halves = {
        name: np.maximum(extents.highs[name] / (1 + k / 127), extents.lows[name] / (1 - k / 127))
        for name, k in middles.items()
    }
    new, stored, zeros = centre(net, halves, middles)
    assert zeros.keys() == {"two", "three", "four", "five"}
    assert own_layers(new) == ("1", "2", "4", "5")
    assert Evaluator(net, inputs()).score(new) > 100
    plain, better = quantize(net, by_largest(net, extents.peaks)), quantize(new, by_largest(new, stored))
    assert better.int8_layers == plain.int8_layers == 6
    assert better.net.layer("two").numbers(18) == (100.0,)
    judge = Evaluator(net, inputs())
    assert judge.score(better.net) > judge.score(plain.net) + 1


def test_one_layer_serves_all_copies_that_layers_with_weights_read() -> None:
    net = chain(8, LEAKY)
    middles = {name: 90 if name in ("4", "5") else 0 for name in Extents.of(net, inputs()).lows}
    halves = Extents.of(net, inputs()).peaks
    new, _, zeros = centre(net, halves, middles)
    assert [la.bottoms for la in new.layers if la.type in ("BinaryOp", "Split")] == [("3",), ("3_centred",)]
    assert zeros.keys() == {"four", "five"}
    assert Evaluator(net, inputs()).score(new) > 100


def test_names_that_are_taken_are_left_alone() -> None:
    net = chain(8, LEAKY.replace(" 1 1 1 2 ", " 1 1 1 1_centred ").replace(" 1 1 2 3 ", " 1 1 1_centred 3 "))
    extents = Extents.of(net, inputs())
    new, _, _ = centre(net, extents.peaks, {name: 60 if name == "1" else 0 for name in extents.lows})
    assert [la.tops for la in new.layers if la.type == "BinaryOp"] == [("1_centred_",)]
    assert own_layers(new) == ("1",)
    assert len(Runner(new).run(inputs()[0], ["out0"])) == 1


def test_values_that_layers_in_float_read_stay() -> None:
    net = chain(8, LEAKY)
    middles = dict.fromkeys(Extents.of(net, inputs()).lows, 100)
    assert needed(net, middles, {"two"}) == {**middles, "1": 0}
    assert needed(net, middles, {"four"}) == middles
    assert needed(net, middles, {"four", "five"}) == {**middles, "4": 0, "5": 0}


def test_a_layer_of_its_own_is_taken_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    net = chain(8, LEAKY)
    extents = Extents.of(net, inputs())
    monkeypatch.setattr(ranges, "MULTIPLICATIONS", 1)
    _, middles = ranges.chosen(net, inputs(), extents)
    moved = {name for name, middle in middles.items() if middle}
    assert moved - {"9"}  # that has a ReLU
    assert middles["9"] == 127
    smallest = min(int(np.prod(extents.shapes[name])) for name in moved - {"9"})
    monkeypatch.setattr(ranges, "MULTIPLICATIONS", ranges._multiplications(net, extents) // smallest + 1)
    _, middles = ranges.chosen(net, inputs(), extents)
    assert {name for name, middle in middles.items() if middle} == {"9"}


def test_auto_with_layers_of_their_own_is_closer() -> None:
    net = leaky(8)
    scores = []
    for multiplications in (1, 10**9):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(ranges, "MULTIPLICATIONS", multiplications)
            scores.append(ncnn_auto.auto(net, inputs()).methods["auto"])
    assert scores[0] > scores[1] + 1
