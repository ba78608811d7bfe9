"""Quantization as TensorRT computes it: int8 activations with zero point 0, one scale for what a Concat joins, a quantized
shortcut where a layer's result is added to it.

The ranges are found by the methods of onnx-int8-static, on histograms that are made symmetric: its uint8 numbers with a zero
point in the middle are the same as int8 numbers around 0.

Source: TensorRT 11 documentation, "Explicit Quantization" (Q/DQ fusions and layer-placement recommendations).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxlint.backends.ort.calibrate import BINS, Histogram
from onnxlint.backends.ort.qdq import layers
from onnxlint.backends.ort.session import read_by

LARGEST = 127
"""Integer that the largest magnitude becomes."""

SMALLEST_SCALE = 2.0**-14
"""Of float16's normal numbers: a smaller scale would lose digits."""

_MOVES = frozenset("Flatten Identity MaxPool Reshape Slice Split Squeeze Transpose Unsqueeze".split())
"""Operators that a scale passes through."""


def groups(model: onnx.ModelProto, names: Sequence[str]) -> dict[str, str]:
    """Rounded value → the first of those that have to share its scale: what a Concat joins, and the whole, as far as the
    whole is rounded."""
    wanted = set(names)
    makers = {name: node for node in model.graph.node for name in node.output}
    first = {name: name for name in names}
    for node in model.graph.node:
        if node.op_type != "Concat" or node.output[0] not in wanted:
            continue
        joined = [node.output[0]]
        for name in node.input:
            while name not in wanted and name in makers and makers[name].op_type in _MOVES:
                name = makers[name].input[0]
            if name in wanted:
                joined.append(name)
        roots = {first[name] for name in joined}
        for name, root in first.items():
            if root in roots:
                first[name] = min(roots)
    return first


def mirrored(found: Mapping[str, Histogram], first: Mapping[str, str]) -> dict[str, Histogram]:
    """Histograms around 0, the same for values that share a scale."""
    peaks: dict[str, float] = {}
    for name, one in found.items():
        root = first.get(name, name)
        peaks[root] = max(peaks.get(root, 0.0), -one.low, one.high)
    counts = {root: np.zeros(BINS) for root in peaks}
    for name, one in found.items():
        root = first.get(name, name)
        if peaks[root] > 0:
            new, _ = np.histogram(one.centres, BINS, (-peaks[root], peaks[root]), weights=one.counts)
            counts[root] += new + new[::-1]
    return {
        name: Histogram(-peaks[root], peaks[root], counts[root]) for name in found for root in [first.get(name, name)]
    }


def shortcuts(model: onnx.ModelProto) -> dict[int, int]:
    """Additions of a layer's result and something else, with a Relu behind → the operand that is to be rounded: the other
    one. TensorRT fuses the three into one layer if the shortcut comes in 8 bits.
    """
    weighted = layers_of(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name for tensor in model.graph.initializer}
    uses: dict[str, int] = {}
    for node in model.graph.node:
        for name in read_by(node):
            uses[name] = uses.get(name, 0) + 1
    outputs = {value.name for value in model.graph.output}
    before_relu = {node.input[0] for node in model.graph.node if node.op_type == "Relu"}
    found = {}
    for i, node in enumerate(model.graph.node):
        if node.op_type != "Add" or node.output[0] not in before_relu:
            continue
        if not constants.isdisjoint(node.input) or node.input[0] == node.input[1]:
            continue
        own = [
            name in makers and makers[name].name in weighted and uses[name] == 1 and name not in outputs
            for name in node.input
        ]
        if any(own):
            found[i] = 1 if own[0] else 0
    return found


def layers_of(model: onnx.ModelProto) -> set[str]:
    """Nodes whose weights come out of a DequantizeLinear, or are constants that could."""
    rounded = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    kinds = ("Conv", "ConvTranspose", "Gemm", "MatMul")
    quantized = {node.name for node in model.graph.node if node.op_type in kinds and node.input[1] in rounded}
    return quantized or set(layers(model))


def symmetric(model: onnx.ModelProto, first: Mapping[str, str], more: Mapping[str, float]) -> onnx.ModelProto:
    """A QDQ model of onnx-int8-static with int8 activations around 0.

    Args:
        model: Its activations are uint8, with zero points of 127 or 128; it is not changed.
        first: See `groups`.
        more: Shortcuts that are not rounded yet → their largest magnitude.
    """
    new = onnx.ModelProto()
    new.CopyFrom(model)
    graph = new.graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    scales: dict[str, float] = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            # The same steps: weights were rounded for what comes of these.
            root = first.get(node.input[0], node.input[0])
            scales[root] = max(scales.get(root, 0.0), float(arrays[node.input[1]]))
    changed: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]] = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            root = first.get(node.input[0], node.input[0])
            changed[node.input[1]] = np.array(exact_in_half(scales[root]), np.float32)
            changed[node.input[2]] = np.array(0, np.int8)
    for tensor in graph.initializer:
        if tensor.name in changed:
            tensor.CopyFrom(numpy_helper.from_array(changed[tensor.name], tensor.name))
    _round_shortcuts(new, more)
    return new


def exact_in_half(scale: float) -> float:
    """The scale as float16 has it, where it has all its digits: then both types compute the same."""
    half = float(np.float16(scale)) if scale < 65504 else scale
    return half if half >= SMALLEST_SCALE else scale


def _round_shortcuts(model: onnx.ModelProto, more: Mapping[str, float]) -> None:
    """Let additions read the rounded shortcut."""
    graph = model.graph
    back = {node.input[0]: node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    pairs = {node.input[0]: back[node.output[0]] for node in graph.node if node.op_type == "QuantizeLinear"}
    wanted = shortcuts(model)
    nodes = []
    made: dict[str, str] = {}
    for i, old in enumerate(graph.node):
        node = onnx.NodeProto()
        node.CopyFrom(old)
        operand = wanted.get(i)
        if operand is not None:
            source = node.input[operand]
            if source in pairs:
                made[source] = pairs[source]
            elif source in more and source not in made:
                scale = np.array(exact_in_half(max(more[source], 1e-6) / LARGEST), np.float32)
                graph.initializer.append(numpy_helper.from_array(scale, f"{source}_scale"))
                graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), f"{source}_zero_point"))
                settings = [f"{source}_scale", f"{source}_zero_point"]
                q, made[source] = f"{source}_QuantizeLinear_Output", f"{source}_DequantizeLinear_Output"
                nodes.append(helper.make_node("QuantizeLinear", [source, *settings], [q], f"{source}_QuantizeLinear"))
                nodes.append(
                    helper.make_node("DequantizeLinear", [q, *settings], [made[source]], f"{source}_DequantizeLinear")
                )
            node.input[operand] = made.get(source, source)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
