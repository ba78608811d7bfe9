"""Static int8 (QDQ): what layers with weights read is quantized, and their weights, and nothing else.

A value between two layers is rounded once, in front of the layers that read it: behind an activation function, a sum or a
resize, never before. Runtimes that fuse (OpenVINO, TensorRT) compute the same layers in int8 as with more pairs of
QuantizeLinear and DequantizeLinear, and fewer roundings lose less.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from onnxlint.backends.ort.calibrate import Range, Ranges
from onnxlint.backends.ort.equalize import attribute
from onnxlint.backends.ort.session import read_by
from onnxlint.backends.rounding import TINY

LEVELS = {8: 127, 7: 64}
"""Bits of weights → their largest integer. With 127, the 16-bit sums of two products that x86 processors without VNNI
compute overflow: 255 · 64 · 2 is the most that fits (onnxruntime calls that `reduce_range`)."""

Floats = npt.NDArray[np.float32]
Weights = Mapping[str, tuple[Floats, Floats]]
"""Name of a weight → its values, each a multiple of its scale, and the scales of its channels."""


@dataclass(frozen=True)
class Layer:
    """A node with constant weights that int8 is defined for.

    Attributes:
        name: Of the node.
        source: The value that it reads.
        weight: Name of its weights.
        axis: Of the weights that has a scale for each channel: that of the outputs.
    """

    name: str
    source: str
    weight: str
    axis: int


def layers(model: onnx.ModelProto, keep: Collection[str] = ()) -> dict[str, Layer]:
    """Layers of the main graph that can be quantized, by the name of their node.

    Args:
        model: As `prepare` makes it.
        keep: Nodes that stay in float.
    """
    inputs = {value.name for value in model.graph.input}
    constants = {
        tensor.name: len(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.name not in inputs
    }
    found = {}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or node.name in keep or len(node.input) < 2:
            continue
        source, weight = node.input[0], node.input[1]
        rank = constants.get(weight, 0)
        if source in constants or rank < 2:
            continue
        axis = {
            "Conv": 0,
            "ConvTranspose": 1,
            "Gemm": 0 if attribute(node, "transB", 0) else 1,
            "MatMul": rank - 1,
        }.get(node.op_type)
        if axis is not None and not (node.op_type == "Gemm" and attribute(node, "transA", 0)):
            found[node.name] = Layer(node.name, source, weight, axis)
    return found


def activations(model: onnx.ModelProto, keep: Collection[str] = ()) -> list[str]:
    """The values that are rounded: what layers read."""
    return list(dict.fromkeys(layer.source for layer in layers(model, keep).values()))


def parameters(limits: Range) -> tuple[float, int]:
    """Scale and zero point of uint8 for a range, which always holds 0: padding and ReLU make it exactly."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    scale = float(np.float32((high - low) / 255))
    if not scale > TINY:
        return 1.0, 0
    return scale, int(np.clip(np.rint(-low / scale), 0, 255))


def rounded(value: npt.NDArray[np.float32], limits: Range) -> Floats:
    """A value after QuantizeLinear and DequantizeLinear."""
    scale, zero = parameters(limits)
    q = np.asarray(value / np.float32(scale), np.float32)
    np.rint(q, out=q)
    np.clip(q, -zero, 255 - zero, out=q)
    q *= np.float32(scale)
    return q


def nearest(values: Floats, axis: int, levels: int) -> tuple[Floats, Floats]:
    """Weights rounded to the nearest, and the scales of their channels: the largest of each becomes `levels`."""
    others = tuple(i for i in range(values.ndim) if i != axis)
    peak = np.abs(values).max(axis=others).astype(np.float64)
    scales = np.where(peak > TINY, peak / levels, 1.0).astype(np.float32)
    shape = [1] * values.ndim
    shape[axis] = -1
    wide = scales.reshape(shape)
    return np.asarray(np.clip(np.rint(values / wide), -levels, levels) * wide, np.float32), scales


def quantize(
    model: onnx.ModelProto,
    ranges: Ranges,
    keep: Collection[str] = (),
    weights: Weights | None = None,
    levels: int = LEVELS[8],
    *,
    weights_too: bool = True,
) -> onnx.ModelProto:
    """A QDQ model: uint8 activations, int8 weights with a scale for each channel and no offset, biases in float.

    Args:
        model: As `prepare` makes it; it is not changed.
        ranges: Of all its `activations`.
        keep: Names of nodes that stay in float.
        weights: Weights to take instead of those rounded to the nearest.
        levels: The largest integer of those.
        weights_too: Whether weights are rounded; activations are in any case.
    """
    known = layers(model, keep)
    new = onnx.ModelProto()
    new.CopyFrom(model)
    graph = new.graph
    del graph.node[:]
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    made: dict[str, str] = {}
    still_read: set[str] = {value.name for value in graph.output}
    for old in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(old)
        layer = known.get(old.name)
        if layer is not None:
            if layer.source not in made:
                made[layer.source] = _add_activation(graph, layer.source, ranges[layer.source])
            if weights_too and layer.weight not in made:
                values = numpy_helper.to_array(tensors[layer.weight])
                quantized = (weights or {}).get(layer.weight) or nearest(values, layer.axis, levels)
                # Of a Gemm, onnxruntime 1.21 takes one zero point for all channels where none is named, and refuses it.
                made[layer.weight] = _add_weight(graph, layer, *quantized, zeros=node.op_type == "Gemm")
            node.input[0], node.input[1] = made[layer.source], made.get(layer.weight, layer.weight)
        still_read |= read_by(node)
        graph.node.append(node)
    kept = [tensor for tensor in graph.initializer if tensor.name not in made or tensor.name in still_read]
    copies = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del graph.initializer[:]
    graph.initializer.extend(copies)
    return new


def nearly_rounded(
    model: onnx.ModelProto, share: float, keep: Collection[str] = (), levels: int = LEVELS[8]
) -> onnx.ModelProto:
    """The model with weights that are moved by a share of what rounding to the nearest would move them."""
    new = onnx.ModelProto()
    new.CopyFrom(model)
    axes = {layer.weight: layer.axis for layer in layers(model, keep).values()}
    for tensor in new.graph.initializer:
        if tensor.name in axes:
            old = numpy_helper.to_array(tensor)
            moved = old + np.float32(share) * (nearest(old, axes[tensor.name], levels)[0] - old)
            tensor.CopyFrom(numpy_helper.from_array(moved.astype(np.float32), tensor.name))
    return new


def _add_activation(graph: onnx.GraphProto, name: str, limits: Range) -> str:
    """Add the pair that rounds a value; returns the name of its output."""
    scale, zero = parameters(limits)
    graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), f"{name}_scale"))
    graph.initializer.append(numpy_helper.from_array(np.array(zero, np.uint8), f"{name}_zero_point"))
    settings = [f"{name}_scale", f"{name}_zero_point"]
    q, dq = f"{name}_QuantizeLinear_Output", f"{name}_DequantizeLinear_Output"
    graph.node.append(helper.make_node("QuantizeLinear", [name, *settings], [q], name=f"{name}_QuantizeLinear"))
    graph.node.append(helper.make_node("DequantizeLinear", [q, *settings], [dq], name=f"{name}_DequantizeLinear"))
    return dq


def _add_weight(graph: onnx.GraphProto, layer: Layer, values: Floats, scales: Floats, *, zeros: bool) -> str:
    """Add int8 weights and their DequantizeLinear, which names its zero points if `zeros`; the name of its output."""
    shape = [1] * values.ndim
    shape[layer.axis] = -1
    q = np.rint(values.astype(np.float64) / scales.astype(np.float64).reshape(shape)).astype(np.int8)
    name = layer.weight
    held: dict[str, npt.NDArray[Any]] = {f"{name}_quantized": q, f"{name}_scale": scales}
    if zeros:
        held[f"{name}_zero_point"] = np.zeros(scales.shape, np.int8)
    graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in held.items())
    out = f"{name}_DequantizeLinear_Output"
    graph.node.append(
        helper.make_node(
            "DequantizeLinear",
            list(held),
            [out],
            name=f"{name}_DequantizeLinear",
            axis=layer.axis,
        )
    )
    return out
