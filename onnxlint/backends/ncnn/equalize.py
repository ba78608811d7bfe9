"""Cross-layer equalization of an ncnn net (see backends/channels.py): which channels share a factor, and the new weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from onnxlint.backends.channels import ChannelClasses, Ids, factors, log_factor, unscaled
from onnxlint.backends.ncnn import arith
from onnxlint.backends.ncnn.format import Blob, Layer, Network
from onnxlint.backends.ncnn.table import QUANTIZABLE, quantizable

Floats = npt.NDArray[np.float32]

PASSES = {"Split", "ReLU", "Dropout", "Noop", "Pooling", "Interp"}
"""Layers with one input whose every output channel is a homogeneous function of the same input channel."""


def channel_classes(net: Network, channels: Mapping[str, int]) -> dict[str, Ids]:
    """Blob → the class of each of its channels, −1 where the factor must stay 1.

    `channels[blob]` is the size of the blob's first axis.
    """
    union = ChannelClasses()
    ids: dict[str, Ids] = {}
    for layer in net.layers:
        ins = [ids[b] for b in layer.bottoms]
        if layer.type in QUANTIZABLE and quantizable(layer):
            out = union.new(channels[layer.tops[0]])
            if layer.integer(9) not in (0, 1, 2):
                union.pin(out)
            if any(layer.numbers(18)) or (layer.type == "InnerProduct" and len(ins[0]) != layer.integer(2) // len(out)):
                union.pin(ins[0])
            ids[layer.tops[0]] = out
        elif layer.type in PASSES and len(ins) == 1 and all(channels[t] == len(ins[0]) for t in layer.tops):
            ids.update(dict.fromkeys(layer.tops, ins[0]))
        elif _is_sum(layer) and len({len(i) for i in ins}) == 1:
            for other in ins[1:]:
                union.join(ins[0], other)
            ids[layer.tops[0]] = ins[0]
        elif layer.type == "Concat" and layer.integer(0) == 0 and sum(map(len, ins)) == channels[layer.tops[0]]:
            ids[layer.tops[0]] = np.concatenate(ins)
        else:
            for i in ins:
                union.pin(i)
            for top in layer.tops:
                ids[top] = union.new(channels[top])
                union.pin(ids[top])
    for name in net.outputs():
        union.pin(ids[name])
    return union.resolved(ids)


def _is_sum(layer: Layer) -> bool:
    if layer.type == "BinaryOp":
        return layer.integer(0) in (0, 1) and len(layer.bottoms) == 2
    return layer.type == "Eltwise" and layer.integer(0) == 1 and not layer.numbers(1)


def equalize(
    net: Network,
    channels: Mapping[str, int],
    peaks: Mapping[str, Floats],
    alpha: float = 1.0,
    left: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    strength: float = 1.0,
) -> tuple[Network, dict[str, Floats]]:
    """The net with its channels rescaled, and the factor s of every channel of every blob (new = old / s).

    `peaks[blob]` holds the range of each channel for the blobs that quantizable layers read. `alpha` weighs the
    activations' ranges against the readers' weights: 1 equalizes the activations alone, 0 the weights alone
    (a depthwise reader has a weight scale for each channel, so it never matters there). `left` says of
    each blob for which channels it asks for no other factor than 1: see `rare`. `strength` is the exponent of the factors.
    """
    classes = channel_classes(net, channels)
    wishes = []
    for layer in net.layers:
        if not quantizable(layer):
            continue
        blob = layer.bottoms[0]
        peak = peaks[blob] if left is None else unscaled(peaks[blob], left[blob])
        wanted = log_factor(peak)
        if alpha < 1 and layer.type != "ConvolutionDepthWise":
            reach = np.abs(_by_input(layer, len(peaks[blob]))).max(axis=(0, 2))
            wanted = alpha * wanted - (1 - alpha) * log_factor(reach)
        wishes.append((blob, strength * wanted))
    scales = {name: one.astype(np.float32) for name, one in factors(classes, wishes).items()}
    new = {
        layer.name: _rescaled(layer, scales[layer.bottoms[0]], scales[layer.tops[0]])
        for layer in net.layers
        if quantizable(layer)
    }
    return net.with_layers(new), scales


def _by_input(layer: Layer, inputs: int) -> Floats:
    """The weights as (outputs, inputs of a group, rest)."""
    weight = arith.weight_matrix(layer)
    return weight.reshape(weight.shape[0] * weight.shape[1], inputs // weight.shape[0], -1)


def _rescaled(layer: Layer, source: Floats, target: Floats) -> Layer:
    weight = arith.weight_matrix(layer)
    g, m, k = weight.shape
    columns = np.repeat(source.reshape(g, 1, -1), k * g // len(source), axis=2)
    new = weight * columns / target.reshape(g, m, 1)
    blobs = [replace(_float_weight(layer), data=new.astype(np.float32).reshape(-1))]
    bias = layer.blob("bias")
    if bias is not None:
        blobs.append(replace(bias, data=(bias.values() / target).astype(np.float32)))
    return layer.with_blobs(*blobs)


def _float_weight(layer: Layer) -> Blob:
    weight = layer.blob("weight")
    assert weight is not None
    return Blob("weight", weight.values(), 0)
