"""Calibration tables by the methods of ncnn2table: `kl`, `aciq` and `eq`.

Source: the description of ncnn2table in NCNN_INT8.md. The kl and aciq tables are those of the real tool; eq, which
crashes there, is what it was meant to be, with one scale for all layers that read the same blob.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from onnxlint.backends.ncnn import arith
from onnxlint.backends.ncnn.format import Layer, Network
from onnxlint.backends.ncnn.packed import Packed
from onnxlint.backends.ncnn.run import Runner, in_order
from onnxlint.backends.ncnn.table import Table, quantizable, require_names, source_blobs, weight_groups
from onnxlint.backends.rounding import TINY, one_blas_thread
from onnxlint.errors import OnnxlintError
from onnxlint.lint.engines import Spread, kept, let_go, new_token
from onnxlint.text import printable

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Method = Literal["kl", "aciq", "eq"]
Progress = Callable[[str, int, int | None], None]
"""Called with the current action, the number of steps done, and their total (None: unknown)."""

T = TypeVar("T")
BINS = 2048
LEVELS = 128
EPSILON = 1e-4
EQ_IMAGES = 50
EQ_STEPS = 100
EQ_POSITIONS = 2000


def silent(_what: str, _done: int, _total: int | None) -> None:
    """A Progress that shows nothing."""


@dataclass(frozen=True)
class BlobStats:
    """One blob over all images: `peak` = max |x|, `size` elements in an image, and, for kl, how many non-zero values
    of |x| fall into each of 2048 equal bins of [0, peak]."""

    peak: float
    size: int
    histogram: npt.NDArray[np.int64] | None = None


def calibrated_blobs(net: Network) -> dict[str, str]:
    """Layer that can be quantized → the blob it reads, seen through Split."""
    source = source_blobs(net)
    return {layer.name: source[layer.bottoms[0]] for layer in net.layers if quantizable(layer)}


def _varied(x: Floats) -> bool:
    """Whether an input is not the same everywhere."""
    return bool((x != x[..., :1, :1]).any()) if x.ndim == 3 else True


def check_inputs(images: Sequence[Floats], varied: bool = True) -> None:
    """Raises OnnxlintError for inputs that cannot calibrate anything: none, NaN, or (with `varied`) each of one colour."""
    if not images:
        raise OnnxlintError("--images: no image to calibrate with; give a folder, a list or an .npz")
    for i, x in enumerate(images, 1):
        if not np.isfinite(x).all():
            raise OnnxlintError(f"--images: input {i} holds NaN or infinity; check --mean and --norm")
    if varied and not any(_varied(x) for x in images):
        raise OnnxlintError(f"--images: each of the {len(images)} images is of one colour; calibrate with real ones")


def activation_stats(
    net: Network,
    images: Iterable[Floats],
    *,
    histograms: bool,
    known: Mapping[str, BlobStats] | None = None,
    threads: int = 2,
    progress: Progress = silent,
    spread: Spread | None = None,
) -> dict[str, BlobStats]:
    """Statistics of every blob that a quantizable layer reads, over inputs (C, H, W).

    `images` is iterated once, or twice for histograms; it is streamed, and merged in its order by maxima and sums of whole
    numbers, so that the result does not depend on who computes it: `threads` here, or the tasks of `spread`. Raises
    OnnxlintError for inputs that cannot calibrate anything: none, NaN, or all of one colour. With peaks and sizes that are
    `known`, only histograms are made.
    """
    require_names(net)
    blobs = list(dict.fromkeys(calibrated_blobs(net).values()))
    if not blobs:
        raise OnnxlintError(printable(f"{net.path}: has no layer that can be quantized"))
    total = None
    if known is None:
        known, total = _peaks(net, blobs, images, threads, progress, spread)
    if not histograms:
        return {name: known[name] for name in blobs}
    counts = {name: np.zeros(BINS, np.int64) for name in blobs}
    work = _Work(net, frozenset(blobs), {name: one.peak for name, one in known.items()})
    for i, some_counts in enumerate(_parallel(_counts, work, images, threads, spread), 1):
        for name, c in some_counts.items():
            counts[name] += c
        progress("activation histograms", i, total)
    return {name: replace(known[name], histogram=counts[name]) for name in blobs}


def _peaks(
    net: Network,
    blobs: Sequence[str],
    images: Iterable[Floats],
    threads: int,
    progress: Progress,
    spread: Spread | None,
) -> tuple[dict[str, BlobStats], int]:
    """Largest magnitude and size of each blob, and the number of images."""
    work = _Work(net, frozenset(blobs))
    peaks: dict[str, float] = dict.fromkeys(blobs, 0.0)
    sizes: dict[str, int] = {}
    varied = False
    done = 0
    for some, found in _parallel(_extremes, work, images, threads, spread):
        varied = varied or some
        for name, (peak, size) in found.items():
            if not math.isfinite(peak):
                raise OnnxlintError(
                    printable(
                        f"{net.path}: blob '{name}' holds NaN or infinity for image {done + 1}; check --mean and --norm"
                    )
                )
            peaks[name] = max(peaks[name], peak)
            sizes[name] = size
        done += 1
        progress("activation ranges", done, None)
    if not done:
        raise OnnxlintError("--images: no image to calibrate with; give a folder, a list or an .npz")
    if not varied:
        raise OnnxlintError(f"--images: each of the {done} images is of one colour; calibrate with real ones")
    return {name: BlobStats(peaks[name], sizes[name]) for name in blobs}, done


@dataclass(frozen=True, eq=False)
class _Work:
    """What is computed of each image: `peaks` of the `wanted` blobs, or, where they are known, histograms."""

    net: Network
    wanted: frozenset[str]
    peaks: Mapping[str, float] | None = None
    token: str = field(default_factory=new_token)

    def runner(self) -> Runner:
        """The net, loaded once in a process."""
        return kept(self.token, lambda: Runner(self.net, threads=1, light=True))


def _extremes(work: _Work, x: Floats) -> tuple[bool, dict[str, tuple[float, int]]]:
    found: dict[str, tuple[float, int]] = {}

    def look(name: str, blob: Packed) -> None:
        found[name] = max(float(blob.laid.max()), -float(blob.laid.min())), blob.laid.size

    work.runner().visit(x, work.wanted, look)
    return _varied(x), found


def _counts(work: _Work, x: Floats) -> dict[str, npt.NDArray[np.int64]]:
    assert work.peaks is not None
    peaks, found = work.peaks, dict[str, npt.NDArray[np.int64]]()

    def look(name: str, blob: Packed) -> None:
        found[name] = _histogram(blob.laid, peaks[name])

    work.runner().visit(x, work.wanted, look)
    return found


def _parallel(
    call: Callable[[_Work, Floats], T], work: _Work, images: Iterable[Floats], threads: int, spread: Spread | None
) -> Iterator[T]:
    """call(work, image) for a stream of images, in order: `threads` at a time, or elsewhere."""
    if spread is not None:
        for i, found in enumerate(spread.each(call, ((np.ascontiguousarray(x),) for x in images), work), 1):
            if found is None:
                raise OnnxlintError(f"--images: running the net on image {i} ended its process again and again")
            yield found
        return
    work.runner()
    try:
        yield from in_order(lambda x: call(work, x), images, max(1, threads))
    finally:
        let_go(work.token)


def _histogram(blob: Floats, peak: float) -> npt.NDArray[np.int64]:
    out = np.zeros(BINS, np.int64)
    if peak == 0:
        return out
    flat = blob.reshape(-1)
    size = 1 << 16  # small enough for the cache
    buffer, index = np.empty(size, np.float32), np.empty(size, np.intp)
    for start in range(0, flat.size, size):
        part = flat[start : start + size]
        scaled, bins = buffer[: part.size], index[: part.size]
        np.abs(part, out=scaled)
        zeros = np.count_nonzero(scaled == 0)
        scaled /= np.float32(peak)
        scaled *= np.float32(BINS)
        np.minimum(scaled, np.float32(BINS - 1), out=scaled)
        np.copyto(bins, scaled, casting="unsafe")
        out += np.bincount(bins, minlength=BINS)
        out[0] -= zeros
    return out


# ---------------------------------------------------------------- weights


def six_bit(layer: Layer) -> bool:
    """Whether ncnn2table leaves room for int8 winograd: a Convolution 3×3 with stride 1 and dilation 1."""
    shape = [layer.integer(k, d) for k, d in ((1, 0), (2, 1), (3, 1))]
    shape += [layer.integer(11, shape[0]), layer.integer(12, shape[1]), layer.integer(13, shape[2])]
    return layer.type == "Convolution" and shape == [3, 1, 1, 3, 1, 1]


def weight_scales(layer: Layer, method: Method = "kl") -> Floats:
    """One scale for each output channel (group, when depthwise), shape (weight_groups,); 1 for a dead channel, whose weights
    become zeros."""
    blob = layer.blob("weight")
    assert blob is not None
    rows = np.abs(blob.values().reshape(weight_groups(layer), -1))
    threshold = rows.max(axis=1)
    levels = 31 if six_bit(layer) else 127
    if method == "aciq" and rows.shape[1] > 1:
        threshold = np.asarray([_gaussian_threshold(float(t), rows.shape[1], levels) for t in threshold], np.float32)
    alive = threshold > TINY
    return np.where(alive, np.float32(levels) / np.where(alive, threshold, 1), 1).astype(np.float32)


def _gaussian_threshold(peak: float, size: int, levels: int = 127) -> float:
    """Where ACIQ clips `size` normally distributed values with the largest magnitude `peak`."""
    if size < 2:
        return peak
    alpha = 3.28691474 if levels == 31 else 3.92403714
    sigma = (2 * peak * 0.175 * (1 + math.sqrt(math.pi * math.log(4)))) / math.sqrt(2 * math.log(size))
    return alpha * sigma


# ---------------------------------------------------------------- activations


@lru_cache(maxsize=1)
def _cells() -> tuple[npt.NDArray[np.intp], Doubles, npt.NDArray[np.intp]]:
    """For every T = 128…2047 (rows): the 129 knots j·T/128 as integer part, fraction, and the next integer."""
    t = np.arange(LEVELS, BINS)[:, None]
    j = np.arange(LEVELS + 1)[None, :]
    low, rest = np.divmod(t * j, LEVELS)
    return low.astype(np.intp), rest / LEVELS, (low + (rest > 0)).astype(np.intp)


def kl_divergences(histogram: npt.NDArray[np.int64]) -> Doubles:
    """The divergence of the 128-cell approximation for every clipping bin T = 128…2047, shape (1920,).

    With P = ε + h[:T] (the tail put into the last bin) and E = ε + the cells' mass spread evenly, it is Σ P ln(P/E).
    Inside a cell E is constant, so the sum needs 128 cells and 127 bins that straddle two of them: not T terms.
    """
    low, fraction, high = _cells()
    h = np.append(histogram / max(1, int(histogram.sum())), 0.0)
    below = np.concatenate([[0.0], np.cumsum(h[:-1])])  # mass of the first n bins
    t = np.arange(LEVELS, BINS)
    mass = below[low]
    mass += fraction * h[low]
    density = np.diff(mass, axis=1)
    density /= (t / LEVELS)[:, None]
    inner = below[low[:, 1:]]
    inner -= below[high[:, :-1]]
    inner += EPSILON * (low[:, 1:] - high[:, :-1])
    tail = below[-1] - below[t]
    inner[:, -1] += tail
    cross = np.einsum("tj,tj->t", inner, np.log(density + EPSILON))
    f = fraction[:, 1:-1]
    straddling = h[low[:, 1:-1]]
    straddling += EPSILON
    straddling[f == 0] = 0
    both = f * density[:, :-1]
    both += (1 - f) * density[:, 1:]
    both += EPSILON
    cross += np.einsum("tj,tj->t", straddling, np.log(both))
    p = h[:-1] + EPSILON
    own = np.concatenate([[0.0], np.cumsum(p * np.log(p))])
    last = p[t - 1] + tail
    return np.asarray(own[t - 1] + last * np.log(last) - cross)


def kl_threshold(stats: BlobStats) -> float:
    """Where kl clips: the T with the smallest divergence, as a magnitude."""
    assert stats.histogram is not None
    if not stats.histogram.any():
        return stats.peak
    t = LEVELS + int(np.argmin(kl_divergences(stats.histogram)))
    return (t + 0.5) * stats.peak / BINS


def make_table(
    net: Network,
    images: Iterable[Floats],
    method: Method = "kl",
    *,
    threads: int = 2,
    progress: Progress = silent,
    spread: Spread | None = None,
) -> Table:
    """The calibration table of a float net.

    `images` are inputs (C, H, W) float32, iterated up to three times; any object that streams them anew will do. Statistics
    of images are computed by `threads` here, or by the tasks of `spread`.
    Raises OnnxlintError.
    """
    wants = method != "aciq"
    stats = activation_stats(net, images, histograms=wants, threads=threads, progress=progress, spread=spread)
    table = plain_table(net, stats, "aciq" if method == "aciq" else "kl", threads)
    if method != "eq":
        return table
    with one_blas_thread():
        return _equalize_outputs(net, images, table, threads, progress)


def plain_table(net: Network, stats: Mapping[str, BlobStats], method: Literal["kl", "aciq"], threads: int = 2) -> Table:
    """The table by `kl`, which needs histograms, or `aciq`, from statistics of the blobs that layers read."""
    if method == "aciq":
        thresholds = {name: _gaussian_threshold(s.peak, s.size) for name, s in stats.items()}
    else:
        with ThreadPoolExecutor(max(1, threads)) as pool:
            thresholds = dict(zip(stats, pool.map(kl_threshold, stats.values()), strict=True))
    scales = {name: 127 / t if t > TINY else 1.0 for name, t in thresholds.items()}
    reads = calibrated_blobs(net)
    layers = [layer for layer in net.layers if layer.name in reads]
    return Table(
        {layer.name: weight_scales(layer, method) for layer in layers},
        {layer.name: np.asarray([scales[reads[layer.name]]], np.float32) for layer in layers},
    )


# ---------------------------------------------------------------- eq


def _equalize_outputs(net: Network, images: Iterable[Floats], table: Table, threads: int, progress: Progress) -> Table:
    """Refine a kl table: each scale becomes the one of 100 around it with the best cosine of the layer's output.

    The int8 layer is a product of integer matrices, so all candidates of a channel are scored in one. Where a layer has
    more than `EQ_POSITIONS` output positions, that many stand for all.
    """
    runner = Runner(net, threads=1)
    inputs = [np.ascontiguousarray(x) for x in itertools.islice(images, EQ_IMAGES)]
    reads = calibrated_blobs(net)
    layers = {layer.name: layer for layer in net.layers if layer.name in reads}
    blobs = list(dict.fromkeys(reads.values()))
    first = dict(zip(blobs, runner.run(inputs[0], blobs), strict=True))
    seconds = _eq_seconds([(layer, first[reads[name]]) for name, layer in layers.items()]) * len(inputs)
    progress(f"eq: takes about {math.ceil(seconds / max(1, threads))} s", 0, None)
    factors = np.float32(0.5) + np.float32(1.5 / EQ_STEPS) * np.arange(EQ_STEPS, dtype=np.float32)
    weights = dict(table.weights)
    bottoms = dict(table.inputs)
    done = 0
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for blob in blobs:
            readers = [layers[name] for name, source in reads.items() if source == blob]
            scale = float(bottoms[readers[0].name][0])
            activations = [np.array(ys[0]) for ys in runner.map(inputs, [blob], threads)]
            score = np.zeros(EQ_STEPS)
            for layer in readers:
                start = weights[layer.name]
                trials = list(pool.map(lambda x: _weight_trials(layer, x, scale, start, factors), activations))  # noqa: B023
                weights[layer.name] = chosen = _best_weight_scales(trials, start, factors)
                score += sum(
                    pool.map(lambda x: _input_cosines(layer, x, chosen, scale * factors), activations)  # noqa: B023
                )
                done += 1
                progress("scales by output", done, len(layers))
            best = np.float32(scale) * factors[int(np.argmax(score))]
            for layer in readers:
                bottoms[layer.name] = np.asarray([best], np.float32)
    return Table(weights, bottoms)


def _eq_seconds(layers: Sequence[tuple[Layer, Floats]]) -> float:
    """Seconds that the candidates of all layers take for one input on one core, by the speed of the same arithmetic here.

    Args:
        layers: Each with the blob that it reads, for one input.
    """
    products = elements = 0.0
    for layer, x in layers:
        g, m, k = arith.weight_matrix(layer).shape
        p = min(arith.position_count(layer, x.shape), EQ_POSITIONS)
        products += 2 * EQ_STEPS * g * m * k * p  # scales of weights, then those of the input
        elements += EQ_STEPS * g * (2 * m + k) * p  # outputs of both, and rounded inputs
    rng = np.random.default_rng(0)
    a, b = rng.random((256, 256), np.float32), rng.random((256, EQ_POSITIONS), np.float32)
    started = time.perf_counter()
    a @ b
    product = (time.perf_counter() - started) / (a.shape[0] * b.size)
    started = time.perf_counter()
    arith.quantize_input(b, 100.0)
    return float(products * product + elements * (time.perf_counter() - started) / b.size)


def _positions(layer: Layer, x: Floats) -> npt.NDArray[np.intp] | None:
    """Some output positions, the same for every image of a size; None: all."""
    there = arith.position_count(layer, x.shape)
    if there <= EQ_POSITIONS:
        return None
    return np.sort(np.random.default_rng(0).choice(there, EQ_POSITIONS, replace=False))


def _dequantized(rows: Floats, scales: Floats) -> Floats:
    """Weights after int8: rows (m, k) with the scales (…, m) → (…, m, k)."""
    q = np.clip(rows * scales[..., None], -127, 127)
    q = np.trunc(q + np.copysign(np.float32(0.5), q))
    return np.asarray(q / scales[..., None], np.float32)


def _weight_trials(
    layer: Layer, x: Floats, scale: float, start: Floats, factors: Floats
) -> tuple[Doubles, Doubles, float]:
    """For one input: ⟨y, reference⟩ and ⟨y, y⟩ of each channel (c) for each candidate and, last, for the scale as it
    is, both (c, 101); and ⟨reference, reference⟩ of the whole output."""
    weight = arith.weight_matrix(layer)
    g, m, k = weight.shape
    shared = len(start) != g * m  # a grouped convolution has one scale for all outputs of a group
    offset = arith.bias(layer).reshape(g, m)
    some = _positions(layer, x)
    exact = arith.columns(layer, x, some)
    cols = arith.quantize_input(exact, scale)
    cols /= np.float32(scale)
    tries = np.append(factors, np.float32(1))
    dots = np.zeros((len(start), len(tries)))
    norms = np.zeros_like(dots)
    truth = 0.0
    for group in range(g):
        reference = arith.activate(layer, weight[group] @ exact[group] + offset[group][:, None])
        truth += float(np.vdot(reference, reference))
        for one in range(1 if shared else m):
            at = slice(None) if shared else slice(one, one + 1)
            index = group if shared else group * m + one
            rows = weight[group, at]
            q = _dequantized(rows, np.broadcast_to((tries * start[index])[:, None], (len(tries), len(rows))))
            y = q.reshape(-1, k) @ cols[group]
            y += np.tile(offset[group, at], len(tries))[:, None]
            y = arith.activate(layer, y).reshape(len(tries), -1)
            dots[index] = y @ reference[at].reshape(-1)
            norms[index] = np.einsum("cp,cp->c", y, y)
    return dots, norms, truth


def _best_weight_scales(trials: Sequence[tuple[Doubles, Doubles, float]], start: Floats, factors: Floats) -> Floats:
    """Channel after channel: the weight scale with the best sum (over images) of output cosines, others held."""
    dots, norms = np.stack([t[0] for t in trials]), np.stack([t[1] for t in trials])
    truth = np.array([t[2] for t in trials])
    chosen = np.array(start)
    dot, norm = dots[:, :, -1].sum(1), norms[:, :, -1].sum(1)
    for index in range(len(start)):
        rest_dot, rest_norm = dot - dots[:, index, -1], norm - norms[:, index, -1]
        power = (rest_norm[:, None] + norms[:, index]) * truth[:, None]
        cosine = (rest_dot[:, None] + dots[:, index]) / np.sqrt(np.maximum(power, 1e-30))
        best = int(np.argmax(cosine.sum(0)[:-1]))
        chosen[index] = start[index] * factors[best]
        dot, norm = rest_dot + dots[:, index, best], rest_norm + norms[:, index, best]
    return chosen


def _input_cosines(layer: Layer, x: Floats, scales: Floats, candidates: Floats) -> Doubles:
    """For one input: the cosine of the layer's int8 output with the float one, for each input scale."""
    weight = arith.weight_matrix(layer)
    g, m, k = weight.shape
    rounded = _dequantized(weight.reshape(g * m, k), np.repeat(scales, g * m // len(scales))).reshape(g, m, k)
    offset = arith.bias(layer)[:, None]
    exact = arith.columns(layer, x, _positions(layer, x))
    reference = arith.activate(layer, np.matmul(weight, exact).reshape(g * m, -1) + offset).reshape(-1)
    length = math.sqrt(float(np.vdot(reference, reference)))
    out = np.zeros(len(candidates))
    for c, scale in enumerate(candidates):
        y = np.matmul(rounded, arith.quantize_input(exact, float(scale)))
        y /= np.float32(scale)
        y = y.reshape(g * m, -1)
        y += offset
        flat = arith.activate(layer, y).reshape(-1)
        out[c] = float(flat @ reference) / max(math.sqrt(float(flat @ flat)) * length, 1e-30)
    return out
