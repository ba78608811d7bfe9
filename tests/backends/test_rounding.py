"""Weights rounded against moments: blocks of inputs give what one input after the other gives."""

import numpy as np
import pytest

from onnxlint.backends.rounding import BLOCK, centred, joined, round_weights, sums_of

DAMPING = 0.01


def _inputs(g: int, k: int, positions: int) -> np.ndarray:
    """Correlated, as neighbouring pixels are: (g, k, positions)."""
    noise = np.random.default_rng(0).standard_normal((g, k, positions)).astype(np.float32)
    return np.asarray(noise + np.float32(0.3) * noise.cumsum(axis=1))


def _one_by_one(row: np.ndarray, scale: float, hessian: np.ndarray, levels: int) -> np.ndarray:
    """Integers for one output: rounding errors passed on in order of importance, then coordinate descent."""
    k = len(row)
    h = hessian + (DAMPING * np.trace(hessian) / k + 1e-12) * np.eye(k)
    order = np.argsort(-np.diag(h))
    upper = np.linalg.cholesky(np.linalg.inv(h[np.ix_(order, order)])).T
    free, q = row[order].copy(), np.zeros(k)
    for i in range(k):
        q[order[i]] = np.clip(np.round(free[i] * scale), -levels, levels)
        free[i:] -= (free[i] - q[order[i]] / scale) / upper[i, i] * upper[i, i:]
    for _ in range(3):
        for i in range(k):
            step = np.round(-((q / scale - row) @ h)[i] / h[i, i] * scale)
            q[i] = np.clip(q[i] + step, -levels, levels)
    return q


@pytest.mark.parametrize(("g", "m", "k"), [(1, 5, 2 * BLOCK + 9), (3, 2, BLOCK), (6, 1, 9)])
def test_blocks_change_nothing(g: int, m: int, k: int) -> None:
    x = _inputs(g, k, 4 * k).astype(np.float64)
    hessian = np.matmul(x, x.transpose(0, 2, 1)) / x.shape[2]
    rows = np.random.default_rng(1).standard_normal((g, m, k))
    scales = 20 / np.abs(rows).max(axis=2)
    found = round_weights(rows, scales, hessian, 20, DAMPING)
    wanted = [[_one_by_one(rows[i, j], scales[i, j], hessian[i], 20) for j in range(m)] for i in range(g)]
    np.testing.assert_array_equal(found, wanted)
    assert np.abs(found).max() == 20
    assert (found != np.clip(np.round(rows * scales[..., None]), -20, 20)).any()


@pytest.mark.parametrize("m", [1, 4])
def test_moments_of_groups_are_joined(m: int) -> None:
    exact, given = _inputs(5, 4, 300), _inputs(5, 4, 300)[::-1]
    weight = np.random.default_rng(2).standard_normal((5, m, 4)).astype(np.float32)
    halves = [sums_of(exact[:, :, some], given[:, :, some], weight) for some in (slice(100), slice(100, None))]
    whole = centred(halves, 300, weight)
    parts = joined(
        centred([sums_of(exact[some], given[some], weight[some])], 300, weight[some])
        for some in (slice(2), slice(2, 4), slice(4, 6))
    )
    target = (weight @ exact).astype(np.float64)
    for one in (whole, parts):
        assert np.allclose(one.target, target.mean(axis=2), rtol=1e-4, atol=1e-5)
        cross = (target - target.mean(axis=2, keepdims=True)) @ given.transpose(0, 2, 1) / 300
        assert np.allclose(one.cross, cross, rtol=1e-3, atol=1e-4)
        assert one.count == 300
    for name in ("quantized", "hessian"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-4, atol=1e-5)
