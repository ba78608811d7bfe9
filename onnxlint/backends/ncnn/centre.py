"""Values stored around their middle: ncnn's int8 has no zero point, and half of its numbers are negative.

A value x from −m to M is stored as c − x with c = (M − m) / 2, which fills −127 to 127: behind a ReLU, where m is 0, 6 dB
less noise. Layers that read it get negated weights and another bias; they are padded with c, an integer in int8.

Outputs of ReLU are stored so by the layer that makes them, which gets negated weights and clips at c instead of 0: no byte
more, no time. Any other value takes a layer of its own (BinaryOp: c − x), which computes in float.

The sign is turned because ncnn fills int8 padding right only with numbers that are not negative: on x86, with channels
packed by eight, a pad value of −127 becomes −1 (measured in the wheel).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from onnxlint.backends.ncnn.format import Blob, Layer, Network
from onnxlint.backends.ncnn.table import QUANTIZABLE, quantizable, source_blobs
from onnxlint.backends.rounding import TINY

Floats = npt.NDArray[np.float32]

LEVELS = 127
"""The largest integer."""

RELU, CLIP = 1, 3
"""Types of activation inside a layer."""

REVERSED_SUBTRACTION = 7
"""BinaryOp's number for c − x."""

CENTRED = "_centred"
"""What the name of a blob that is stored around its middle ends with."""

LOWEST = "-3.402823e+38"


def absorbed(net: Network) -> dict[str, tuple[str, ...]]:
    """Blobs that the layers which make them can store around the middle → the outputs of these layers. Only layers with
    weights read such a blob."""
    readers, outputs = _readers(net), _outputs(net)
    found = {}
    for layer in net.layers:
        blob = layer.tops[0] if layer.tops else ""
        if blob in readers and _is_read_by_layers_with_weights(blob, readers, outputs):
            makers = _makers(net, layer, readers, outputs)
            if makers:
                found[blob] = tuple(one.tops[0] for one in makers)
    return found


def movable(net: Network) -> Iterator[tuple[tuple[str, ...], int]]:
    """Blobs that a layer of its own can store around the middle: names of one blob that layers with weights read, and how
    many such layers it takes."""
    source, free = source_blobs(net), absorbed(net)
    readers, outputs = _readers(net), _outputs(net)
    names: dict[str, list[str]] = {}
    able: dict[str, bool] = {}
    for layer in net.layers:
        if quantizable(layer):
            blob = source[layer.bottoms[0]]
            able[blob] = able.get(blob, True) and _can_read(layer)
            if layer.bottoms[0] not in names.setdefault(blob, []):
                names[blob].append(layer.bottoms[0])
    for blob, some in names.items():
        if able[blob] and blob not in free:
            yield tuple(some), 1 if _is_read_by_layers_with_weights(blob, readers, outputs) else len(some)


def needed(net: Network, middles: Mapping[str, int], keep: Collection[str]) -> dict[str, int]:
    """The middles without those of blobs that only layers in `keep` read, which stay in floating point."""
    readers, source = _readers(net), source_blobs(net)
    return {
        name: middle if any(layer.name not in keep for layer in readers[source[name]]) else 0
        for name, middle in middles.items()
    }


def centre(
    net: Network, ranges: Mapping[str, Floats], middles: Mapping[str, int]
) -> tuple[Network, dict[str, Floats], dict[str, float]]:
    """The net with values stored around their middle, which computes the same.

    Args:
        net: A float net.
        ranges: Blob → half of the range of each channel, for the blobs that quantizable layers read.
        middles: The same blobs → the integer that 0 is stored as, where the largest half is 127; 0: as it is.

    Returns:
        The net, the ranges by its names, and layer → what it reads in place of 0.
    """
    source, free = source_blobs(net), absorbed(net)
    readers, outputs = _readers(net), _outputs(net)
    layers = {layer.tops[0]: layer for layer in net.layers if layer.tops}  # names need not be unique
    zeros: dict[str, float] = {}
    places: dict[str, float] = {}
    groups: dict[str, list[str]] = {}
    for name, middle in middles.items():
        if middle:
            groups.setdefault(source[name], []).append(name)
    for blob, names in groups.items():
        together = blob in free or _is_read_by_layers_with_weights(blob, readers, outputs)
        for some in [names] if together else [[name] for name in names]:
            largest = max(float(ranges[name].max()) for name in some)
            if not largest > TINY:
                continue
            value = float(np.float32(middles[some[0]] * largest / LEVELS))
            if blob in free:
                for top in free[blob]:
                    layers[top] = _negated(layers[top], value)
                layers[blob] = _clipping(layers[blob], value)
            else:
                places[blob if together else some[0]] = value
            for one in readers[blob]:
                if one.bottoms[0] in some and quantizable(one):
                    layers[one.tops[0]] = _reading(layers[one.tops[0]], value)
                    zeros[one.name] = value
    new = replace(net, layers=tuple(layers[layer.tops[0]] if layer.tops else layer for layer in net.layers))
    return *_with_layers_of_their_own(new, ranges, places), zeros


def own_layers(net: Network) -> tuple[str, ...]:
    """Blobs that a layer which `centre` added stores around their middle."""
    return tuple(
        layer.bottoms[0]
        for layer in net.layers
        if layer.type == "BinaryOp" and layer.tops[0].rstrip("_") == f"{layer.bottoms[0]}{CENTRED}"
    )


def _with_layers_of_their_own(
    net: Network, ranges: Mapping[str, Floats], places: Mapping[str, float]
) -> tuple[Network, dict[str, Floats]]:
    """The net with a layer that stores c − x for each of some blobs, read by Split and layers with weights, and the ranges
    by the new names."""
    taken = {top for layer in net.layers for top in layer.tops}
    names: dict[str, str] = {}
    for blob in places:
        names[blob] = blob + CENTRED
        while names[blob] in taken:
            names[blob] += "_"
        taken.add(names[blob])
    layers: list[Layer] = []
    for layer in net.layers:
        reads = layer.bottoms[:1] if layer.type == "Split" or quantizable(layer) else ()
        layers.append(replace(layer, bottoms=(*(names.get(one, one) for one in reads), *layer.bottoms[len(reads) :])))
        for top in layer.tops:
            if top in places:
                params = ((0, str(REVERSED_SUBTRACTION)), (1, "1"), (2, _text(places[top])))
                layers.append(Layer("BinaryOp", names[top], (top,), (names[top],), params))
    found = {names.get(name, name): one for name, one in ranges.items()}
    return replace(net, layers=tuple(layers), blob_count=net.blob_count + len(places)), found


def _readers(net: Network) -> dict[str, list[Layer]]:
    """Blob → the layers that read it, through Split."""
    source = source_blobs(net)
    readers: dict[str, list[Layer]] = {}
    for layer in net.layers:
        if layer.type != "Split":
            for name in layer.bottoms:
                readers.setdefault(source[name], []).append(layer)
    return readers


def _outputs(net: Network) -> set[str]:
    """Outputs of the net, seen through Split."""
    source = source_blobs(net)
    return {source[name] for name in net.outputs()}


def _is_read_by_layers_with_weights(blob: str, readers: Mapping[str, Sequence[Layer]], outputs: set[str]) -> bool:
    """Whether only layers that can read c − x read a blob, each of its copies included."""
    return blob not in outputs and all(_can_read(one) for one in readers[blob])


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
