"""Weights rounded against each layer's output, on the inputs that the int8 model really gives it.

Layer after layer, in graph order, the float model and the int8 one are computed side by side. The weights of a layer are
first refitted (least squares, with intercept) so that it comes closest, reading the int8 model's values, to what the float
layer makes of the float model's; that takes up the systematic part of all errors before. Then they are rounded. The
arithmetic is in backends/rounding.py.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from onnxlint.backends import Array, Progress, silent
from onnxlint.backends.ort.beside import SideBySide
from onnxlint.backends.ort.calibrate import Range, Ranges
from onnxlint.backends.ort.equalize import attribute, is_layer, use_counts
from onnxlint.backends.ort.qdq import Layer, layers, rounded
from onnxlint.backends.rounding import (
    LARGEST,
    REFIT_DAMPING,
    Doubles,
    Moments,
    around_zero,
    best_scales,
    blocks_of,
    moments,
    moved_bias,
    one_blas_thread,
    positions_for,
    refit,
    round_weights,
)

DAMPING = 0.01
"""For rounding, in units of the mean variance of the inputs."""

Floats = npt.NDArray[np.float32]

CHOICE_POSITIONS = 3_000
"""Output positions on which the ranges of a value are compared."""

MOST_ENERGY = 100.0
"""Of a position, as a multiple of the mean: with more, it is chosen no more often."""


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
    salient: bool = False,
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
        salient: Whether positions with large values count more, as those of objects do beside a background.
        threads: For onnxruntime.
        progress: Called with the current action.
    """
    with one_blas_thread():
        return _reconstruct(model, candidates, inputs, name, keep, levels, salient, threads, progress)


def _reconstruct(
    model: onnx.ModelProto,
    candidates: Mapping[str, Sequence[Range]],
    inputs: Sequence[Mapping[str, Array]],
    name: str,
    keep: Collection[str],
    levels: int,
    salient: bool,
    threads: int,
    progress: Progress,
) -> Reconstructed:
    walk = _Walk(model, candidates, inputs, name, keep, levels, salient, threads)
    total = len(model.graph.node)
    for i, node in enumerate(walk.new.graph.node, 1):
        walk.fit(node)
        progress("rounding weights", i, total)
    return Reconstructed(walk.new, walk.weights, walk.ranges)


class _Walk:
    """From layer to layer through the float model and the int8 one.

    Attributes:
        new: The model whose weights are refitted, in place.
        ranges: Of the values that are rounded, chosen so far.
        weights: As in `Reconstructed`.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        candidates: Mapping[str, Sequence[Range]],
        inputs: Sequence[Mapping[str, Array]],
        name: str,
        keep: Collection[str],
        levels: int,
        salient: bool,
        threads: int,
    ) -> None:
        self.new = onnx.ModelProto()
        self.new.CopyFrom(model)
        self.weights: dict[str, tuple[Floats, Floats]] = {}
        self._candidates = candidates
        self._known = layers(model, keep)
        self._levels = levels
        self._salient = salient
        self._threads = threads
        self._tensors = {tensor.name: tensor for tensor in self.new.graph.initializer}
        self._constants = {key: tuple(tensor.dims) for key, tensor in self._tensors.items()}
        self._uses = use_counts(model)
        # Layers that read the same inputs in the same way share their moments.
        self._moments: dict[Any, Moments | None] = {}
        self._alike: dict[Any, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            if self._fits(node):
                self._alike.setdefault(self._geometry(node), []).append(node)
        stops = {
            i: node.input[0] for i, node in enumerate(model.graph.node) if node.name in self._known or self._fits(node)
        }
        self._values = SideBySide((model, self.new), inputs, stops, self._known, name=name, threads=threads)
        self.ranges = self._values.ranges
        self.ranges.update((key, ranges[0]) for key, ranges in candidates.items() if len(ranges) == 1)

    def fit(self, node: onnx.NodeProto) -> None:
        """Choose the range of what a layer reads; refit its weights and bias in place, and round them where it is
        quantized. Other nodes, and layers that share weights, are left as they are."""
        layer = self._known.get(node.name)
        fits = self._fits(node)
        if fits:
            self._fit(node, layer)
        if layer is not None:  # the first, where there is nothing to choose by
            self.ranges.setdefault(layer.source, self._candidates[layer.source][0])
        if fits or layer is not None:
            self._values.leave(node.input[0])

    def _fit(self, node: onnx.NodeProto, layer: Layer | None) -> None:
        source = node.input[0]
        rows = _rows(node, numpy_helper.to_array(self._tensors[node.input[1]]))
        if math.prod(rows.shape[1:]) > LARGEST or rows.dtype != np.float32:
            return
        pairs = self._values.reach(source)
        if pairs[0][1].dtype != np.float32:
            return
        weight = self._weight(node).astype(np.float64)
        geometry = self._geometry(node)
        alike = self._alike[geometry]
        is_open = layer is not None and source not in self.ranges
        if geometry not in self._moments or is_open:
            sample = _Sample.of(node, rows.shape[2:], len(weight), pairs, self._salient)
            if is_open and sample is not None:
                self.ranges[source] = _least_disturbing(self._candidates[source], weight, sample)
            limits = None if layer is None else self.ranges.get(source, self._candidates[source][0])
            old = np.concatenate([self._weight(one) for one in alike], axis=1)
            self._moments[geometry] = None if sample is None else _moments(sample, old, limits, self._threads)
        m = self._moments[geometry]
        if m is not None and all(self._uses[key] == 1 for key in node.input[1:] if key):
            each = weight.shape[1]
            at = [one.output[0] for one in alike].index(node.output[0])
            self._refit(node, layer, weight, rows.shape, m.of(at * each, (at + 1) * each))

    def _fits(self, node: onnx.NodeProto) -> bool:
        return is_layer(node, self._constants) or is_product(node, self._constants)

    def _geometry(self, node: onnx.NodeProto) -> tuple[object, ...]:
        """What layers that read the same inputs in the same way have in common."""
        attributes = tuple(str(one) for one in node.attribute)
        return node.input[0], node.name in self._known, node.op_type, self._constants[node.input[1]], attributes

    def _weight(self, node: onnx.NodeProto) -> Floats:
        """The weights (g, m, k)."""
        rows = _rows(node, numpy_helper.to_array(self._tensors[node.input[1]]))
        groups = attribute(node, "group", 1) if node.op_type == "Conv" else 1
        return np.asarray(rows.reshape(groups, len(rows) // groups, -1), np.float32)

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
            moved = np.broadcast_to(bias, (shape[0],)) + moved_bias(refitted, m.target, m.quantized)
            self._tensors[node.input[2]].CopyFrom(numpy_helper.from_array(moved.astype(np.float32), node.input[2]))


def _rows(node: onnx.NodeProto, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Weights with the outputs as first axis, or back again."""
    flips = node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0))
    return weight.T if flips else weight


def is_product(node: onnx.NodeProto, constants: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether it multiplies by a constant matrix."""
    return node.op_type == "MatMul" and node.input[0] not in constants and len(constants.get(node.input[1], ())) == 2


@dataclass(frozen=True)
class _Sample:
    """What a layer reads for some of its output positions, in the float model and in the int8 one.

    Attributes:
        windows: For each set of inputs, in either model.
        positions: Of each.
        groups: Of channels.
        inside: Weights of one output.
    """

    windows: tuple[Sequence[_Windows], Sequence[_Windows]]
    positions: Sequence[npt.NDArray[np.intp]]
    groups: int
    inside: int

    @classmethod
    def of(
        cls,
        node: onnx.NodeProto,
        kernel: tuple[int, ...],
        groups: int,
        pairs: Sequence[tuple[Array, Array]],
        salient: bool = False,
    ) -> _Sample | None:
        """From all pairs of a layer's inputs; None for a convolution that is not understood here, or has no positions. With
        `salient`, positions that read large values are more of them."""
        found: tuple[list[_Windows], list[_Windows]] = [], []
        for pair in pairs:
            exact, given = (_Windows.of(node, kernel, x) for x in pair)
            if exact is None or given is None or exact.count != given.count:
                return None
            found[0].append(exact)
            found[1].append(given)
        inside = len(found[0][0].inside) * len(found[0][0].values) // groups
        each = max(1, positions_for(inside) // len(pairs))
        generator = np.random.default_rng(0)
        positions = [one.some(each, generator, salient) for one in found[0]]
        return cls(found, positions, groups, inside) if any(map(len, positions)) else None

    @property
    def count(self) -> int:
        """Positions, over all sets of inputs."""
        return sum(map(len, self.positions))

    def blocks(self) -> list[tuple[int, int]]:
        """Groups that are computed together."""
        return blocks_of(self.groups, self.inside * self.count)

    def read(self, which: int, first: int, last: int, step: int = 1) -> Floats:
        """What some groups read in the float model (0) or the int8 one (1): (groups, weights of an output, positions).

        Args:
            which: The model.
            first: Group.
            last: Group, which is not among them.
            step: From one position to the next that is taken.
        """
        each = len(self.windows[which][0].values) // self.groups
        parts = [
            one.take(some[::step], slice(first * each, last * each))
            for one, some in zip(self.windows[which], self.positions, strict=True)
        ]
        return np.concatenate(parts, axis=1).reshape(last - first, self.inside, -1)


def _moments(sample: _Sample, weight: Floats, limits: Range | None, threads: int) -> Moments:
    """Moments of a layer's input, which the int8 model rounds within `limits`, for old weights (g, m, k)."""

    def read(first: int, last: int) -> tuple[Floats, Floats]:
        exact, given = (sample.read(which, first, last) for which in (0, 1))
        return exact, given if limits is None else rounded(given, limits)

    return moments(read, weight, sample.blocks(), threads)


def _least_disturbing(candidates: Sequence[Range], weight: Doubles, sample: _Sample) -> Range:
    """The range within which rounding changes the layer's output least, but for a constant, which its bias takes up."""
    if len(candidates) == 1:
        return candidates[0]
    disturbance = dict.fromkeys(candidates, 0.0)
    for first, last in sample.blocks():
        some = sample.read(1, first, last, -(-sample.count // CHOICE_POSITIONS))
        w = weight[first:last].astype(np.float32)
        for limits in disturbance:
            error = rounded(some, limits)
            error -= some
            if w.shape[1] > w.shape[2]:  # the sum of the variances of all outputs, from the inputs' covariances
                error -= error.mean(axis=2, keepdims=True)
                squares = np.matmul(error, error.transpose(0, 2, 1)) / error.shape[2]
                disturbance[limits] += float((np.matmul(w, squares) * w).sum())
            else:
                disturbance[limits] += float(np.matmul(w, error).var(axis=2).sum())
    return min(disturbance, key=lambda limits: disturbance[limits])


@dataclass(frozen=True)
class _Windows:
    """What a layer reads for each of its output positions.

    Attributes:
        values: Of each channel, in one row: (C, places).
        sizes: Output positions, by axis; the first is that of images.
        steps: From one to the next, in places, along each axis.
        inside: Places of what one position reads, from its first.
    """

    values: Array
    sizes: tuple[int, ...]
    steps: tuple[int, ...]
    inside: npt.NDArray[np.intp]

    @classmethod
    def of(cls, node: onnx.NodeProto, kernel: tuple[int, ...], x: Array) -> _Windows | None:
        """Of a node that reads `x`; None for a convolution that is not understood here."""
        if node.op_type in ("Gemm", "MatMul"):
            if x.ndim < 2:
                return None
            rows = x.reshape(-1, x.shape[-1])
            return cls(rows.T, (len(rows),), (1,), np.zeros(1, np.intp))
        lists = {one.name: tuple(one.ints) for one in node.attribute if one.ints}
        auto = next((one.s for one in node.attribute if one.name == "auto_pad"), b"NOTSET")
        rank = len(kernel)
        if auto not in (b"NOTSET", b"VALID") or x.ndim != rank + 2:
            return None
        pads = lists.get("pads", ()) if auto == b"NOTSET" else ()
        if any(pads):
            x = np.pad(x, ((0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)))
        strides, dilations = lists.get("strides", (1,) * rank), lists.get("dilations", (1,) * rank)
        reach = tuple(d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True))
        shape = x.shape[2:]
        outputs = tuple((size - one) // s + 1 for size, one, s in zip(shape, reach, strides, strict=True))
        if min(outputs) < 1:
            return None
        places = [
            math.prod(shape[axis:]) for axis in range(rank + 1)
        ]  # of one step along each axis, and of an image before
        inside = np.zeros(1, np.intp)
        for axis in range(rank):
            along = np.arange(kernel[axis], dtype=np.intp) * (dilations[axis] * places[axis + 1])
            inside = (inside[:, None] + along).reshape(-1)
        steps = (places[0], *(s * one for s, one in zip(strides, places[1:], strict=True)))
        return cls(np.moveaxis(x, 1, 0).reshape(x.shape[1], -1), (len(x), *outputs), steps, inside)

    @property
    def count(self) -> int:
        """How many output positions there are."""
        return math.prod(self.sizes)

    def some(self, most: int, generator: np.random.Generator, salient: bool) -> npt.NDArray[np.intp]:
        """At most so many output positions. With `salient`, half of them by the size of what they read in their middle; one
        may come several times."""
        if salient and self.count:
            energy = (self.values.astype(np.float64) ** 2).sum(axis=0)
            middle = self._first(np.arange(self.count)) + self.inside[len(self.inside) // 2]
            energy = np.take(energy, middle, mode="clip")
            if energy.any():
                size = np.sqrt(np.minimum(energy / energy.mean(), MOST_ENERGY))
                chances = (1 / self.count + size / size.sum()) / 2
                return np.sort(generator.choice(self.count, min(most, self.count), p=chances))
        if self.count <= most:
            return np.arange(self.count)
        return np.sort(generator.choice(self.count, most, replace=False))

    def take(self, some: npt.NDArray[np.intp], channels: slice) -> Floats:
        """What some positions read of some channels: (weights of an output that reads these, positions)."""
        taken = np.take(self.values[channels], self.inside[:, None] + self._first(some), axis=1, mode="clip")
        return taken.reshape(-1, len(some))

    def _first(self, some: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """The first place that each of some positions reads."""
        first = np.zeros(len(some), np.intp)
        for at, step in zip(np.unravel_index(some, self.sizes), self.steps, strict=True):
            first += at * step
        return first
