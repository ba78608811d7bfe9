"""A model made ready for quantization: at operator set 13 or later, folded and fused, every node with a name of its own."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator

import numpy as np
import onnx

from onnxlint.backends.ort.session import first_line, runtime
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
    proto = opset.convert(view, OLDEST) if 0 < view.opset < OLDEST else opened.proto
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
    drop_defaults(model)
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
