"""Weights rounded against each layer's output, on the inputs that the int8 model really gives it.

Node after node, in graph order, the float model and the int8 one are computed side by side. The weights of a layer are
first refitted (least squares, with intercept) so that it comes closest, reading the int8 model's values, to what the float
layer makes of the float model's; that takes up the systematic part of all errors before. Then they are rounded. The
arithmetic is in backends/rounding.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from onnxlint.backends import Array, Progress, silent
from onnxlint.backends.ort.calibrate import Range, Ranges
from onnxlint.backends.ort.equalize import attribute, is_layer, use_counts
from onnxlint.backends.ort.qdq import Layer, layers, rounded
from onnxlint.backends.ort.session import part, read_by, run, start
from onnxlint.backends.rounding import (
    REFIT_DAMPING,
    Doubles,
    Moments,
    around_zero,
    best_scales,
    centred,
    moved_bias,
    one_blas_thread,
    refit,
    round_weights,
    sums_of,
)

DAMPING = 0.01
"""For rounding, in units of the mean variance of the inputs."""

POSITIONS = (4_000, 8_000)
"""Fewest and most output positions, over all inputs, from which a layer's moments are taken."""

POSITIONS_EACH = 10
"""Positions for each weight of an output, within these bounds."""

LARGEST = 4608
"""Inputs of one output (512 channels of 3×3) above which weights are rounded plainly: the moments grow with the square."""

Floats = npt.NDArray[np.float32]
Values = dict[str, Array]


CHOICE_POSITIONS = 3_000
"""Output positions on which the ranges of a value are compared."""


@dataclass(frozen=True)
class Reconstructed:
    """What came out.

    Attributes:
        model: The float model with the refitted weights and biases.
        weights: Those of its weights that are rounded, with the scales of their channels.
        ranges: Ranges of the quantized layers' inputs.
    """

    model: onnx.ModelProto
    weights: Mapping[str, tuple[Floats, Floats]]
    ranges: Ranges


def reconstruct(
    model: onnx.ModelProto,
    candidates: Mapping[str, Sequence[Range]],
    inputs: Sequence[Mapping[str, Array]],
    *,
    name: str,
    keep: Collection[str] = (),
    levels: int = 127,
    threads: int = 2,
    progress: Progress = silent,
) -> Reconstructed:
    """Refit and round the weights of all convolutions and fully connected layers.

    Args:
        model: The float model; it is not changed.
        candidates: Ranges of the layers' inputs; of several, the one that disturbs the layer's output least is taken.
        inputs: Held in memory.
        name: Name of the model in errors.
        keep: Nodes that stay in float: their weights are refitted and not rounded.
        levels: Largest integer of a weight.
        threads: For onnxruntime.
        progress: Called with the current action.
    """
    with one_blas_thread():
        return _reconstruct(model, candidates, inputs, name, keep, levels, threads, progress)


def _reconstruct(
    model: onnx.ModelProto,
    candidates: Mapping[str, Sequence[Range]],
    inputs: Sequence[Mapping[str, Array]],
    name: str,
    keep: Collection[str],
    levels: int,
    threads: int,
    progress: Progress,
) -> Reconstructed:
    walk = _Walk(model, candidates, inputs, layers(model, keep), levels, threads)
    total = len(model.graph.node)
    for i, (old, node) in enumerate(zip(model.graph.node, walk.new.graph.node, strict=True)):
        walk.fit(node)
        exact = _outputs(model, old, walk.truth, name, threads)
        # As long as nothing before it was quantized, a node makes the same in both.
        same = walk.unchanged(node)
        inexact = exact if same else _outputs(walk.new, node, walk.read_by_int8(node), name, threads)
        walk.advance(i, node, exact, inexact)
        progress("rounding weights", i + 1, total)
    return Reconstructed(walk.new, walk.weights, walk.ranges)


class _Walk:
    """The float model and the int8 one, computed node by node side by side.

    Attributes:
        new: The model whose weights are refitted, in place.
        truth, given: For each input, the values that the float model and the int8 one have at this point.
        ranges: Of the values that are rounded, chosen so far.
        weights: As in `Reconstructed`.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        candidates: Mapping[str, Sequence[Range]],
        inputs: Sequence[Mapping[str, Array]],
        known: Mapping[str, Layer],
        levels: int,
        threads: int,
    ) -> None:
        self.new = onnx.ModelProto()
        self.new.CopyFrom(model)
        self.truth: list[Values] = [dict(feeds) for feeds in inputs]
        self.given: list[Values] = [dict(feeds) for feeds in inputs]
        self.ranges: Ranges = {key: ranges[0] for key, ranges in candidates.items() if len(ranges) == 1}
        self.weights: dict[str, tuple[Floats, Floats]] = {}
        self._candidates = candidates
        self._known = known
        self._levels = levels
        self._threads = threads
        self._tensors = {tensor.name: tensor for tensor in self.new.graph.initializer}
        self._constants = {key: tuple(tensor.dims) for key, tensor in self._tensors.items()}
        self._uses = use_counts(model)
        self._reads = [read_by(node) for node in model.graph.node]
        self._last = {value: i for i, values in enumerate(self._reads) for value in values}
        # Layers that read the same inputs in the same way share their moments.
        self._moments: dict[Any, Moments | None] = {}

    def fit(self, node: onnx.NodeProto) -> None:
        """Choose the range of what a layer reads; refit its weights and bias in place, and round them where it is
        quantized. Other nodes, and layers that share weights, are left as they are."""
        layer = self._known.get(node.name)
        fits = is_layer(node, self._constants) or is_product(node, self._constants)
        if not fits or self._given(node).dtype != np.float32:
            self._settle(layer)
            return
        shape = self._constants[node.input[1]]
        rows = _rows(node, numpy_helper.to_array(self._tensors[node.input[1]]))
        groups = attribute(node, "group", 1) if node.op_type == "Conv" else 1
        if math.prod(rows.shape[1:]) > LARGEST or rows.dtype != np.float32:
            self._settle(layer)
            return
        pairs = [(a[node.input[0]], b[node.input[0]]) for a, b in zip(self.truth, self.given, strict=True)]
        weight = rows.reshape(groups, len(rows) // groups, -1).astype(np.float64)
        geometry = (node.input[0], layer is None, groups, shape, tuple(str(one) for one in node.attribute))
        if geometry not in self._moments or (layer is not None and layer.source not in self.ranges):
            columns = list(_columns(node, rows.shape[2:], groups, pairs))
            if layer is not None and layer.source not in self.ranges:
                self.ranges[layer.source] = _least_disturbing(self._candidates[layer.source], weight, columns)
            limits = None if layer is None else self.ranges[layer.source]
            self._moments[geometry] = _moments(columns, limits, self._threads)
        m = self._moments[geometry]
        if m is not None and all(self._uses[key] == 1 for key in node.input[1:] if key):
            self._refit(node, layer, weight, rows.shape, m)

    def _settle(self, layer: Layer | None) -> None:
        """Take the first range where there is nothing to choose by."""
        if layer is not None:
            self.ranges.setdefault(layer.source, self._candidates[layer.source][0])

    def _refit(
        self, node: onnx.NodeProto, layer: Layer | None, old: Doubles, shape: tuple[int, ...], m: Moments
    ) -> None:
        key = node.input[1]
        if len(node.input) < 3 or not node.input[2]:
            m = around_zero(m)
        refitted = refit(old, m, REFIT_DAMPING)
        scales = np.zeros(0, np.float32)
        if layer is not None:
            grid = best_scales(refitted, np.diagonal(m.hessian, axis1=1, axis2=2), self._levels, False)
            steps = (1 / grid).astype(np.float32).astype(np.float64)
            refitted = round_weights(refitted, 1 / steps, m.hessian, self._levels, DAMPING) * steps[..., None]
            scales = steps.reshape(-1).astype(np.float32)
        plain = np.ascontiguousarray(_rows(node, refitted.reshape(shape)), np.float32)
        self._tensors[key].CopyFrom(numpy_helper.from_array(plain, key))
        if scales.size:
            self.weights[key] = (plain, scales)
        if len(node.input) > 2 and node.input[2]:
            bias = numpy_helper.to_array(self._tensors[node.input[2]])
            moved = np.broadcast_to(bias, (shape[0],)) + moved_bias(old, refitted, m)
            self._tensors[node.input[2]].CopyFrom(numpy_helper.from_array(moved.astype(np.float32), node.input[2]))

    def _given(self, node: onnx.NodeProto) -> Array:
        return self.given[0][node.input[0]]

    def unchanged(self, node: onnx.NodeProto) -> bool:
        """Whether a node reads the same in both models, and computes the same."""
        return (
            node.name not in self._known
            and not is_layer(node, self._constants)
            and not is_product(node, self._constants)
            and all(self.truth[0].get(key) is self.given[0].get(key) for key in read_by(node))
        )

    def read_by_int8(self, node: onnx.NodeProto) -> list[Values]:
        """The values of the int8 model, with what a quantized layer reads rounded."""
        layer = self._known.get(node.name)
        if layer is None:
            return self.given
        limits = self.ranges[layer.source]
        return [{**one, layer.source: rounded(one[layer.source], limits)} for one in self.given]

    def advance(
        self, i: int, node: onnx.NodeProto, exact: Sequence[Sequence[Array]], inexact: Sequence[Sequence[Array]]
    ) -> None:
        """Keep the outputs of node `i`, and drop values that no later node reads."""
        names = [name for name in node.output if name]
        for values, made in ((self.truth, exact), (self.given, inexact)):
            for one, outputs in zip(values, made, strict=True):
                one.update((key, array) for key, array in zip(names, outputs, strict=True) if key in self._last)
        for key in self._reads[i]:
            if self._last.get(key) == i:
                for one in (*self.truth, *self.given):
                    one.pop(key, None)


def _rows(node: onnx.NodeProto, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Weights with the outputs as first axis, or back again."""
    flips = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))
    return weight.T if flips else weight


def _outputs(
    model: onnx.ModelProto, node: onnx.NodeProto, values: Sequence[Values], name: str, threads: int
) -> list[list[Array]]:
    """Output of one node of a model for each set of values."""
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


def is_product(node: onnx.NodeProto, constants: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether it multiplies by a constant matrix."""
    return node.op_type == "MatMul" and node.input[0] not in constants and len(constants.get(node.input[1], ())) == 2


def _columns(
    node: onnx.NodeProto, kernel: tuple[int, ...], groups: int, pairs: Sequence[tuple[Array, Array]]
) -> Iterator[tuple[Floats, Floats]]:
    """What a layer reads for a sample of its output positions, (g, k, positions), for each pair of its inputs in the float
    model and the int8 one; nothing for a convolution that is not understood here."""
    weights = math.prod(kernel) * (pairs[0][0].shape[-1 if not kernel else 1] // groups)
    each = max(1, int(np.clip(POSITIONS_EACH * weights, *POSITIONS)) // len(pairs))
    generator = np.random.default_rng(0)
    for exact, inexact in pairs:
        views = [_windows(node, kernel, x) for x in (exact, inexact)]
        if views[0] is None or views[1] is None:
            return
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
        yield a, b


def _moments(columns: Sequence[tuple[Floats, Floats]], limits: Range | None, threads: int) -> Moments | None:
    """Moments of a layer's input, which the int8 model rounds within `limits`."""
    count = sum(a.shape[2] for a, _ in columns)
    if not count:
        return None
    origin = next(a for a, _ in columns if a.shape[2]).mean(axis=2, keepdims=True)

    def of_one(pair: tuple[Floats, Floats]) -> list[Doubles]:
        return sums_of(pair[0], pair[1] if limits is None else rounded(pair[1], limits), origin)

    with ThreadPoolExecutor(max(1, threads)) as pool:
        return centred(pool.map(of_one, columns), count, origin)


def _least_disturbing(candidates: Sequence[Range], weight: Doubles, columns: Sequence[tuple[Floats, Floats]]) -> Range:
    """The range within which rounding changes the layer's output least, but for a constant, which its bias takes up."""
    if not columns or len(candidates) == 1:
        return candidates[0]
    each = max(1, CHOICE_POSITIONS // len(columns))
    some = np.concatenate([b[:, :, :: -(-b.shape[2] // each)] for _, b in columns], axis=2)
    w = weight.astype(np.float32)

    def disturbance(limits: Range) -> float:
        return float(np.matmul(w, rounded(some, limits) - some).var(axis=2).sum())

    return min(dict.fromkeys(candidates), key=disturbance)


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
