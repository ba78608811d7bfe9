"""Weights rounded against the layer's output, on the inputs that the int8 net really gives it.

Layer after layer, in graph order: the float weights are first refitted (least squares, with intercept) so that over the
calibration images the layer, reading quantized inputs, comes closest to what the float layer makes of float inputs;
that takes up the systematic part of all errors before. Then they are rounded. The arithmetic is in backends/rounding.py.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxlint.backends.ncnn import arith
from onnxlint.backends.ncnn.calibrate import Progress, silent, six_bit, weight_scales
from onnxlint.backends.ncnn.centre import LEVELS
from onnxlint.backends.ncnn.format import Blob, Layer, Network
from onnxlint.backends.ncnn.packed import Packed
from onnxlint.backends.ncnn.quantize import quantize, quantize_weights
from onnxlint.backends.ncnn.run import Runner
from onnxlint.backends.ncnn.table import Table, quantizable, source_blobs, weight_groups
from onnxlint.backends.ncnn.walk import Walk
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
    positions_for,
    refit,
    round_to_half,
    round_weights,
)

Floats = npt.NDArray[np.float32]
Pair = tuple[Floats, Floats]
Blobs = tuple[Packed, Packed]
"""The same blob of the float net and of the int8 net."""

LARGEST_SUM = (2**31 - 1) // 576
"""Where the sums of ncnn's int8 winograd overflow (it computes 576 times the sum in 32 bits; measured in the wheel).
ncnn2table stays away with 6-bit weights for every 3×3 convolution; we only where sums come within half of it."""

SIX_BITS = 31
"""The largest integer of such weights."""

GEOMETRY = (1, 2, 3, 4, 7, 11, 12, 13, 14, 15, 16)
"""The parameters that say which inputs an output of a convolution reads."""


@dataclass(frozen=True)
class Rounded:
    """A float net whose weights are what its int8 (or fp16) weights stand for, its table, and those int8 weights.

    Rounding the float weights to the nearest with the table gives the int8 weights again: ncnn2int8 makes the same int8
    net of `net` and `table`.
    """

    net: Network
    table: Table
    weights: Mapping[str, npt.NDArray[np.int8]]


@dataclass(frozen=True)
class _Sample:
    """What a layer reads for some of its output positions.

    Attributes:
        pairs: Float inputs (C, H, W): the exact one, and the one that the int8 net gives the layer.
        columns: Where they are read.
        blocks: Groups of channels that are computed together.
        scale: Of the second one, which is quantized first; None: taken as it is.
    """

    pairs: Sequence[Blobs]
    columns: Sequence[arith.Columns]
    blocks: Sequence[tuple[int, int]]
    scale: float | None

    @classmethod
    def of(cls, layer: Layer, pairs: Sequence[Blobs], scale: float | None) -> _Sample:
        rng = np.random.default_rng(0)
        groups, _, inside = arith.weight_matrix(layer).shape
        each = max(1, positions_for(inside) // len(pairs))
        columns, count = [], 0
        for exact, _ in pairs:
            there = arith.position_count(layer, exact.shape)
            some = np.sort(rng.choice(there, each, replace=False)) if there > each else None
            columns.append(arith.Columns.of(layer, exact.shape, some))
            count += min(there, each)
        return cls(pairs, columns, blocks_of(groups, inside * count), scale)

    def read(self, first: int, last: int) -> Pair:
        """Of the groups from one to another: (groups, weights of an output, positions)."""
        each = zip(self.columns, self.pairs, strict=True)
        taken = [[one.take(x, first, last) for x in pair] for one, pair in each]
        exact, given = (np.concatenate(some, axis=2) for some in zip(*taken, strict=True))
        if self.scale is not None:
            arith.quantize_input(given, self.scale, out=given)
            given /= np.float32(self.scale)
        return exact, given

    def moments(self, weight: Floats, threads: int) -> Moments:
        """Of all of it, for old weights (g, m, k)."""
        return moments(self.read, weight, self.blocks, threads)

    def means(self) -> Pair:
        """Of what each weight of an output reads, (groups, weights of an output)."""
        parts = [[one.mean(axis=2) for one in self.read(*block)] for block in self.blocks]
        exact, given = (np.concatenate(some) for some in zip(*parts, strict=True))
        return exact, given


@dataclass(frozen=True)
class _State:
    """Progress: the net with refitted layers, and the rows and int8 weights of quantized ones."""

    net: Network
    table: Table
    weights: Mapping[str, npt.NDArray[np.int8]]
    keep: frozenset[str]

    def partial(self) -> Network:
        """The net with the layers done in int8, the others in float."""
        if not self.weights:
            return self.net
        return quantize(self.net, self.table, keep=self.keep, weights=self.weights, rest="fp32").net

    def with_layers_rounded(
        self, readers: Sequence[Layer], pairs: Sequence[Blobs], scale: float, damping: float, threads: int
    ) -> _State:
        """With the layers that read one blob done, which has the scale `scale`."""
        fit = _Fit(readers, self.keep, pairs, scale, damping, threads)
        state = self
        for layer in readers:
            quantized = layer.name not in self.keep
            new, q, scales = fit.layer(layer)
            state = replace(state, net=state.net.with_layers({layer.name: new}))
            if quantized:
                table = replace(
                    state.table,
                    weights={**state.table.weights, layer.name: scales},
                    inputs={**state.table.inputs, layer.name: np.asarray([scale], np.float32)},
                )
                state = replace(state, table=table, weights={**state.weights, layer.name: q})
        return state


def reconstruct(
    net: Network,
    input_scales: Mapping[str, float],
    images: Sequence[Floats],
    *,
    keep: frozenset[str] = frozenset(),
    damping: float = 0.01,
    threads: int = 2,
    progress: Progress = silent,
) -> Rounded:
    """Quantize a float net layer after layer.

    `input_scales[layer]` is the scale of each layer's input, the same for all that read one blob; `keep` names layers
    that stay float (their weights are refitted all the same). `images` are inputs (C, H, W).
    """
    source = source_blobs(net)
    readers: dict[str, list[Layer]] = {}
    for layer in net.layers:
        if quantizable(layer):
            readers.setdefault(source[layer.bottoms[0]], []).append(layer)
    state = _State(net, Table({}, {}), {}, keep)
    runner = Runner(net, light=True)
    exact, given = (Walk(runner, images, readers, threads=threads) for _ in range(2))
    for done, (blob, layers) in enumerate(readers.items(), 1):
        pairs = list(zip(exact.reach(blob), given.reach(blob, state.partial()), strict=True))
        state = state.with_layers_rounded(layers, pairs, input_scales[layers[0].name], damping, threads)
        progress("rounding weights", done, len(readers))
    return Rounded(state.net, state.table, state.weights)


def _largest_sum(layer: Layer, q: npt.NDArray[np.int8], pairs: Sequence[Blobs], scale: float) -> float:
    """The largest |Σ weight · input| in integers, over a sample of the output positions."""
    weight = q.reshape(arith.weight_matrix(layer).shape).astype(np.float32)
    largest = 0.0
    for _, given in pairs[:8]:
        n = arith.position_count(layer, given.shape)
        some = np.linspace(0, n - 1, min(n, 1000)).astype(np.intp)
        sums = np.matmul(weight, arith.quantize_input(arith.columns(layer, given, some), scale))
        largest = max(largest, float(np.abs(sums).max()))
    return largest


class _Fit:
    """Refits and rounds layers that read one blob.

    Args:
        readers: The layers.
        keep: Those of them that stay float.
        pairs: Its float values (C, H, W): the exact ones, and those that the int8 net gives.
        scale: Of its integers.
        damping: For rounding.
        threads: How many parts are computed at a time.
    """

    def __init__(
        self,
        readers: Sequence[Layer],
        keep: Collection[str],
        pairs: Sequence[Blobs],
        scale: float,
        damping: float,
        threads: int,
    ) -> None:
        self._readers = readers
        self._keep = keep
        self._pairs = pairs
        self._scale = scale
        self._damping = damping
        self._threads = threads
        self._moments: dict[tuple[object, ...], Moments] = {}

    def layer(self, layer: Layer) -> tuple[Layer, npt.NDArray[np.int8], Floats]:
        """The layer with the values of its rounded weights (int8, or fp16 where it is not to be quantized) and the bias
        that goes with them; the int8 weights and their scales."""
        quantized = layer.name not in self._keep
        if arith.weight_matrix(layer).shape[2] > LARGEST:
            if not quantized:
                return layer, np.zeros(0, np.int8), np.zeros(0, np.float32)
            return _plainly(layer, _Sample.of(layer, self._pairs, self._scale))
        m, levels = self._moments_of(layer), LEVELS
        while True:
            found = _fitted(layer, m, self._damping, quantized, levels)
            fits = not quantized or not six_bit(layer) or levels <= SIX_BITS
            if fits or 2 * _largest_sum(layer, found[1], self._pairs, self._scale) <= LARGEST_SUM:
                return found
            levels //= 2

    def _moments_of(self, layer: Layer) -> Moments:
        """Of what the layer reads: layers that read it in the same way share them."""
        key = self._key(layer)
        alike = [one for one in self._readers if self._key(one) == key]
        if key not in self._moments:
            sample = _Sample.of(layer, self._pairs, None if layer.name in self._keep else self._scale)
            weight = np.concatenate([arith.weight_matrix(one) for one in alike], axis=1)
            self._moments[key] = sample.moments(weight, self._threads)
        ends = np.cumsum([0, *(arith.weight_matrix(one).shape[1] for one in alike)]).tolist()
        at = [one.name for one in alike].index(layer.name)
        return self._moments[key].of(ends[at], ends[at + 1])

    def _key(self, layer: Layer) -> tuple[object, ...]:
        geometry = (layer.integer(k, -1) for k in GEOMETRY)
        return layer.type, layer.name in self._keep, *geometry, layer.numbers(18)


def _plainly(layer: Layer, sample: _Sample) -> tuple[Layer, npt.NDArray[np.int8], Floats]:
    """The layer with weights rounded to the nearest, and a bias that makes up for what this moves on average."""
    old = arith.weight_matrix(layer).astype(np.float64)
    scales = weight_scales(layer)
    integers = quantize_weights(layer, scales)
    weight = (integers.reshape(len(scales), -1) / scales[:, None].astype(np.float64)).reshape(old.shape)
    exact, given = sample.means()
    return _with_weight(layer, weight, np.einsum("gmk,gk->gm", old, exact), given), integers, scales


def _with_weight(layer: Layer, new: Doubles, target: Doubles, quantized: npt.NDArray[np.floating]) -> Layer:
    """The layer with other weights, and a bias that keeps its mean output; see `moved_bias`."""
    blobs = [Blob("weight", new.astype(np.float32).reshape(-1), 0)]
    if layer.blob("bias") is not None:
        blobs.append(Blob("bias", (arith.bias(layer) + moved_bias(new, target, quantized)).astype(np.float32)))
    return layer.with_blobs(*blobs)


def _fitted(
    layer: Layer, m: Moments, damping: float, quantized: bool, levels: int
) -> tuple[Layer, npt.NDArray[np.int8], Floats]:
    """The layer with the values of its rounded weights (int8, or fp16 where it is not to be quantized) and the bias
    that goes with them; the int8 weights and their scales."""
    old = arith.weight_matrix(layer).astype(np.float64)
    if layer.blob("bias") is None:
        m = around_zero(m)
    weight = refit(old, m, REFIT_DAMPING)
    integers, scales = np.zeros(0, np.int8), np.zeros(0, np.float32)
    if quantized:
        shared = weight_groups(layer) != old.shape[0] * old.shape[1]
        importance = np.diagonal(m.hessian, axis1=1, axis2=2)
        grid = best_scales(weight, importance, levels, shared).astype(np.float32).astype(np.float64)
        q = round_weights(weight, grid, m.hessian, levels, damping)
        weight = q / grid[..., None]
        integers = q.astype(np.int8).reshape(-1)
        scales = (grid[:, 0] if shared else grid.reshape(-1)).astype(np.float32)
    else:
        weight = round_to_half(weight, m.hessian, damping)
    return _with_weight(layer, weight, m.target, m.quantized), integers, scales
