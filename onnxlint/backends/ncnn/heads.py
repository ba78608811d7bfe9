"""The last layers of an int8 net, corrected by what backends/outputs.py finds."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from onnxlint.backends.ncnn.format import Blob, Layer, Network
from onnxlint.backends.ncnn.quantize import quantize
from onnxlint.backends.ncnn.reconstruct import Rounded
from onnxlint.backends.ncnn.run import Runner
from onnxlint.backends.ncnn.table import QUANTIZABLE
from onnxlint.backends.outputs import correction

Floats = npt.NDArray[np.float32]

PASSED = frozenset("Permute Reshape Concat Flatten Squeeze ExpandDims Split Noop Softmax Sigmoid".split())
"""Layers that may come after a last one: scores are corrected before they become probabilities."""


def last_layers(net: Network) -> list[Layer]:
    """Convolutions and inner products with a bias and no activation, whose results only reach outputs of the net."""
    outputs = set(net.outputs())
    readers: dict[str, set[str]] = {}
    found = []
    for layer in reversed(net.layers):
        for name in layer.bottoms:
            readers.setdefault(name, set()).update(layer.tops)
        read = set().union(*(readers.get(top, set()) for top in layer.tops))
        if not layer.tops or not read <= outputs or outputs.isdisjoint({*layer.tops, *read}):
            continue
        if layer.type in PASSED:
            outputs.update(layer.tops)
        elif layer.type in QUANTIZABLE and not layer.integer(9) and layer.blob("bias") is not None:
            found.append(layer)
    return found[::-1]


def corrected(
    net: Network, made: Rounded, images: Sequence[Floats], keep: Collection[str] = (), threads: int = 2
) -> Rounded:
    """The rounded net with the systematic errors of its outputs taken back: scales and biases of its last layers change,
    the integers stay.

    Args:
        net: The float net, of the same layers.
        made: The rounded net.
        images: Inputs (C, H, W).
        keep: Layers that stay in floating point.
        threads: How many images are computed at a time.
    """
    ends = last_layers(made.net)
    if not ends:
        return made
    blobs = [layer.tops[0] for layer in ends]
    int8 = quantize(made.net, made.table, keep=keep, weights=made.weights).net
    truth, found = (
        [
            [np.array(y).reshape(len(y), -1) for y in ys]
            for ys in Runner(one, threads=1, light=True).map(images, blobs, threads)
        ]
        for one in (net, int8)
    )
    layers: dict[str, Layer] = {}
    weights = dict(made.table.weights)
    for i, layer in enumerate(ends):
        outputs = layer.integer(0)
        a, b = (np.concatenate([one[i].reshape(outputs, -1) for one in each], axis=1) for each in (truth, found))
        scale, shift = correction(a, b)
        groups = len(weights[layer.name]) if layer.name in weights else outputs
        if groups != outputs:
            continue  # depthwise: its groups have one scale each, for several outputs
        layers[layer.name] = _scaled(layer, scale, shift)
        if layer.name in weights:
            weights[layer.name] = (weights[layer.name] / scale).astype(np.float32)
    table = replace(made.table, weights=weights)
    return replace(made, net=made.net.with_layers(layers), table=table)


def _scaled(layer: Layer, scale: npt.NDArray[np.float64], shift: npt.NDArray[np.float64]) -> Layer:
    """A layer whose outputs are scaled and shifted."""
    weight, bias = layer.blob("weight"), layer.blob("bias")
    assert weight is not None
    assert bias is not None
    rows = weight.values().reshape(len(scale), -1) * scale[:, None]
    return layer.with_blobs(
        Blob("weight", rows.astype(np.float32).reshape(-1), 0),
        Blob("bias", (bias.values() * scale + shift).astype(np.float32)),
    )
