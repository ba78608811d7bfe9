"""Outputs of ReLU stored around zero: ncnn's int8 has no zero point, and half of its numbers are negative.

A value x from 0 to M is stored as c − x with c = M / 2, which fills −127 to 127 instead of 0 to 127: 6 dB less noise. The
layer that makes it gets negated weights and clips at c instead of 0, layers that read it get negated weights and another
bias; they are padded with c, which is 127 in int8. No byte more, and the net computes the same.

The sign is turned because ncnn fills int8 padding right only with numbers that are not negative: on x86, with channels
packed by eight, a pad value of −127 becomes −1 (measured in the wheel).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from onnxlint.backends.ncnn.format import Blob, Layer, Network
from onnxlint.backends.ncnn.table import QUANTIZABLE, source_blobs
from onnxlint.backends.rounding import TINY

Floats = npt.NDArray[np.float32]

RELU, CLIP = 1, 3
"""Types of activation inside a layer."""

LOWEST = "-3.402823e+38"


def centre(net: Network, peaks: Mapping[str, Floats]) -> tuple[Network, dict[str, Floats]]:
    """The net with outputs of ReLU stored around zero where only layers with weights read them, and the new peaks.

    Args:
        net: A float net.
        peaks: Blob → max |x| of each channel, for the blobs that quantizable layers read.
    """
    source = source_blobs(net)
    readers: dict[str, list[Layer]] = {}
    for layer in net.layers:
        if layer.type != "Split":
            for name in layer.bottoms:
                readers.setdefault(source[name], []).append(layer)
    outputs = {source[name] for name in net.outputs()}
    layers = {layer.tops[0]: layer for layer in net.layers if layer.tops}  # names need not be unique
    found = dict(peaks)
    for blob in list(layers):
        makers = _makers(net, layers[blob], readers, outputs)
        reads = readers.get(blob, [])
        if not makers or not reads or blob in outputs or not all(_can_read(layers[one.tops[0]]) for one in reads):
            continue
        names = {one.bottoms[0] for one in reads}
        largest = max(float(peaks[name].max()) for name in names)
        if not largest > TINY:
            continue
        middle = largest / 2
        for one in makers:
            layers[one.tops[0]] = _negated(layers[one.tops[0]], middle)
        layers[blob] = _clipping(layers[blob], middle)
        for one in reads:
            layers[one.tops[0]] = _reading(layers[one.tops[0]], middle)
        found.update({name: np.full_like(peaks[name], middle) for name in names})
    new = tuple(layers[layer.tops[0]] if layer.tops else layer for layer in net.layers)
    return replace(net, layers=new), found


def _makers(net: Network, layer: Layer, readers: Mapping[str, Sequence[Layer]], outputs: set[str]) -> list[Layer]:
    """The layers with weights whose outputs, clipped at 0, are what `layer` makes; none if that is not all it does."""
    if layer.type in QUANTIZABLE:
        return [layer] if _has_weights(layer) and _clips(layer.integer(9), layer.numbers(10)) else []
    if layer.type == "ReLU":
        clips = not any(layer.numbers(0))
    else:
        clips = layer.type == "Clip" and _clips(CLIP, (*layer.numbers(0), *layer.numbers(1)))
    if not clips:
        return []
    made = net.producers()
    before = [net.layers[made[name]] for name in layer.bottoms]
    if len(before) == 1 and before[0].type == "Concat" and _is_only(before[0], readers, outputs):
        before = [net.layers[made[name]] for name in before[0].bottoms]
    fits = all(
        one.type in QUANTIZABLE and _has_weights(one) and not one.integer(9) and _is_only(one, readers, outputs)
        for one in before
    )
    return before if fits and len({one.tops[0] for one in before}) == len(before) else []


def _clips(kind: int, limits: Sequence[float]) -> bool:
    """Whether an activation is ReLU, or a clip from 0."""
    return kind == RELU or (kind == CLIP and len(limits) == 2 and limits[0] == 0 and limits[1] > 0)


def _is_only(layer: Layer, readers: Mapping[str, Sequence[Layer]], outputs: set[str]) -> bool:
    """Whether what a layer makes is read once."""
    return len(layer.tops) == 1 and len(readers.get(layer.tops[0], ())) == 1 and layer.tops[0] not in outputs


def _has_weights(layer: Layer) -> bool:
    return layer.blob("weight") is not None and layer.blob("bias") is not None and not layer.integer(8)


def _can_read(layer: Layer) -> bool:
    return layer.type in QUANTIZABLE and _has_weights(layer) and not any(layer.numbers(18))


def _negated(layer: Layer, middle: float) -> Layer:
    """A layer that makes c − y in place of y, before its activation."""
    weight, bias = layer.blob("weight"), layer.blob("bias")
    assert weight is not None
    assert bias is not None
    return layer.with_blobs(
        Blob("weight", -weight.values(), 0), Blob("bias", np.asarray(middle - bias.values(), np.float32))
    )


def _clipping(layer: Layer, middle: float) -> Layer:
    """The layer with its activation, which clips at 0 (and at a limit), on c − y."""
    if layer.type == "ReLU":
        return replace(layer, type="Clip", params=((0, LOWEST), (1, _text(middle))), arrays=frozenset())
    if layer.type == "Clip":
        low = _text(middle - layer.numbers(1)[0])
        return replace(layer, params=((0, low), (1, _text(middle))), arrays=frozenset())
    low = LOWEST if layer.integer(9) == RELU else _text(middle - layer.numbers(10)[1])
    new = layer.with_param(9, str(CLIP)).with_param(10, f"2,{low},{_text(middle)}")
    return replace(new, arrays=new.arrays | {10})


def _reading(layer: Layer, middle: float) -> Layer:
    """A layer that reads c − x in place of x."""
    weight, bias = layer.blob("weight"), layer.blob("bias")
    assert weight is not None
    assert bias is not None
    rows = weight.values().reshape(layer.integer(0), -1)
    moved = bias.values() + middle * rows.sum(axis=1, dtype=np.float64)
    new = layer.with_blobs(Blob("weight", -weight.values(), 0), Blob("bias", moved.astype(np.float32)))
    padded = layer.type != "InnerProduct" and any(layer.integer(key) for key in (4, 14, 15, 16))
    return new.with_param(18, _text(middle)) if padded else new


def _text(value: float) -> str:
    """As `.param` needs it: ncnn takes a number without a point for an integer's bits, and versions before October 2026 read
    no more than 15 characters of it, which are nine digits: enough for every float32.
    """
    return f"{np.float32(value):.8e}"
