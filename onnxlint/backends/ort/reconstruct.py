"""Weights rounded against each layer's output, on the inputs that the int8 model really gives it.

Node after node, in graph order, the float model and the int8 one are computed side by side. The weights of a layer are
first refitted (least squares, with intercept) so that it comes closest, reading the int8 model's values, to what the float
layer makes of the float model's; that takes up the systematic part of all errors before. Then they are rounded. The
arithmetic is in backends/rounding.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from onnxlint.backends import Array, Progress, silent
from onnxlint.backends.ort.equalize import attribute, is_layer
from onnxlint.backends.ort.session import part, read_by, run, start
from onnxlint.backends.rounding import (
    POSITIONS,
    REFIT_DAMPING,
    Doubles,
    Moments,
    best_scales,
    centred,
    moved_bias,
    refit,
    round_weights,
    sums_of,
)

LEVELS = 64
"""Largest integer of a weight. With 127, the 16-bit sums of two products that x86 processors without VNNI have overflow:
255 · 64 · 2 is the most that fits (onnxruntime calls that `reduce_range`). Rounded against the layer's output, the bit
costs next to nothing."""

DAMPING = 0.01
"""For rounding, in units of the mean variance of the inputs."""

LARGEST = 4608
"""Inputs of one output (512 channels of 3×3) above which weights are rounded plainly: the moments grow with the square."""

Values = dict[str, Array]


@dataclass(frozen=True)
class Reconstructed:
    """The float model with the refitted weights, and those of its weights that are rounded, with their scales and axis."""

    model: onnx.ModelProto
    weights: Mapping[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], int]]


def fake(value: Array, scale: float, zero: int) -> Array:
    """What QuantizeLinear and DequantizeLinear make of a value."""
    q = np.clip(np.rint(value / np.float32(scale)) + np.float32(zero), -128, 127)
    return np.asarray((q - np.float32(zero)) * np.float32(scale), np.float32)


def reconstruct(
    model: onnx.ModelProto,
    parameters: Mapping[str, tuple[float, int]],
    quantized: frozenset[str],
    inputs: Sequence[Mapping[str, Array]],
    *,
    name: str,
    levels: int = LEVELS,
    threads: int = 2,
    progress: Progress = silent,
) -> Reconstructed:
    """Refit and round the weights of all convolutions and fully connected layers.

    Args:
        model: The float model; it is not changed.
        parameters: Value → (scale, zero point) of those that the int8 model rounds.
        quantized: Names of the weights that it rounds.
        inputs: Held in memory.
        name: What the model is called in errors.
        levels: Largest integer of a weight.
    """
    new = onnx.ModelProto()
    new.CopyFrom(model)
    tensors = {tensor.name: tensor for tensor in new.graph.initializer}
    constants = {key: tuple(tensor.dims) for key, tensor in tensors.items()}
    uses: dict[str, int] = {}
    last: dict[str, int] = {}
    for i, node in enumerate(new.graph.node):
        for value in read_by(node):
            uses[value] = uses.get(value, 0) + 1
            last[value] = i
    truth: list[Values] = [dict(feeds) for feeds in inputs]
    given: list[Values] = [{key: _rounded(key, value, parameters) for key, value in feeds.items()} for feeds in inputs]
    weights: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], int]] = {}
    total = len(new.graph.node)
    for i, (old, node) in enumerate(zip(model.graph.node, new.graph.node, strict=True)):
        fits = (is_layer(node, constants) or is_product(node, constants)) and all(
            uses[key] == 1 for key in node.input[1:] if key
        )
        if fits and given[0][node.input[0]].dtype == np.float32:
            _fit(node, tensors, weights, quantized, truth, given, levels)
        exact = _outputs(model, old, truth, name, threads)
        same = not fits and all(truth[0].get(key) is given[0].get(key) for key in read_by(node) if key not in constants)
        rounded = exact if same else _outputs(new, node, given, name, threads)
        for values, made, is_given in ((truth, exact, False), (given, rounded, True)):
            for one, outputs in zip(values, made, strict=True):
                for output, array in zip([o for o in node.output if o], outputs, strict=True):
                    if output in last:
                        one[output] = _rounded(output, array, parameters) if is_given else array
        for key in read_by(node):
            if last.get(key) == i:
                for one in (*truth, *given):
                    one.pop(key, None)
        progress("rounding weights", i + 1, total)
    return Reconstructed(new, weights)


def _rounded(key: str, value: Array, parameters: Mapping[str, tuple[float, int]]) -> Array:
    return fake(value, *parameters[key]) if key in parameters and value.dtype == np.float32 else value


def _outputs(
    model: onnx.ModelProto, node: onnx.NodeProto, values: Sequence[Values], name: str, threads: int
) -> list[list[Array]]:
    """What one node of a model makes of each set of values."""
    reads = read_by(node)
    one = onnx.ModelProto()
    one.ir_version = model.ir_version
    one.opset_import.extend(model.opset_import)
    one.functions.extend(model.functions)
    one.graph.node.append(node)
    one.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in reads)
    outputs = [key for key in node.output if key]
    known = {tensor.name for tensor in one.graph.initializer}
    fed = {key: values[0][key] for key in reads if key in values[0] and key not in known}
    session = start(part(one, outputs, fed), name=name, threads=threads)
    return [run(session, name, {key: each[key] for key in fed}) for each in values]


def _fit(
    node: onnx.NodeProto,
    tensors: Mapping[str, onnx.TensorProto],
    weights: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], int]],
    quantized: frozenset[str],
    truth: Sequence[Values],
    given: Sequence[Values],
    levels: int,
) -> None:
    """Refit one layer's weights and bias in place; round them where they are quantized."""
    key = node.input[1]
    array = numpy_helper.to_array(tensors[key])
    if array.dtype != np.float32:
        return
    flips = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))
    rows = array.T if flips else array
    groups = attribute(node, "group", 1) if node.op_type == "Conv" else 1
    old = rows.reshape(groups, len(rows) // groups, -1).astype(np.float64)
    if old.shape[2] > LARGEST:
        return
    m = moments(
        node, rows.shape[2:], groups, [(a[node.input[0]], b[node.input[0]]) for a, b in zip(truth, given, strict=True)]
    )
    if m is None:
        return
    fitted = refit(old, m, REFIT_DAMPING)
    scales = np.zeros(0, np.float32)
    if key in quantized:
        grid = best_scales(fitted, np.diagonal(m.hessian, axis1=1, axis2=2), levels, False).astype(np.float32)
        wide = grid.astype(np.float64)
        steps = (1 / wide).astype(np.float32).astype(np.float64)
        fitted = round_weights(fitted, 1 / steps, m.hessian, levels, DAMPING) * steps[..., None]
        scales = steps.reshape(-1).astype(np.float32)
    values = fitted.reshape(rows.shape)
    plain = np.ascontiguousarray(values.T if flips else values, np.float32)
    tensors[key].CopyFrom(numpy_helper.from_array(plain, key))
    if scales.size:
        weights[key] = (plain, scales, array.ndim - 1 if flips else 0)
    if len(node.input) > 2 and node.input[2]:
        bias = numpy_helper.to_array(tensors[node.input[2]])
        moved = np.broadcast_to(bias, (len(rows),)) + moved_bias(old, fitted, m)
        tensors[node.input[2]].CopyFrom(numpy_helper.from_array(moved.astype(np.float32), node.input[2]))


def is_product(node: onnx.NodeProto, constants: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether it multiplies by a constant matrix."""
    return node.op_type == "MatMul" and node.input[0] not in constants and len(constants.get(node.input[1], ())) == 2


def moments(
    node: onnx.NodeProto, kernel: tuple[int, ...], groups: int, pairs: Sequence[tuple[Array, Array]]
) -> Moments | None:
    """Moments over pairs of inputs of a layer, the float model's and the int8 model's; None for a convolution that is
    not understood here."""
    each = max(1, POSITIONS // len(pairs))
    generator = np.random.default_rng(0)
    sums: list[list[Doubles]] = []
    count = 0
    for exact, rounded in pairs:
        views = [_windows(node, kernel, x) for x in (exact, rounded)]
        if views[0] is None or views[1] is None:
            return None
        shape = (len(views[0]), *views[0].shape[2 : 2 + len(kernel)])
        there = int(np.prod(shape))
        some = np.sort(generator.choice(there, each, replace=False)) if there > each else np.arange(there)
        n, *rest = np.unravel_index(some, shape)
        at: Any = (n, slice(None), *rest)
        a, b = (
            np.ascontiguousarray(view[at].reshape(len(some), groups, -1).transpose(1, 2, 0))
            for view in views
            if view is not None
        )
        sums.append(sums_of(a, b))
        count += len(some)
    return centred(sums, count) if count else None


def _windows(node: onnx.NodeProto, kernel: tuple[int, ...], x: Array) -> Array | None:
    """What a layer reads for each output: a view (N, C, outputs…, kernel…); (N, C) for a fully connected one."""
    if node.op_type in ("Gemm", "MatMul"):
        return x.reshape(-1, x.shape[-1]) if x.ndim >= 2 else None
    lists = {one.name: tuple(one.ints) for one in node.attribute if one.ints}
    auto = next((one.s for one in node.attribute if one.name == "auto_pad"), b"NOTSET")
    rank = len(kernel)
    if auto not in (b"NOTSET", b"VALID") or x.ndim != rank + 2:
        return None
    pads = lists.get("pads", (0,) * 2 * rank) if auto == b"NOTSET" else (0,) * 2 * rank
    strides, dilations = lists.get("strides", (1,) * rank), lists.get("dilations", (1,) * rank)
    padded = np.pad(x, ((0, 0), (0, 0), *((pads[i], pads[rank + i]) for i in range(rank))))
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True))
    if any(size < one for size, one in zip(padded.shape[2:], reach, strict=True)):
        return None
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + rank)))
    steps = (
        slice(None),
        slice(None),
        *(slice(None, None, s) for s in strides),
        *(slice(None, None, d) for d in dilations),
    )
    return view[steps]
