"""Cross-layer equalization: rescale channels between layers so that all fill the range of their tensor.

A channel that is divided by s where it is made and multiplied by s where it is read changes nothing in float, as long as
everything between is positively homogeneous: ReLU, leaky ReLU, sums, joins, pooling, interpolation. int8 has one scale
for a tensor, so channels with small ranges lose their precision; after this none is small.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, 2019; here along every path
of the graph instead of pairs of layers, and by the ranges of activations alone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.intp]

PASSES = frozenset("Relu LeakyRelu MaxPool AveragePool GlobalAveragePool GlobalMaxPool Identity Dropout".split())
"""Operators with one data input whose every output channel is a homogeneous function of the same input channel."""

SMALLEST = 1e-3
"""The smallest factor: a channel that hardly ever moves is not blown up beyond this."""


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute."""
    return next((int(one.i) for one in node.attribute if one.name == name), default)


class _Classes:
    """Channels that must share one factor."""

    def __init__(self) -> None:
        self.parent: list[int] = []
        self.pinned: set[int] = set()

    def new(self, count: int) -> Ids:
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def find(self, i: int) -> int:
        while self.parent[i] != i:
            self.parent[i] = self.parent[self.parent[i]]
            i = self.parent[i]
        return i

    def join(self, a: Ids, b: Ids) -> None:
        for i, j in zip(a.tolist(), b.tolist(), strict=True):
            self.parent[self.find(i)] = self.find(j)


def channel_classes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Ids]:
    """Value → the class of each of its channels (its second axis), −1 where the factor must stay 1.

    Args:
        model: Its main graph.
        shapes: Of its floating-point values, from a run.
    """
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    uses: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    classes = _Classes()
    ids: dict[str, Ids] = {}
    pinned: list[Ids] = []

    def of(name: str) -> Ids | None:
        return ids.get(name)

    def fresh(name: str) -> None:
        if name in shapes and len(shapes[name]) >= 2:
            ids[name] = classes.new(shapes[name][1])

    def pin(name: str) -> None:
        if name in ids:
            pinned.append(ids[name])

    for value in model.graph.input:
        fresh(value.name)
        pin(value.name)
    for node in model.graph.node:
        data = [name for name in node.input if name and name not in constants]
        out = node.output[0] if node.output else ""
        first = of(data[0]) if data else None
        done = False
        if first is not None and len(node.output) == 1 and out in shapes and len(shapes[out]) >= 2:
            count = shapes[out][1]
            if is_layer(node, constants) and all(uses[name] == 1 for name in node.input[1:] if name):
                fresh(out)
                done = True
            elif (
                (node.op_type in PASSES or _keeps_channels(node, constants)) and len(data) == 1 and count == len(first)
            ):
                ids[out] = first
                done = True
            elif node.op_type in ("Add", "Sub", "Sum") and len(data) == len(node.input):
                same = [of(name) for name in data]
                if all(one is not None and len(one) == count for one in same):
                    for one in same[1:]:
                        assert one is not None
                        classes.join(first, one)
                    ids[out] = first
                    done = True
            elif node.op_type == "Concat" and len(data) == len(node.input) and attribute(node, "axis", 1) == 1:
                parts = [of(name) for name in data]
                if all(one is not None for one in parts):
                    ids[out] = np.concatenate([one for one in parts if one is not None])
                    done = len(ids[out]) == count
        if not done:
            from onnxlint.backends.ort.session import read_by

            for name in read_by(node):
                pin(name)
            for name in node.output:
                fresh(name)
                pin(name)
    for value in model.graph.output:
        pin(value.name)
    roots = {classes.find(i) for one in pinned for i in one.tolist()}
    found = [classes.find(i) for i in range(len(classes.parent))]
    return {
        name: np.array([-1 if found[i] in roots else found[i] for i in one.tolist()], np.intp)
        for name, one in ids.items()
    }


def is_layer(node: onnx.NodeProto, constants: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether it is a convolution or a fully connected layer with constant weights (and bias)."""
    if (
        len(node.input) < 2
        or node.input[0] in constants
        or any(name and name not in constants for name in node.input[1:])
    ):
        return False
    rank = len(constants.get(node.input[1], ()))
    if node.op_type == "Conv":
        return rank >= 3
    plain = all(one.name in ("transA", "transB") or one.f == 1.0 for one in node.attribute)
    return node.op_type == "Gemm" and rank == 2 and plain and attribute(node, "transA", 0) == 0


def _keeps_channels(node: onnx.NodeProto, constants: Mapping[str, tuple[int, ...]]) -> bool:
    """A Resize of height and width that needs no values from outside."""
    if node.op_type != "Resize":
        return False
    texts = {one.name: one.s for one in node.attribute if one.s}
    return texts.get("coordinate_transformation_mode") != b"tf_crop_and_resize" and all(
        name in constants for name in node.input[1:] if name
    )


def equalized(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]], peaks: Mapping[str, Floats]
) -> onnx.ModelProto:
    """The model with its channels rescaled.

    Args:
        model: It is not changed.
        shapes: Of its floating-point values.
        peaks: Value → largest |x| of each channel, for those that are quantized.
    """
    classes = channel_classes(model, shapes)
    logs: dict[int, list[float]] = {}
    for name, peak in peaks.items():
        if name in classes and len(classes[name]) == len(peak) and peak.max() > 0:
            wish = np.log(np.clip(peak.astype(np.float64) / float(peak.max()), SMALLEST, None))
            for i, w in zip(classes[name].tolist(), wish.tolist(), strict=True):
                logs.setdefault(i, []).append(w)
    factor = {i: float(np.exp(np.mean(values))) for i, values in logs.items() if i >= 0}
    scales = {name: np.array([factor.get(i, 1.0) for i in one.tolist()], np.float64) for name, one in classes.items()}
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in copy.graph.initializer}
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    uses: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    for node in copy.graph.node:
        if not is_layer(node, constants) or any(uses[name] > 1 for name in node.input[1:] if name):
            continue
        source, target = scales.get(node.input[0]), scales.get(node.output[0])
        if source is None or target is None:
            continue
        weight = numpy_helper.to_array(tensors[node.input[1]]).astype(np.float64)
        rows = weight.T if node.op_type == "Gemm" and not attribute(node, "transB", 0) else weight
        groups = attribute(node, "group", 1) if node.op_type == "Conv" else 1
        columns = np.repeat(source.reshape(groups, 1, -1), len(rows) // groups, axis=1).reshape(len(rows), -1)
        rows = (
            rows
            * columns.reshape(columns.shape + (1,) * (rows.ndim - 2))
            / target.reshape((-1,) + (1,) * (rows.ndim - 1))
        )
        new = rows.T if node.op_type == "Gemm" and not attribute(node, "transB", 0) else rows
        tensors[node.input[1]].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(new, np.float32), node.input[1]))
        if len(node.input) > 2 and node.input[2]:
            bias = numpy_helper.to_array(tensors[node.input[2]]).astype(np.float64)
            scaled = (np.broadcast_to(bias, (len(rows),)) / target).astype(np.float32)
            tensors[node.input[2]].CopyFrom(numpy_helper.from_array(scaled, node.input[2]))
    return copy
