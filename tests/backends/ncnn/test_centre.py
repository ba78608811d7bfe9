"""Outputs of ReLU stored around zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxlint.backends.ncnn import auto as ncnn_auto
from onnxlint.backends.ncnn.calibrate import make_table, weight_scales
from onnxlint.backends.ncnn.centre import centre
from onnxlint.backends.ncnn.evaluate import Evaluator
from onnxlint.backends.ncnn.format import Blob, Layer, Network, parse_bin, parse_param
from onnxlint.backends.ncnn.quantize import quantize, quantize_weights
from onnxlint.backends.ncnn.table import Table
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


def chain(channels: int) -> Network:
    """Layers of all kinds whose ReLU can be stored around zero, padded ones among them."""
    words = [
        f"{left}={eval(right, {'C': channels})}" if "C" in right else word
        for line in CHAIN.split("\n")
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


@pytest.mark.parametrize("channels", [8, 16, 6])
def test_it_computes_the_same_and_rounds_half_as_much(channels: int) -> None:
    net = chain(channels)
    _, peaks = ncnn_auto.channel_peaks(net, inputs())
    new, middles = centre(net, peaks)
    changed = [a.name for a, b in zip(net.layers, new.layers, strict=True) if a.integer(9) != b.integer(9)]
    assert changed == ["one", "two"]
    assert new.layer("relu").type == "Clip"
    written = [number for layer in new.layers for _, value in layer.params for number in value.split(",")]
    assert any("e" in number and number.startswith("-") for number in written)
    assert max(map(len, written)) <= 15  # what ncnn reads of a number
    assert new.layer("three").params != net.layer("three").params
    judge = Evaluator(net, inputs())
    assert judge.score(new) > 100
    plain, better = quantize(net, by_largest(net, peaks)), quantize(new, by_largest(new, middles))
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
    _, peaks = ncnn_auto.channel_peaks(net, inputs())
    new, _ = centre(net, peaks)
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
    assert made.snr_db > 20


def test_dead_layers_stay() -> None:
    net = chain(8)
    one = net.layer("one").with_blobs(Blob("bias", np.full(8, -1e6, np.float32)))
    dead = net.with_layers({"one": one})
    _, peaks = ncnn_auto.channel_peaks(dead, inputs())
    new, _ = centre(dead, peaks)
    assert new.layer("one") == one
