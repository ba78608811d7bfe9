"""The last layers of a quantized model, corrected by what backends/outputs.py finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import numpy_helper

from onnxlint.backends import Array
from onnxlint.backends.ort.equalize import is_layer, use_counts
from onnxlint.backends.ort.judge import computer
from onnxlint.backends.ort.qdq import quantize
from onnxlint.backends.ort.reconstruct import Reconstructed
from onnxlint.backends.outputs import Floats, correction

PASSED = frozenset("Transpose Reshape Concat Flatten Squeeze Unsqueeze Identity Softmax LogSoftmax Sigmoid".split())
"""Operators that may come after a last layer: scores are corrected before they become probabilities."""


def last_layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Convolutions and fully connected layers with a bias whose results only reach outputs of the model."""
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    uses = use_counts(model)
    open_values = {value.name for value in model.graph.output}
    readers: dict[str, set[str]] = {}
    found = []
    for node in reversed(model.graph.node):
        for name in node.input:
            readers.setdefault(name, set()).update(node.output)
        ends = all(readers.get(out, set()) <= open_values for out in node.output) and not open_values.isdisjoint(
            node.output
        )
        if ends and node.op_type in PASSED:
            open_values.update(name for name in node.input if name not in constants)
        elif ends and is_layer(node, constants) and len(node.input) > 2 and all(uses[k] == 1 for k in node.input[1:]):
            found.append(node)
    return found[::-1]


def corrected(
    model: onnx.ModelProto,
    made: Reconstructed,
    inputs: Sequence[Mapping[str, Array]],
    *,
    name: str,
    keep: Sequence[str] = (),
    levels: int = 127,
    threads: int = 2,
) -> Reconstructed:
    """The reconstructed model with the systematic errors of its outputs taken back.

    Args:
        model: The float model, of the same nodes.
        made: The reconstructed model.
        inputs: Held in memory.
        name: Of the model, for errors.
        keep: Nodes that stay in float.
        levels: Largest integer of a weight.
        threads: For onnxruntime.
    """
    ends = last_layers(made.model)
    if not ends:
        return made
    names = [node.output[0] for node in ends]
    exact = computer(model, names, name, threads)
    rounded = quantize(made.model, made.ranges, keep, made.weights, levels)
    inexact = computer(rounded, names, name, threads, integers=False)
    truth = [[_by_channel(value) for value in exact(feeds)] for feeds in inputs]
    found = [[_by_channel(value) for value in inexact(feeds)] for feeds in inputs]
    new = onnx.ModelProto()
    new.CopyFrom(made.model)
    tensors = {tensor.name: tensor for tensor in new.graph.initializer}
    weights = dict(made.weights)
    for i, node in enumerate(ends):
        a, b = (np.concatenate([one[i] for one in each], axis=1) for each in (truth, found))
        scale, shift = correction(a, b)
        _fold(node, tensors, weights, scale.astype(np.float32), shift.astype(np.float32))
    return replace(made, model=new, weights=weights)


def _by_channel(value: Array) -> Array:
    """(N, C, …) → (C, values)."""
    return np.moveaxis(value, 1, 0).reshape(value.shape[1], -1)


def _fold(
    node: onnx.NodeProto,
    tensors: Mapping[str, onnx.TensorProto],
    weights: dict[str, tuple[Floats, Floats]],
    scale: Floats,
    shift: Floats,
) -> None:
    """Put scale and shift of the output channels into a layer's weights and bias; its integers stay."""
    key, bias = node.input[1], node.input[2]
    array = numpy_helper.to_array(tensors[key])
    axis = (
        array.ndim - 1
        if node.op_type == "Gemm" and not any(one.name == "transB" and one.i for one in node.attribute)
        else 0
    )
    shape = [1] * array.ndim
    shape[axis] = -1
    if key in weights:
        _, steps = weights[key]
        new_steps = (steps * scale).astype(np.float32)
        integers = np.rint(array / steps.reshape(shape))
        array = (integers * new_steps.reshape(shape)).astype(np.float32)
        weights[key] = (array, new_steps)
    else:
        array = (array * scale.reshape(shape)).astype(np.float32)
    tensors[key].CopyFrom(numpy_helper.from_array(array, key))
    moved = np.broadcast_to(numpy_helper.to_array(tensors[bias]), scale.shape) * scale + shift
    tensors[bias].CopyFrom(numpy_helper.from_array(moved.astype(np.float32), bias))
