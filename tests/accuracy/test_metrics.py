"""Streaming metrics against what is computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from onnxlint.accuracy import metrics
from onnxlint.accuracy.metrics import EDGES, ChannelScale, Meter, Ratio, mean_db
from onnxlint.accuracy.results import OutputAccuracy


def measured(*pairs: tuple[list[float], list[float]]) -> OutputAccuracy:
    meter = Meter()
    for r, c in pairs:
        meter.add(np.array(r, np.float32), np.array(c, np.float32))
    return meter.result("r", "c")


def test_a_case_computed_by_hand() -> None:
    one = measured(([3, 4], [3, 5]), ([0, 2], [0, 2]))
    assert one.elements == 4
    assert one.snr_db == pytest.approx(10 * math.log10(29 / 1))
    assert one.max_abs == 1
    assert one.mean_abs == 0.25
    assert one.relative == pytest.approx(1 / 9)
    assert one.cosine == pytest.approx((29 / (5 * math.sqrt(34)) + 1) / 2)
    assert sum(one.histogram) == 4
    assert one.histogram[0] == 3  # exact
    assert one.histogram[EDGES.index(0.0)] == 1  # 10^0
    assert (one.nan_share, one.inf_share) == (0, 0)


def test_what_is_equal_is_exact() -> None:
    odd = [1.0, math.nan, math.inf, -math.inf]
    one = measured((odd, odd))
    assert one.snr_db == math.inf
    assert (one.max_abs, one.mean_abs, one.relative, one.cosine) == (0, 0, 0, 1)
    assert (one.nan_share, one.inf_share) == (0.25, 0.5)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_number_that_is_lost_is_an_infinite_error(bad: float) -> None:
    one = measured(([1, 2, 3, 4], [1, bad, 3, 4]))
    assert one.snr_db == -math.inf
    assert one.max_abs == math.inf
    assert one.nan_share + one.inf_share == 0.25


def test_infinities_of_different_signs_are_no_match() -> None:
    assert measured(([math.inf], [-math.inf])).snr_db == -math.inf


def test_nothing_against_something() -> None:
    one = measured(([0, 0], [0, 1]))
    assert one.snr_db == -math.inf
    assert one.cosine == 0
    assert one.relative == math.inf


def test_pieces_and_the_whole_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    r = generator.standard_normal((5, 7, 11)).astype(np.float32)
    c = (r + 1e-2 * generator.standard_normal(r.shape)).astype(np.float32)
    whole = Meter()
    whole.add(r, c)
    monkeypatch.setattr(metrics, "_CHUNK", 13)
    pieces = Meter()
    pieces.add(r, c)
    a, b = whole.result("", ""), pieces.result("", "")
    assert b.snr_db == pytest.approx(a.snr_db, abs=1e-9)
    assert b.mean_abs == pytest.approx(a.mean_abs)
    assert (a.histogram, a.max_abs, a.elements) == (b.histogram, b.max_abs, b.elements)


@given(
    arrays(np.float32, 6, elements=st.floats(width=32, allow_nan=True)),
    arrays(np.float32, 6, elements=st.floats(width=32, allow_nan=True)),
)
def test_both_ways_to_compute_the_snr_agree(r: np.ndarray, c: np.ndarray) -> None:
    meter, ratio = Meter(), Ratio()
    meter.add(r, c)
    ratio.add(r, c)
    assert ratio.snr_db == pytest.approx(meter.snr_db, abs=1e-6)
    assert sum(meter.result("", "").histogram) == 6


def test_integers_and_booleans_are_numbers_too() -> None:
    meter = Meter()
    meter.add(np.array([1, 2], np.int64), np.array([1, 2], np.int32))
    meter.add(np.array([True, False]), np.array([True, False]))
    assert meter.snr_db == math.inf


def test_an_exact_output_does_not_hide_another() -> None:
    assert mean_db([math.inf, 20.0, 30.0]) == 25
    assert mean_db([math.inf, math.inf]) == math.inf
    assert mean_db([math.inf, -math.inf]) == -math.inf


def test_scales_of_channels_are_found_and_what_is_left_is_measured() -> None:
    generator = np.random.default_rng(0)
    reference = generator.standard_normal((1, 3, 16, 16)).astype(np.float32)
    factors = np.array([0.5, 2.0, 8.0])
    meter = ChannelScale()
    meter.add(reference, reference / factors.reshape(1, 3, 1, 1))
    np.testing.assert_allclose(meter.factors, factors, rtol=1e-6)
    assert meter.snr_db is not None
    assert meter.snr_db > 100
    noise = 0.01 * generator.standard_normal(reference.shape)
    noisy = ChannelScale()
    noisy.add(reference, (reference + noise) / factors.reshape(1, 3, 1, 1))
    assert noisy.snr_db == pytest.approx(40, abs=1)  # noise of a hundredth
    silent = ChannelScale()
    silent.add(reference, np.zeros_like(reference))
    assert list(silent.factors) == [1.0, 1.0, 1.0]
    assert silent.snr_db == 0.0
