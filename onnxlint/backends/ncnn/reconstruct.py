"""Weights rounded against the layer's output, on the inputs that the int8 net really gives it.

Layer after layer, in graph order: the float weights are first refitted (least squares, with intercept) so that over the
calibration images the layer, reading quantized inputs, comes closest to what the float layer makes of float inputs;
that takes up the systematic part of all errors before. Then they are rounded. The arithmetic is in backends/rounding.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxlint.backends.ncnn import arith
from onnxlint.backends.ncnn.calibrate import Progress, silent, six_bit
from onnxlint.backends.ncnn.centre import LEVELS
from onnxlint.backends.ncnn.format import Blob, Layer, Network
from onnxlint.backends.ncnn.quantize import quantize
from onnxlint.backends.ncnn.run import Runner
from onnxlint.backends.ncnn.table import Table, quantizable, source_blobs, weight_groups
from onnxlint.backends.rounding import (
    POSITIONS,
    REFIT_DAMPING,
    Moments,
    around_zero,
    best_scales,
    centred,
    moved_bias,
    refit,
    round_to_half,
    round_weights,
    sums_of,
)

Floats = npt.NDArray[np.float32]
Pair = tuple[Floats, Floats]

LARGEST_SUM = (2**31 - 1) // 576
"""Where the sums of ncnn's int8 winograd overflow (it computes 576 times the sum in 32 bits; measured in the wheel).
ncnn2table stays away with 6-bit weights for every 3×3 convolution; we only where sums come within half of it."""

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


def moments(
    layer: Layer, pairs: Sequence[Pair], scale: float | None, positions: int = POSITIONS, threads: int = 1
) -> Moments:
    """Moments over pairs of float inputs (C, H, W) of a layer: the exact one, and the one that the int8 net gives it,
    which is quantized with `scale` first (None: taken as it is)."""
    rng = np.random.default_rng(0)
    each = max(1, positions // len(pairs))
    there = [arith.position_count(layer, exact) for exact, _ in pairs]
    chosen = [np.sort(rng.choice(n, each, replace=False)) if n > each else None for n in there]

    def of_one(pair: Pair, some: arith.Positions | None) -> list[npt.NDArray[np.floating]]:
        a, b = (arith.columns(layer, x, some) for x in pair)
        if scale is not None:
            b = arith.quantize_input(b, scale)
            b /= np.float32(scale)
        return sums_of(a, b, origin)

    first = chosen[0] if chosen[0] is not None else np.arange(there[0])
    origin = arith.columns(layer, pairs[0][0], first[:: max(1, len(first) // 100)]).mean(axis=2, keepdims=True)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        return centred(pool.map(of_one, pairs, chosen), sum(min(n, each) for n in there), origin)


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
        self, readers: Sequence[Layer], pairs: Sequence[Pair], scale: float, damping: float, threads: int
    ) -> _State:
        """With the layers that read one blob done, which has the scale `scale`."""
        known: dict[tuple[object, ...], Moments] = {}
        state = self
        for layer in readers:
            quantized = layer.name not in self.keep
            key = (layer.type, quantized, *(layer.integer(k, -1) for k in GEOMETRY), layer.numbers(18))
            if key not in known:
                known[key] = moments(layer, pairs, scale if quantized else None, threads=threads)
            levels = LEVELS
            new, q, scales = _fit_layer(layer, known[key], damping, quantized, levels)
            while (
                quantized and six_bit(layer) and levels > 31 and 2 * _largest_sum(layer, q, pairs, scale) > LARGEST_SUM
            ):
                levels //= 2
                new, q, scales = _fit_layer(layer, known[key], damping, quantized, levels)
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
    exact = Runner(net, threads=1)
    state = _State(net, Table({}, {}), {}, keep)
    # Each net computes on from the blobs it has made before, kept as long as something is still to be made from them.
    truth: list[dict[str, Floats]] = [{exact.input: x} for x in images]
    given: list[dict[str, Floats]] = [{exact.input: x} for x in images]
    unread = set(readers)
    after = _next_reads(net, unread)
    for done, (blob, layers) in enumerate(readers.items(), 1):
        for runner, values in ((exact, truth), (Runner(state.partial(), threads=1), given)):
            for known, ys in zip(values, runner.map(values, [blob], threads), strict=True):
                known[blob] = np.array(ys[0])
        pairs = [(a[blob], b[blob]) for a, b in zip(truth, given, strict=True)]
        unread.discard(blob)
        for known in (*truth, *given):
            for name in [n for n in known if n not in (exact.input, blob) and not after[n] & unread]:
                del known[name]
        state = state.with_layers_rounded(layers, pairs, input_scales[layers[0].name], damping, threads)
        progress("rounding weights", done, len(readers))
    return Rounded(state.net, state.table, state.weights)


def _largest_sum(layer: Layer, q: npt.NDArray[np.int8], pairs: Sequence[Pair], scale: float) -> float:
    """The largest |Σ weight · input| in integers, over a sample of the output positions."""
    weight = q.reshape(arith.weight_matrix(layer).shape).astype(np.float32)
    largest = 0.0
    for _, given in pairs[:8]:
        n = arith.position_count(layer, given)
        some = np.linspace(0, n - 1, min(n, 1000)).astype(np.intp)
        sums = np.matmul(weight, arith.quantize_input(arith.columns(layer, given, some), scale))
        largest = max(largest, float(np.abs(sums).max()))
    return largest


def _next_reads(net: Network, read: set[str]) -> dict[str, set[str]]:
    """Blob → the blobs in `read` that are made from it without another one of them between."""
    after: dict[str, set[str]] = {}
    for layer in reversed(net.layers):
        found: set[str] = set()
        for top in layer.tops:
            found |= {top} if top in read else after.get(top, set())
        for bottom in layer.bottoms:
            after.setdefault(bottom, set()).update(found)
    for name in read:
        after.setdefault(name, set())
    return after


def _fit_layer(
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
    blobs = [Blob("weight", weight.astype(np.float32).reshape(-1), 0)]
    if layer.blob("bias") is not None:
        blobs.append(Blob("bias", (arith.bias(layer) + moved_bias(old, weight, m)).astype(np.float32)))
    return layer.with_blobs(*blobs), integers, scales
