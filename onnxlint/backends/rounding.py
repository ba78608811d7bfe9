"""Weights rounded against a layer's output, from two moments of what the layer reads: no gradients.

The float weights are first refitted (least squares, with intercept) so that the layer, reading quantized inputs, comes
closest to what the float layer makes of float inputs; that takes up the systematic part of all errors before. Then they
are rounded one after the other, each rounding error being passed on to the weights that are still free (Frantar et al.,
GPTQ, 2022), and polished by coordinate descent.

Everywhere: g groups, m outputs in a group, k weights of an output.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

REFIT_DAMPING = 1.0
"""How strongly refitted weights are drawn to the old ones, in units of the mean variance of the inputs. Less fits the
calibration images better and other photos worse (measured: 0.03 to 1 differ by 0.2 dB there; no refit loses 1 dB)."""

POSITIONS = 20_000
"""Output positions, over all images, from which a layer's moments are taken."""

FP16_LARGEST = 65504.0

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
    """Over `count` positions: means of the exact and of the quantized inputs (g, k), and the centred second moments
    quantized × quantized `hessian` and exact × quantized `cross`, (g, k, k)."""

    exact: Doubles
    quantized: Doubles
    hessian: Doubles
    cross: Doubles
    count: int


def sums_of(exact: Floats, quantized: Floats, origin: Floats | None = None) -> list[Doubles]:
    """What `centred` adds up: the sums of two inputs (g, k, positions) and of their products.

    Args:
        exact, quantized: The inputs.
        origin: Subtracted from both (g, k, 1): of values that are far from zero and vary little, products in float32
            lose the variance.
    """
    if origin is not None:
        exact, quantized = exact - origin, quantized - origin
    turned = quantized.transpose(0, 2, 1)
    # Of one matrix and itself, half the products do: np.dot knows, np.matmul of stacks does not.
    squares = np.dot(quantized[0], quantized[0].T)[None] if len(quantized) == 1 else np.matmul(quantized, turned)
    return [
        exact.sum(2, dtype=np.float64),
        quantized.sum(2, dtype=np.float64),
        squares.astype(np.float64),
        np.matmul(exact, turned).astype(np.float64),
    ]


def centred(parts: Iterable[list[Doubles]], count: int, origin: Floats | None = None) -> Moments:
    """Moments from the `sums_of` all images, over `count` positions together, with the same `origin`."""
    total: list[Doubles] = []
    for new in parts:
        total = [old + one for old, one in zip(total, new, strict=True)] if total else new
    mean_a, mean_b, bb, ab = (one / count for one in total)
    hessian = bb - mean_b[:, :, None] * mean_b[:, None, :]
    cross = ab - mean_a[:, :, None] * mean_b[:, None, :]
    if origin is not None:
        mean_a, mean_b = mean_a + origin[..., 0], mean_b + origin[..., 0]
    return Moments(mean_a, mean_b, hessian, cross, count)


def around_zero(m: Moments) -> Moments:
    """The same moments around zero in place of the means: for layers without a bias, which cannot take up a mean error."""
    hessian = m.hessian + m.quantized[:, :, None] * m.quantized[:, None, :]
    cross = m.cross + m.exact[:, :, None] * m.quantized[:, None, :]
    nothing = np.zeros_like(m.exact)
    return Moments(nothing, nothing, hessian, cross, m.count)


def refit(weight: Doubles, m: Moments, damping: float) -> Doubles:
    """Least-squares weights (g, m, k) for the quantized inputs, drawn towards the old ones by `damping`,
    and more when there are few positions for the number of weights."""
    k = weight.shape[2]
    ridge = (damping + k / m.count) * np.trace(m.hessian, axis1=1, axis2=2) / k + 1e-12
    eye = ridge[:, None, None] * np.eye(k)
    right = np.matmul(weight, m.cross + eye)
    return np.asarray(np.linalg.solve(m.hessian + eye, right.transpose(0, 2, 1)).transpose(0, 2, 1))


def moved_bias(old: Doubles, new: Doubles, m: Moments) -> Doubles:
    """What has to be added to the bias (g·m,) so that the mean output of the new weights is that of the old ones."""
    shift = np.einsum("gmk,gk->gm", old, m.exact) - np.einsum("gmk,gk->gm", new, m.quantized)
    return np.asarray(shift.reshape(-1))


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
        q = np.clip(np.round(rows * scale[..., None]), -levels, levels)
        error = ((q / scale[..., None] - rows) ** 2 * importance[:, None, :]).sum(axis=2)
        if shared:
            error = np.broadcast_to(error.sum(axis=1, keepdims=True), error.shape)
        better = error < best
        best = np.where(better, error, best)
        chosen = np.where(better, scale, chosen)
    return chosen


def round_weights(rows: Doubles, scales: Doubles, hessian: Doubles, levels: int, damping: float) -> Doubles:
    """Integers (g, m, k) near rows·scales with little error (q/s − w)ᵀ H (q/s − w)."""

    def to_grid(w: Doubles) -> Doubles:
        return np.asarray(np.clip(np.round(w * scales), -levels, levels) / scales)

    h = _damped(hessian, damping)
    q = np.round(_passed_on(rows, h, to_grid) * scales[..., None])
    return _polished(q, rows, scales, h, levels)


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
    """Weights rounded one input after the other, most important first; the others make up for each error."""
    g, _, k = rows.shape
    order = np.argsort(-np.diagonal(h, axis1=1, axis2=2), axis=1)
    across = np.arange(g)[:, None]
    hp = h[across[:, :, None], order[:, :, None], order[:, None, :]]
    free = np.take_along_axis(rows, order[:, None, :], axis=2).copy()
    upper = _factor(hp)
    out = np.empty_like(free)
    for i in range(k):
        out[:, :, i] = nearest(free[:, :, i])
        error = (free[:, :, i] - out[:, :, i]) / upper[:, None, i, i]
        free[:, :, i + 1 :] -= error[:, :, None] * upper[:, None, i, i + 1 :]
    back: Doubles = np.empty_like(out)
    np.put_along_axis(back, np.broadcast_to(order[:, None, :], out.shape), out, axis=2)
    return back


def _factor(h: Doubles) -> Doubles:
    """The upper Cholesky factor of the inverse; where rounding has made the matrix indefinite, of a damped one."""
    diagonal = np.trace(h, axis1=1, axis2=2)[:, None, None] / h.shape[1] * np.eye(h.shape[1])
    for damping in (0.0, 0.01, 0.1, 1.0):
        try:
            return np.asarray(np.linalg.cholesky(np.linalg.inv(h + damping * diagonal)).transpose(0, 2, 1))
        except np.linalg.LinAlgError:
            continue
    return np.asarray(np.broadcast_to(np.eye(h.shape[1]), h.shape))


def _polished(q: Doubles, rows: Doubles, scales: Doubles, h: Doubles, levels: int, rounds: int = 3) -> Doubles:
    """Coordinate descent: each integer in turn moves to its best value, the others held."""
    error = q / scales[..., None] - rows
    slope = np.matmul(error, h)
    diagonal = np.diagonal(h, axis1=1, axis2=2)
    for _ in range(rounds):
        moved = False
        for i in range(q.shape[2]):
            step = np.round(-slope[:, :, i] / diagonal[:, None, i] * scales)
            new = np.clip(q[:, :, i] + step, -levels, levels)
            delta = (new - q[:, :, i]) / scales
            if delta.any():
                moved = True
                q[:, :, i] = new
                slope += delta[:, :, None] * h[:, None, i, :]
        if not moved:
            break
    return q
