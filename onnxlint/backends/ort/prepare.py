"""A model made ready for quantization: at operator set 13 or later, folded and fused, every node with a name of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from onnxlint.backends.ort.equalize import attribute
from onnxlint.backends.ort.session import first_line, read_by, runtime
from onnxlint.errors import OnnxlintError
from onnxlint.model.limits import loading
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

OLDEST = 13
"""The first operator set whose QuantizeLinear has a scale for each channel."""

NOTHING = "{}: has no layer with weights that onnxruntime can quantize; onnx-fp16 needs none"
"""The error for a model that int8 does nothing for."""

MOST = 2**31 - 2**24
"""Bytes of weights that can be handled: onnxruntime's tools hold models as one protobuf message."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what onnxruntime's tools print and log to themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with open(os.devnull, "w", encoding="utf-8") as sink, contextlib.redirect_stdout(sink):
            yield
    finally:
        logging.disable(before)


def prepare(source: str) -> onnx.ModelProto:
    """The model at operator set 13 or later, after onnxruntime's own pre-processing, every node with a name of its own.

    Raises:
        OnnxlintError: It cannot be read, is too large, or cannot be raised or pre-processed.
    """
    from onnxlint.fixes import opset
    from onnxlint.model.save import save
    from onnxlint.model.skeleton import open_model

    runtime()
    from onnxruntime.quantization import quant_pre_process

    opened = open_model(source)
    shown = printable(source)
    size = weight_bytes(opened.proto)
    if size > MOST:
        raise OnnxlintError(
            f"{shown}: has {size:,} bytes of weights; onnxruntime's quantizer cannot handle more than 2 GiB in one model, "
            "split it first"
        )
    view = make_view(opened)
    proto = onnx.ModelProto()
    proto.CopyFrom(opset.convert(view, OLDEST) if 0 < view.opset < OLDEST else opened.proto)
    drop_defaults(proto)  # before onnxruntime sees it, which fuses nothing that callers may replace
    with tempfile.TemporaryDirectory(prefix="onnxlint-") as folder:
        raised, ready = os.path.join(folder, "raised.onnx"), os.path.join(folder, "ready.onnx")
        save(opened, proto, raised, inline=True)
        # Its symbolic shape inference gives up on RetinaFace, and leaves a file in the current folder then. The
        # quantizer needs no more than element types, and these onnxruntime's graph optimizer writes.
        try:
            with quiet(), loading():
                quant_pre_process(raised, ready, skip_symbolic_shape=True)
        except Exception as error:  # whatever its tools raise
            raise OnnxlintError(f"{shown}: onnxruntime's pre-processing fails: {first_line(error)}") from error
        model = onnx.load(ready)
    fold_norms(model)
    name_nodes(model)
    return model


def drop_defaults(model: onnx.ModelProto) -> None:
    """Weights that are listed among the inputs, as files of IR version 3 have them all, are weights and no inputs."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) < len(model.graph.input):
        copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
        del model.graph.input[:]
        model.graph.input.extend(copies)
        model.ir_version = max(model.ir_version, 4)


def fold_norms(model: onnx.ModelProto) -> None:
    """Put each BatchNormalization that alone reads a transposed convolution into its weights: onnxruntime leaves these."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in read_by(node))
    uses.update(value.name for value in graph.output)
    makers = {out: node for node in graph.node for out in node.output}
    folded = []
    for norm in graph.node:
        is_norm = norm.op_type == "BatchNormalization" and len(norm.output) == 1
        if not is_norm or attribute(norm, "training_mode", 0):  # in training, statistics come from the input
            continue
        conv = makers.get(norm.input[0])
        if conv is None or conv.op_type != "ConvTranspose" or uses[conv.output[0]] > 1:
            continue
        own = [name for name in conv.input[1:] if name]
        if any(name not in tensors for name in (*own, *norm.input[1:])) or any(uses[name] > 1 for name in own):
            continue
        scale, shift, mean, variance = (
            numpy_helper.to_array(tensors[name]).astype(np.float64) for name in norm.input[1:]
        )
        epsilon = next((one.f for one in norm.attribute if one.name == "epsilon"), 1e-5)
        factor = scale / np.sqrt(variance + epsilon)
        weight = numpy_helper.to_array(tensors[own[0]])
        columns = factor.reshape(-1, weight.shape[1], *(1,) * (weight.ndim - 2))  # (groups, outputs of one, …)
        rows = weight.reshape(len(columns), -1, *weight.shape[1:]) * columns[:, None]
        tensors[own[0]].CopyFrom(numpy_helper.from_array(rows.reshape(weight.shape).astype(weight.dtype), own[0]))
        bias = numpy_helper.to_array(tensors[own[1]]) if len(own) > 1 else 0.0
        moved = ((bias - mean) * factor + shift).astype(weight.dtype)
        name = own[1] if len(own) > 1 else f"{conv.output[0]}_bias"
        if len(own) > 1:
            tensors[name].CopyFrom(numpy_helper.from_array(moved, name))
        else:
            graph.initializer.append(numpy_helper.from_array(moved, name))
            conv.input[:] = [*conv.input[:2], name]
        conv.output[0] = norm.output[0]
        folded.append(norm)
    for norm in folded:
        graph.node.remove(norm)
    read = {name for node in graph.node for name in read_by(node)} | {value.name for value in graph.output}
    for i in reversed(range(len(graph.initializer))):
        if uses[graph.initializer[i].name] and graph.initializer[i].name not in read:
            del graph.initializer[i]


def name_nodes(model: onnx.ModelProto) -> None:
    """Give nodes that have no name, or that of another one, a name of their own."""
    taken = {node.name for node in model.graph.node}
    seen: set[str] = set()
    for i, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            name = f"{node.op_type}_{i}"
            while name in taken:
                name += "_"
            node.name = name
            taken.add(name)
        seen.add(node.name)


def weight_bytes(proto: onnx.ModelProto) -> int:
    """Bytes of all tensors of a skeleton, in memory."""
    from onnxlint.model.skeleton import walk_tensors

    total = 0
    for tensor in walk_tensors(proto):
        bits = {1: 32, 6: 32, 7: 64, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16}.get(tensor.data_type, 8)
        total += int(np.prod(tensor.dims, dtype=np.int64)) * bits // 8
    return total
