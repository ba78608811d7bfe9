"""Static int8 (QDQ): onnxruntime's own quantizer, fed with ranges and weights of ours."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from onnxlint.backends import Array
from onnxlint.backends.ort.calibrate import Ranges
from onnxlint.backends.ort.session import first_line, run, runtime, start
from onnxlint.errors import OnnxlintError
from onnxlint.symbolic.view import make_view
from onnxlint.text import printable

OLDEST = 13
"""The first operator set whose QuantizeLinear has a scale for each channel."""

NOTHING = "{}: has no layer with weights that onnxruntime can quantize; onnx-fp16 needs none"
"""The error for a model that int8 does nothing for."""

MOST = 2**31 - 2**24
"""Bytes of weights that can be handled: onnxruntime's tools hold models as one protobuf message."""

Weights = Mapping[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], int]]
"""Name of a weight → its new values, its scales and the axis of these."""


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
            with quiet():
                quant_pre_process(raised, ready, skip_symbolic_shape=True)
        except Exception as error:  # whatever its tools raise
            raise OnnxlintError(f"{shown}: onnxruntime's pre-processing fails: {first_line(error)}") from error
        model = onnx.load(ready)
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
    return model


def weight_bytes(proto: onnx.ModelProto) -> int:
    """Bytes of all tensors of a skeleton, in memory."""
    from onnxlint.model.skeleton import walk_tensors

    total = 0
    for tensor in walk_tensors(proto):
        bits = {1: 32, 6: 32, 7: 64, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16}.get(tensor.data_type, 8)
        total += int(np.prod(tensor.dims, dtype=np.int64)) * bits // 8
    return total


def quantizable_ops() -> list[str]:
    """Operators that onnxruntime can quantize statically."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry})


def activations(model: onnx.ModelProto) -> list[str]:
    """Floating-point values that the quantizer may ask the range of."""
    ops = set(quantizable_ops())
    constants = {tensor.name for tensor in model.graph.initializer}
    kinds = {
        value.name: value.type.tensor_type.elem_type
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }
    names: dict[str, None] = {}
    for node in model.graph.node:
        if node.op_type in ops:
            names |= dict.fromkeys(name for name in (*node.input, *node.output) if name and name not in constants)
    return [name for name in names if kinds.get(name) == onnx.TensorProto.FLOAT]


def quantize(
    model: onnx.ModelProto, ranges: Ranges, keep: Collection[str] = (), weights: Weights | None = None
) -> onnx.ModelProto:
    """A QDQ model: int8 activations, int8 weights from −64 to 64 (see reconstruct.LEVELS) with a scale for each channel
    and no offset.

    Args:
        model: As `prepare` makes it; it is not changed.
        ranges: Of all its `activations`.
        keep: Names of nodes that stay in float.
        weights: Weights to take instead, each with its scales.

    Raises:
        OnnxlintError: The quantizer fails.
    """
    from onnx import numpy_helper
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    overrides: dict[str, list[dict[str, Any]]] = {}
    for tensor in copy.graph.initializer:
        if weights and tensor.name in weights:
            values, scales, axis = weights[tensor.name]
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
            if scales.size:
                overrides[tensor.name] = [
                    {"scale": scale, "zero_point": np.int8(0), "quant_type": QuantType.QInt8} for scale in scales
                ]
                overrides[tensor.name][0]["axis"] = axis
    data = TensorsData(
        CalibrationMethod.MinMax,
        {name: (np.array(low, np.float32), np.array(high, np.float32)) for name, (low, high) in ranges.items()},
    )
    options = {"WeightSymmetric": True, "TensorQuantOverrides": overrides}
    try:
        with quiet():
            quantizer = QDQQuantizer(
                copy, True, True, QuantType.QInt8, QuantType.QInt8, data, [], sorted(keep), quantizable_ops(), options
            )
            quantizer.quantize_model()
            made: onnx.ModelProto = quantizer.model.model
    except Exception as error:  # whatever it raises
        raise OnnxlintError(f"onnxruntime's quantizer fails: {first_line(error)}") from error
    return made


def activation_parameters(quantized: onnx.ModelProto) -> dict[str, tuple[float, int]]:
    """Value of the float model → (scale, zero point) that the QDQ model rounds it with."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
    found = {}
    for node in quantized.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
            scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
            found[node.input[0].removesuffix("_QuantizeLinear_Input")] = (float(scale), int(zero))
    return found


def quantized_weights(quantized: onnx.ModelProto) -> frozenset[str]:
    """Names of the float model's weights that a QDQ model has in int8."""
    constants = {tensor.name for tensor in quantized.graph.initializer if len(tensor.dims) >= 2}
    return frozenset(
        node.input[0].removesuffix("_quantized")
        for node in quantized.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in constants
    )


def left_alone(model: onnx.ModelProto) -> list[str]:
    """Nodes that are never quantized: those that compute sizes, which would be others then; and those without weights
    behind the last ones with weights, where it costs accuracy and saves nothing."""
    from onnxlint.backends.ort.session import size_nodes

    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.name)
    constants = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) >= 2}
    found: dict[str, None] = {}
    for node in reversed(model.graph.node):
        if constants.isdisjoint(node.input) and all(r in found for out in node.output for r in readers.get(out, ())):
            found[node.name] = None
    return [*found, *(model.graph.node[i].name for i in sorted(size_nodes(model)))]


def size_of(model: onnx.ModelProto) -> int:
    """Bytes of the file that it makes."""
    return int(model.ByteSize())


def without_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without the types of inner values, which every runtime infers."""
    del model.graph.value_info[:]
    return model


@dataclass
class Judge:
    """SNR of quantized models' outputs against the float model's, in onnxruntime, on inputs held in memory.

    Attributes:
        inputs: Sets of inputs.
        truth: What the float model makes of each.
        parts: (output, axis, from, to): an output that joins several is judged by each of them.
    """

    name: str
    inputs: Sequence[Mapping[str, Array]]
    threads: int
    truth: list[list[Array]] = field(default_factory=list)
    parts: list[tuple[int, int, int, int]] = field(default_factory=list)

    @classmethod
    def of(cls, name: str, model: onnx.ModelProto, inputs: Sequence[Mapping[str, Array]], threads: int) -> Judge:
        """A judge by a float model."""
        judge = cls(name, inputs, threads)
        judge.truth = judge._outputs(model, inputs)
        judge.parts = _parts(model, name, inputs[0], judge.truth[0])
        return judge

    def _outputs(self, model: onnx.ModelProto, inputs: Sequence[Mapping[str, Array]]) -> list[list[Array]]:
        session = start(model, name=self.name, threads=self.threads)
        return [run(session, self.name, feeds) for feeds in inputs]

    def snr(self, model: onnx.ModelProto, count: int | None = None) -> npt.NDArray[np.float64]:
        """Of each part, over the first `count` inputs together, dB; −300 where outputs are not finite."""
        signal, noise = np.zeros(len(self.parts)), np.zeros(len(self.parts))
        for truth, got in zip(self.truth, self._outputs(model, self.inputs[:count]), strict=False):
            for i, (output, axis, first, last) in enumerate(self.parts):
                a, b = (np.asarray(x[output]) for x in (truth, got))
                if last > first:
                    a, b = (np.take(x, range(first, last), axis) for x in (a, b))
                if a.shape != b.shape:
                    return np.full(len(self.parts), -300.0)
                a = a.astype(np.float64)
                signal[i] += float(np.sum(a * a))
                noise[i] += float(np.sum((a - b) ** 2))
        noise = np.where(np.isfinite(noise), noise, np.inf)
        with np.errstate(divide="ignore"):
            return np.asarray(np.clip(10 * np.log10(np.maximum(signal, 1e-30) / np.maximum(noise, 1e-30)), -300, 300))

    def score(self, model: onnx.ModelProto, count: int | None = None) -> float:
        """Mean SNR of the parts, dB."""
        return float(self.snr(model, count).mean())


def _parts(
    model: onnx.ModelProto, name: str, feeds: Mapping[str, Array], truth: list[Array]
) -> list[tuple[int, int, int, int]]:
    from onnxlint.backends.ort.session import part

    makers = {out: node for node in model.graph.node for out in node.output}
    found: list[tuple[int, int, int, int]] = []
    for i, (value, array) in enumerate(zip(model.graph.output, truth, strict=True)):
        if np.asarray(array).dtype.kind != "f":
            continue
        node = makers.get(value.name)
        if node is None or node.op_type != "Concat":
            found.append((i, 0, 0, 0))
            continue
        axis = next(attribute.i for attribute in node.attribute if attribute.name == "axis") % np.asarray(array).ndim
        small = part(model, list(dict.fromkeys(node.input)))
        sizes = dict(
            zip(
                (o.name for o in small.graph.output),
                run(start(small, name=name), name, _taken(small, feeds)),
                strict=True,
            )
        )
        at = 0
        for joined in node.input:
            found.append((i, axis, at, at + sizes[joined].shape[axis]))
            at += sizes[joined].shape[axis]
    if not found:
        raise OnnxlintError(f"{printable(name)}: has no floating-point output to judge int8 by; use --method minmax")
    return found


def _taken(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    names = {value.name for value in model.graph.input}
    return {name: value for name, value in feeds.items() if name in names}


def computer(
    model: onnx.ModelProto, names: Sequence[str], name: str, threads: int
) -> Callable[[Mapping[str, Array]], list[Array]]:
    """A function from inputs to the named values of a model."""
    from onnxlint.backends.ort.session import part

    inputs = {value.name for value in model.graph.input}
    inner = [one for one in names if one not in inputs]
    if not inner:
        return lambda feeds: [feeds[one] for one in names]
    small = part(model, inner)
    session = start(small, name=name, threads=threads)
    takes = {port.name for port in session.get_inputs()}

    def compute(feeds: Mapping[str, Array]) -> list[Array]:
        found = dict(zip(inner, run(session, name, {k: v for k, v in feeds.items() if k in takes}), strict=True))
        return [feeds[one] if one in inputs else found[one] for one in names]

    return compute
