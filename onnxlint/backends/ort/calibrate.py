"""Ranges of activations: streamed over any number of inputs, one held at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxlint.backends import Progress, silent
from onnxlint.backends.channels import APART
from onnxlint.backends.ort.elsewhere import Compute, Feeds, each
from onnxlint.errors import OnnxlintError
from onnxlint.lint.engines import Spread
from onnxlint.text import printable

Doubles = npt.NDArray[np.float64]
Range = tuple[float, float]
Ranges = dict[str, Range]
Ends = dict[str, tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]]
"""Name of a tensor → smallest and largest value of each of its channels."""

BINS = 4096
"""Of a tensor's histogram, between the smallest and the largest value that it had."""

LEVELS = 256
"""Values of an 8-bit number."""

AT_ONCE = 1 << 15
"""Values that are counted together: few enough for the processor's cache."""

PERCENTILE = 99.999
"""Part of the values, in percent, that is not clipped: onnxruntime's own."""

CANDIDATES = np.linspace(0.1, 1.0, 91)
"""Clipping thresholds that are tried, as parts of the largest magnitude."""

METHODS = ("minmax", "percentile", "entropy", "mse")


@dataclass(frozen=True)
class Histogram:
    """How often a tensor had which value: `counts` in equal bins from `low` to `high`."""

    low: float
    high: float
    counts: Doubles

    @property
    def centres(self) -> Doubles:
        """The middle of each bin."""
        width = (self.high - self.low) / len(self.counts)
        return np.asarray(self.low + width * (np.arange(len(self.counts)) + 0.5), np.float64)


COUNTED = 1 << 18
"""Values of a tensor from which on every other, every third, … is counted: their ends are known, and a percentile or a mean
error of so many is as good. It takes as long as computing the tensor otherwise."""


def channel_extremes(
    inputs: Iterable[Feeds],
    compute: Compute,
    names: Sequence[str],
    progress: Progress = silent,
    cluster: Spread | None = None,
) -> list[Ends]:
    """For each set of inputs, smallest and largest value of each channel (of the second axis) of each tensor; of the whole,
    (1,), where it has fewer axes. Empty arrays: it holds no value. Of more than `APART` sets, each `APART`-th together.

    Args:
        inputs: Sets of inputs, gone through once.
        compute: Gives the tensors of one set.
        names: Their names.
        progress: Called after each set.
        cluster: Where they are computed; None: here. It does not change the result.

    Raises:
        OnnxlintError: A tensor holds NaN or infinity.
    """
    every: list[Ends] = []
    for done, ends in enumerate(each(_channel_ends, inputs, compute, cluster=cluster), 1):
        found = dict(zip(names, ends, strict=True))
        for name, (low, high) in found.items():
            _require_finite(name, done, low, high)
        if len(every) < APART:
            every.append(found)
        else:
            at = (done - 1) % APART
            every[at] = widest([every[at], found])
        progress("ranges of activations", done, None)
    return every


def widest(every: Sequence[Ends]) -> Ends:
    """Smallest and largest value over all sets of inputs: of each channel or, where their number differs, of the whole."""
    found: Ends = {}
    for name in every[0]:
        ends = [one[name] for one in every if one[name][0].size] or [every[0][name]]
        if len({low.shape for low, _ in ends}) > 1:
            ends = [(low.min(keepdims=True), high.max(keepdims=True)) for low, high in ends]
        found[name] = np.min([low for low, _ in ends], axis=0), np.max([high for _, high in ends], axis=0)
    return found


def whole(ends: Ends) -> Ranges:
    """The range of each value from those of its channels."""
    return {key: (float(low.min()), float(high.max())) if low.size else (0.0, 0.0) for key, (low, high) in ends.items()}


def _require_finite(name: str, number: int, *ends: npt.NDArray[np.floating]) -> None:
    if not all(np.isfinite(end).all() for end in ends):
        raise OnnxlintError(
            f"{printable(name)} holds NaN or infinity for input {number}; check --mean, --norm and the model"
        )


def histograms(
    inputs: Iterable[Feeds],
    compute: Compute,
    names: Sequence[str],
    ranges: Ranges,
    progress: Progress = silent,
    cluster: Spread | None = None,
) -> dict[str, Histogram]:
    """Histograms of tensors whose extremes are known; arguments as for `channel_extremes`."""
    counts = [np.zeros(BINS) for _ in names]
    wanted = [ranges[name] for name in names]
    for done, found in enumerate(each(_counts, inputs, compute, wanted, cluster=cluster), 1):
        for count, more in zip(counts, found, strict=True):
            if more is not None:
                count += more  # whole numbers: the order does not matter
        progress("histograms of activations", done, None)
    return {name: Histogram(*ranges[name], count) for name, count in zip(names, counts, strict=True)}


def _channel_ends(compute: Compute, feeds: Feeds) -> list[tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]]:
    nothing = np.zeros(0, np.float32)
    found = []
    for value in compute(feeds):
        axes = tuple(axis for axis in range(value.ndim) if axis != 1) if value.ndim >= 2 else None
        found.append(
            (np.atleast_1d(value.min(axis=axes)), np.atleast_1d(value.max(axis=axes)))
            if value.size
            else (nothing, nothing)
        )
    return found


def _counts(compute: Compute, ranges: Sequence[Range], feeds: Feeds) -> list[npt.NDArray[np.int64] | None]:
    found: list[npt.NDArray[np.int64] | None] = []
    for (low, high), value in zip(ranges, compute(feeds), strict=True):
        if not value.size or high <= low:
            found.append(None)
            continue
        found.append(_histogram(value.reshape(-1), low, high))
    return found


def _histogram(values: npt.NDArray[np.floating], low: float, high: float) -> npt.NDArray[np.int64]:
    values = values[:: 1 + len(values) // COUNTED]
    counts = np.zeros(BINS, np.int64)
    buffer, bins = np.empty(AT_ONCE, np.float32), np.empty(AT_ONCE, np.intp)
    for first in range(0, len(values), AT_ONCE):
        some = values[first : first + AT_ONCE]
        places, index = buffer[: len(some)], bins[: len(some)]
        np.subtract(some, np.float32(low), out=places)
        places *= np.float32(BINS / (high - low))
        np.minimum(places, np.float32(BINS - 1), out=places)
        np.maximum(places, np.float32(0), out=places)
        np.copyto(index, places, casting="unsafe")
        counts += np.bincount(index, minlength=BINS)
    return counts


def clipped(method: str, histogram: Histogram) -> Range:
    """The range to quantize, by one of `METHODS`; it never exceeds the observed range."""
    if histogram.high <= histogram.low or method == "minmax" or not histogram.counts.any():
        return histogram.low, histogram.high
    if method == "percentile":
        return percentile_range(histogram, PERCENTILE)
    score = divergence if method == "entropy" else squared_error
    peak = max(-histogram.low, histogram.high)
    ranges = [(max(histogram.low, -part * peak), min(histogram.high, part * peak)) for part in CANDIDATES]
    # A range that lies wholly on one side of zero, or has shrunk to nothing, is no candidate.
    ranges = [one for one in dict.fromkeys(ranges) if one[1] > one[0]]
    best: Range = min(reversed(ranges), key=lambda one: score(histogram, one))
    return best


def percentile_range(histogram: Histogram, percentile: float) -> Range:
    """What remains when (100 − percentile) / 2 percent are cut on either side."""
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    cut = (100.0 - percentile) / 200.0
    edges = np.linspace(histogram.low, histogram.high, len(histogram.counts) + 1)
    low = float(edges[np.searchsorted(share, cut)])
    high = float(edges[min(int(np.searchsorted(share, 1.0 - cut)) + 1, len(histogram.counts))])
    return low, high


def squared_error(histogram: Histogram, clip: Range) -> float:
    """Mean squared error of quantizing to the 8-bit numbers of a range."""
    low, high = min(clip[0], 0.0), max(clip[1], 0.0)
    step = (high - low) / (LEVELS - 1)
    x = histogram.centres
    q = np.clip(np.round((x - low) / step), 0, LEVELS - 1) * step + low
    return float(np.dot(histogram.counts, (x - q) ** 2))


def divergence(histogram: Histogram, clip: Range) -> float:
    """Kullback-Leibler divergence of the quantized distribution from the clipped one.

    Source: Migacz, 8-bit inference with TensorRT, 2017. onnxruntime's own calibrator has by default as many bins as
    quantized levels (128), so that its search has one candidate, which clips nothing; here every candidate range has its
    own 256 levels, over bins that are finer.
    """
    low, high = min(clip[0], 0.0), max(clip[1], 0.0)
    x = histogram.centres
    inside = (x >= clip[0]) & (x <= clip[1])
    counts = histogram.counts
    p = counts[inside].copy()
    if not p.size:
        return float("inf")
    level = np.clip(np.round((x[inside] - low) / ((high - low) / (LEVELS - 1))), 0, LEVELS - 1).astype(np.intp)
    there = p > 0
    total = np.bincount(level, p, LEVELS)
    spread_over = np.bincount(level, there, LEVELS)
    q = np.where(there, total[level] / np.maximum(spread_over[level], 1), 0.0)
    p[0] += counts[x < clip[0]].sum()
    p[-1] += counts[x > clip[1]].sum()
    both = (p > 0) & (q > 0)
    lost = p[(p > 0) & (q <= 0)].sum() / p.sum()
    p, q = p / p.sum(), q / max(q.sum(), 1e-30)
    return float(np.sum(p[both] * np.log(p[both] / q[both])) + lost)
