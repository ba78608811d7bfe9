"""Ranges of activations: streamed over any number of inputs, one held at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxlint.backends import Array, Progress, silent
from onnxlint.errors import OnnxlintError
from onnxlint.text import printable

Doubles = npt.NDArray[np.float64]
Feeds = Mapping[str, Array]
Range = tuple[float, float]
Ranges = dict[str, Range]

BINS = 4096
"""Of a tensor's histogram, between the smallest and the largest value that it had."""

LEVELS = 256
"""Values of an 8-bit number."""

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


def extremes(
    inputs: Iterable[Feeds],
    compute: Callable[[Feeds], Sequence[Array]],
    names: Sequence[str],
    progress: Progress = silent,
) -> Ranges:
    """Smallest and largest value of each tensor.

    Raises:
        OnnxlintError: A tensor holds NaN or infinity.
    """
    low, high = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for done, feeds in enumerate(inputs, 1):
        for i, value in enumerate(compute(feeds)):
            if value.size:
                low[i], high[i] = min(low[i], float(value.min())), max(high[i], float(value.max()))
                if not np.isfinite((low[i], high[i])).all():
                    raise OnnxlintError(
                        f"{printable(names[i])} holds NaN or infinity for input {done}; check --mean, --norm and the model"
                    )
        progress("ranges of activations", done, None)
    return {name: (float(a), float(b)) if a <= b else (0.0, 0.0) for name, a, b in zip(names, low, high, strict=True)}


def histograms(
    inputs: Iterable[Feeds],
    compute: Callable[[Feeds], Sequence[Array]],
    names: Sequence[str],
    ranges: Ranges,
    progress: Progress = silent,
) -> dict[str, Histogram]:
    """Histograms of tensors whose extremes are known."""
    counts = [np.zeros(BINS) for _ in names]
    for done, feeds in enumerate(inputs, 1):
        for count, name, value in zip(counts, names, compute(feeds), strict=True):
            low, high = ranges[name]
            if value.size and high > low:
                bins = ((value.reshape(-1) - np.float32(low)) * np.float32(BINS / (high - low))).astype(np.int32)
                count += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)
        progress("histograms of activations", done, None)
    return {name: Histogram(*ranges[name], count) for name, count in zip(names, counts, strict=True)}


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
