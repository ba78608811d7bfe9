"""The systematic error of outputs, and the line that takes it back."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlint.backends.outputs import correction

SEED = 3


def scores(count: int = 50_000) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Mostly background, a few faces."""
    generator = np.random.default_rng(SEED)
    background = generator.normal(-6, 0.5, count)
    faces = generator.uniform(-2, 6, count // 100)
    return np.concatenate([background, faces]).astype(np.float32)[None]


@pytest.mark.parametrize(("slope", "shift"), [(0.9, 0.0), (1.1, 0.3), (1.0, -0.5)])
def test_a_line_is_taken_back_however_noisy(slope: float, shift: float) -> None:
    truth = scores()
    noise = np.random.default_rng(SEED + 1).normal(0, 0.3, truth.shape)
    found = (slope * truth + shift + noise).astype(np.float32)
    scale, move = correction(truth, found)
    right = found * scale[:, None] + move[:, None]
    rare = truth > 0
    assert abs((right - truth)[rare].mean()) < 0.05
    assert abs((right - truth)[~rare].mean()) < 0.05
    assert abs((found - truth)[rare].mean()) > 0.1


@pytest.mark.parametrize(
    "found",
    [np.zeros((1, 100)), np.full((1, 100), np.nan), np.arange(100.0)[None] * 3, -np.arange(100.0)[None]],
    ids=["constant", "nan", "three times", "turned round"],
)
def test_what_is_no_small_error_is_left_alone(found: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> None:
    truth = np.arange(100, dtype=np.float32)[None]
    scale, move = correction(truth, found.astype(np.float32))
    assert (scale[0], move[0]) == (1.0, 0.0)


def test_channels_that_never_move() -> None:
    scale, move = correction(np.ones((2, 50), np.float32), np.ones((2, 50), np.float32))
    assert scale.tolist() == [1, 1]
    assert move.tolist() == [0, 0]
