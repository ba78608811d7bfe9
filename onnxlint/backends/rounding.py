"""Weights rounded against a layer's output, from two moments of what the layer reads: no gradients.

The float weights are first refitted (least squares, with intercept) so that the layer, reading quantized inputs, comes
closest to what the float layer makes of float inputs; that takes up the systematic part of all errors before. Then they
are rounded one after the other, each rounding error being passed on to the weights that are still free (Frantar et al.,
GPTQ, 2022), and polished by coordinate descent.

Everywhere: g groups, m outputs in a group, k weights of an output.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

REFIT_DAMPING = 1.0
"""How strongly refitted weights are drawn to the old ones, in units of the mean variance of the inputs. Less fits the
calibration images better and other photos worse (measured: 0.03 to 1 differ by 0.2 dB there; no refit loses 1 dB)."""

POSITIONS = (4_000, 6_000)
"""Fewest and most output positions, over all inputs, from which a layer's moments are taken."""

POSITIONS_EACH = 10
"""Positions for each weight of an output, within these bounds."""

POSITIONS_AT_ONCE = 3_000
"""Output positions whose sums are computed in float32."""

AT_ONCE = 1 << 20
"""Numbers of several groups whose moments are computed together: more would not stay in the cache."""

ORIGIN_STEP = 8
"""One of so many positions tells where values are, roughly, before their moments are taken."""

LARGEST = 4608
"""Inputs of one output (512 channels of 3×3) above which weights are rounded plainly: the moments grow with the square."""

FP16_LARGEST = 65504.0

BLOCK = 64
"""Inputs of a layer that are rounded before their errors reach those behind them, in one product of matrices."""

TINY = 1e-30
"""Channels whose weights are all smaller become zeros: their scale would leave the range of float32."""


def one_blas_thread() -> AbstractContextManager[object]:
    """While this is entered, NumPy's matrix products use one thread each: ours run beside each other, and two layers
    of threads on the same cores cost several times as much. Needs threadpoolctl; without it, nothing happens."""
    try:
        module = importlib.import_module("threadpoolctl")
    except ImportError:
        return nullcontext()
    return cast(AbstractContextManager[object], module.threadpool_limits(1, "blas"))


@dataclass(frozen=True)
class Moments:
    """Over `count` positions: means of what old weights make of exact inputs, `target` (g, m), and of the quantized inputs
    (g, k), and the centred second moments quantized × quantized `hessian` (g, k, k) and target × quantized `cross`
    (g, m, k)."""

    target: Doubles
    quantized: Doubles
    hessian: Doubles
    cross: Doubles
    count: int

    def of(self, first: int, last: int) -> Moments:
        """For the outputs of each group from one to another."""
        return replace(self, target=self.target[:, first:last], cross=self.cross[:, first:last])


def positions_for(inside: int) -> int:
    """How many output positions of a layer its moments are taken from, where an output has so many weights."""
    return min(max(POSITIONS_EACH * inside, POSITIONS[0]), POSITIONS[1])


def blocks_of(groups: int, numbers: int) -> list[tuple[int, int]]:
    """Groups whose numbers, so many each, are few enough for the cache: first, last and one more."""
    wide = max(1, AT_ONCE // max(1, numbers))
    return [(first, min(first + wide, groups)) for first in range(0, groups, wide)]


def moments(
    read: Callable[[int, int], tuple[Floats, Floats]], weight: Floats, blocks: Sequence[tuple[int, int]], threads: int
) -> Moments:
    """Moments of what a layer reads.

    Args:
        read: Exact and quantized inputs (groups, k, positions) of the groups from one to another, in arrays of their own.
        weight: The old weights (g, m, k), of several layers that read the same one after the other.
        blocks: Of groups, as `blocks_of` gives them.
        threads: How many blocks, or parts of the only one, are computed at a time.
    """
    with ThreadPoolExecutor(max(1, threads)) as pool:
        outer, inner = (map, pool.map) if len(blocks) == 1 else (pool.map, map)

        def of_some(block: tuple[int, int]) -> Moments:
            exact, given = read(*block)
            some = weight[slice(*block)]
            # Of values that are far from zero and vary little, products in float32 lose the variance.
            origin = exact[:, :, ::ORIGIN_STEP].mean(axis=2, keepdims=True)
            exact -= origin
            given -= origin

            def sums(at: int) -> list[npt.NDArray[np.floating]]:
                part = slice(at, at + POSITIONS_AT_ONCE)
                return sums_of(exact[:, :, part], given[:, :, part], some)

            count = exact.shape[2]
            return centred(inner(sums, range(0, count, POSITIONS_AT_ONCE)), count, some, origin)

        return joined(outer(of_some, blocks))


def sums_of(exact: Floats, quantized: Floats, weight: Floats) -> list[npt.NDArray[np.floating]]:
    """What `centred` adds up: the sums of targets and of quantized inputs, and of their products.

    Args:
        exact, quantized: The inputs (g, k, positions).
        weight: The old weights (g, m, k).
    """
    turned = quantized.transpose(0, 2, 1)
    # Of one matrix and itself, half the products do: np.dot knows, np.matmul of stacks does not.
    squares = np.dot(quantized[0], quantized[0].T)[None] if len(quantized) == 1 else np.matmul(quantized, turned)
    _, m, k = weight.shape
    if 2 * m < k:  # fewer products than of all inputs
        target = np.matmul(weight, exact)
        cross, sums = np.matmul(target, turned), target.sum(2)
    else:
        cross = np.matmul(weight, np.matmul(exact, turned))
        sums = np.matmul(weight, exact.sum(2)[..., None])[..., 0]
    return [sums, quantized.sum(2), squares, cross]


def centred(
    parts: Iterable[Sequence[npt.NDArray[np.floating]]], count: int, weight: Floats, origin: Floats | None = None
) -> Moments:
    """Moments from the `sums_of` all images, over `count` positions together, with the same `weight`; `origin` (g, k, 1) was
    subtracted from both inputs."""
    total: list[Doubles] = []
    for new in parts:
        if total:
            for old, one in zip(total, new, strict=True):
                old += one
        else:
            total = [one.astype(np.float64) for one in new]
    target, mean, squares, cross = (one / count for one in total)
    hessian = squares - mean[:, :, None] * mean[:, None, :]
    cross -= target[:, :, None] * mean[:, None, :]
    if origin is not None:
        target = target + np.matmul(weight, origin.astype(np.float64))[..., 0]
        mean = mean + origin[..., 0]
    return Moments(target, mean, hessian, cross, count)


def joined(parts: Iterable[Moments]) -> Moments:
    """Moments of all groups, from those of some each, over the same positions."""
    some = list(parts)
    if len(some) == 1:
        return some[0]
    return Moments(
        np.concatenate([one.target for one in some]),
        np.concatenate([one.quantized for one in some]),
        np.concatenate([one.hessian for one in some]),
        np.concatenate([one.cross for one in some]),
        some[0].count,
    )


def around_zero(m: Moments) -> Moments:
    """The same moments around zero in place of the means: for layers without a bias, which cannot take up a mean error."""
    return Moments(
        np.zeros_like(m.target),
        np.zeros_like(m.quantized),
        m.hessian + m.quantized[:, :, None] * m.quantized[:, None, :],
        m.cross + m.target[:, :, None] * m.quantized[:, None, :],
        m.count,
    )


def refit(weight: Doubles, m: Moments, damping: float) -> Doubles:
    """Least-squares weights (g, m, k) for the quantized inputs, drawn towards the old ones, `weight`, by `damping`,
    and more when there are few positions for the number of weights."""
    k = weight.shape[2]
    ridge = (damping + k / m.count) * np.trace(m.hessian, axis1=1, axis2=2) / k + 1e-12
    eye = ridge[:, None, None] * np.eye(k)
    right = m.cross + ridge[:, None, None] * weight
    return np.asarray(np.linalg.solve(m.hessian + eye, right.transpose(0, 2, 1)).transpose(0, 2, 1))


def moved_bias(new: Doubles, target: Doubles, quantized: npt.NDArray[np.floating]) -> Doubles:
    """What has to be added to the bias (g·m,) so that the mean output of the new weights is that of the old ones.

    Args:
        new: Weights (g, m, k).
        target: Mean of what the old weights make of exact inputs (g, m).
        quantized: Mean of the inputs that the new ones read (g, k).
    """
    return np.asarray((target - np.einsum("gmk,gk->gm", new, quantized)).reshape(-1))


def best_scales(rows: Doubles, importance: Doubles, levels: int, shared: bool) -> Doubles:
    """For rows (g, m, k), the scale (g, m) with the least weighted rounding error, from max-based down to 0.7 of it.

    Args:
        rows: Weights.
        importance: (g, k), of each input.
        levels: The largest integer.
        shared: Whether all rows of a group get one scale.
    """
    peak = np.abs(rows).max(axis=2)
    if shared:
        peak = np.broadcast_to(peak.max(axis=1, keepdims=True), peak.shape)
    peak = np.where(peak > TINY, peak, 1.0)
    best = np.full(peak.shape, np.inf)
    chosen = levels / peak
    for shrink in np.linspace(1.0, 0.7, 31):
        scale = levels / (peak * shrink)
        error = _clipped(np.rint(rows * scale[..., None]), levels)
        error /= scale[..., None]
        error -= rows
        error *= error
        error = np.matmul(error, importance[:, :, None])[..., 0]
        if shared:
            error = np.broadcast_to(error.sum(axis=1, keepdims=True), error.shape)
        better = error < best
        best = np.where(better, error, best)
        chosen = np.where(better, scale, chosen)
    return chosen


def round_weights(rows: Doubles, scales: Doubles, hessian: Doubles, levels: int, damping: float) -> Doubles:
    """Integers (g, m, k) near rows·scales with little error (q/s − w)ᵀ H (q/s − w)."""

    def to_grid(w: Doubles) -> Doubles:
        return np.asarray(_clipped(np.rint(w * scales), levels) / scales)

    h = _damped(hessian, damping)
    q = np.rint(_passed_on(rows, h, to_grid) * scales[..., None])
    return _polished(q, rows, scales, h, levels)


def _clipped(q: Doubles, levels: int) -> Doubles:
    """From −levels to levels; `np.clip` takes several times as long for few numbers."""
    np.minimum(q, levels, out=q)
    return np.asarray(np.maximum(q, -levels, out=q))


def round_to_half(rows: Doubles, hessian: Doubles, damping: float) -> Doubles:
    """The same onto fp16 numbers: correlated inputs make for weights that cancel, and then their rounding matters."""

    def to_half(w: Doubles) -> Doubles:
        return np.asarray(np.clip(w, -FP16_LARGEST, FP16_LARGEST).astype(np.float16), np.float64)

    return _passed_on(rows, _damped(hessian, damping), to_half)


def _damped(hessian: Doubles, damping: float) -> Doubles:
    k = hessian.shape[1]
    ridge = damping * np.trace(hessian, axis1=1, axis2=2) / k + 1e-12
    return np.asarray(hessian + ridge[:, None, None] * np.eye(k))


def _passed_on(rows: Doubles, h: Doubles, nearest: Callable[[Doubles], Doubles]) -> Doubles:
    """Weights rounded one input after the other, most important first; the others make up for each error.

    GPTQ is Babai's nearest plane (Chen et al., The geometry of LLM quantization, 2025): with h = R·Rᵀ the error is
    |Rᵀ(w − q)|², and each input makes the element of its own as small as it can be.
    """
    g, _, k = rows.shape
    order = np.argsort(-np.diagonal(h, axis1=1, axis2=2), axis=1)
    across = np.arange(g)[:, None]
    root = _root(h[across[:, :, None], order[:, :, None], order[:, None, :]])
    # One input of all outputs after the other, as it lies in memory: (g, k, m).
    free = np.take_along_axis(rows.transpose(0, 2, 1), order[:, :, None], axis=1)
    out, errors = np.empty_like(free), np.empty_like(free)
    for first in range(0, k, BLOCK):
        last = min(first + BLOCK, k)
        carried = np.matmul(root[:, :first, first:last].transpose(0, 2, 1), errors[:, :first])
        for i in range(first, last):
            out[:, i] = nearest(free[:, i] + carried[:, i - first] / root[:, i, i, None])
            errors[:, i] = error = free[:, i] - out[:, i]
            carried[:, i + 1 - first :] += root[:, i, i + 1 : last, None] * error[:, None, :]
    back: Doubles = np.empty_like(out)
    np.put_along_axis(back, np.broadcast_to(order[:, :, None], out.shape), out, axis=1)
    return np.ascontiguousarray(back.transpose(0, 2, 1))


def _root(h: Doubles) -> Doubles:
    """Upper triangular matrices R with h = R·Rᵀ; where rounding has made h indefinite, of a damped one."""
    diagonal = np.trace(h, axis1=1, axis2=2)[:, None, None] / h.shape[1] * np.eye(h.shape[1])
    for damping in (0.0, 0.01, 0.1, 1.0):
        try:
            # The Cholesky factor of h turned end to end, turned back.
            turned = np.linalg.cholesky((h + damping * diagonal)[:, ::-1, ::-1])
        except np.linalg.LinAlgError:
            continue
        return np.ascontiguousarray(turned[:, ::-1, ::-1])
    return np.asarray(np.broadcast_to(np.eye(h.shape[1]), h.shape))


def _polished(q: Doubles, rows: Doubles, scales: Doubles, h: Doubles, levels: int, rounds: int = 2) -> Doubles:
    """Coordinate descent: each integer in turn moves to its best value, the others held."""
    g, m, k = q.shape
    found = np.ascontiguousarray(q.transpose(0, 2, 1))  # (g, k, m), as above
    slope = np.matmul(h, (q / scales[..., None] - rows).transpose(0, 2, 1))
    units = scales[:, None, :] / np.diagonal(h, axis1=1, axis2=2)[:, :, None]
    deltas = np.empty((g, BLOCK, m))
    for _ in range(rounds):
        moved = False
        for first in range(0, k, BLOCK):
            last = min(first + BLOCK, k)
            if (np.abs(slope[:, first:last] * units[:, first:last]) <= 0.5).all():
                continue
            for i in range(first, last):
                new = _clipped(found[:, i] - np.rint(slope[:, i] * units[:, i]), levels)
                deltas[:, i - first] = delta = (new - found[:, i]) / scales
                if delta.any():
                    found[:, i] = new
                    slope[:, first:last] += h[:, first:last, i, None] * delta[:, None, :]
            done = deltas[:, : last - first]
            if done.any():
                moved = True
                slope[:, :first] += np.matmul(h[:, :first, first:last], done)
                slope[:, last:] += np.matmul(h[:, last:, first:last], done)
        if not moved:
            break
    return np.ascontiguousarray(found.transpose(0, 2, 1))
