"""How close models are, and what is chance."""

from collections.abc import Collection

import numpy as np
import pytest

from onnxlint.backends import Port, closeness
from onnxlint.backends.closeness import ENOUGH, EXACT_DB, Powers


def powers(*noise: float) -> Powers:
    """Of one output with a power of 1 on each input."""
    return Powers(np.ones((len(noise), 1)), np.array(noise)[:, None])


def test_a_difference_within_its_standard_error_is_chance() -> None:
    less, more = powers(0.08, 0.09, 0.07), powers(0.10, 0.11, 0.10)
    assert less.is_closer(more)
    assert not more.is_closer(less)
    assert not powers(0.01, 0.11, 0.10).is_closer(powers(0.1, 0.1, 0.1))  # one input decides
    assert powers(0.1).is_closer(powers(0.2))
    assert not powers(0.2).is_closer(powers(0.2))
    assert powers(0.1, 0.1).is_closer(powers(0.2, 0.2), 3.0)
    assert not powers(0.1, 0.1).is_closer(powers(0.2, 0.2), 3.1)
    assert not powers(np.inf, 0.1).is_closer(powers(0.1, 0.2))


def test_an_error_that_is_small_by_chance_counts_little() -> None:
    """Of a single number on each input, the error comes near 0 now and then; a mean of decibels would take that for good."""
    near, even = powers(1e-6, 0.12, 0.13, 0.12), powers(0.08, 0.09, 0.09, 0.08)
    assert np.mean(10 * np.log10(near.noise)) < np.mean(10 * np.log10(even.noise)) - 5
    assert not near.is_closer(even)


@pytest.mark.parametrize(
    ("signal", "noise", "expected"),
    [
        (2.0, 0.02, 20.0),
        (2.0, 0.0, EXACT_DB),
        (0.0, 0.0, EXACT_DB),
        (0.0, 1.0, -EXACT_DB),
        (1.0, np.nan, -EXACT_DB),
        (1.0, 1e-310, EXACT_DB),
    ],
)
def test_decibels(signal: float, noise: float, expected: float) -> None:
    one = Powers(np.array([[signal / 2]] * 2), np.array([[noise / 2]] * 2))
    assert one.decibels == pytest.approx(expected)
    assert one.score == pytest.approx(min(expected, ENOUGH))


def test_sure_probabilities_are_compared_by_their_odds_as_well() -> None:
    def sigmoid(x: np.ndarray) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-x)), np.float32)

    def decibels(
        pairs: list[tuple[list[np.ndarray], list[np.ndarray]]], sure: Collection[str] = ()
    ) -> dict[str, float]:
        names, of_all = closeness.powers([Port("y")], pairs, "m", sure)
        return dict(zip(names, of_all.decibels.tolist(), strict=True))

    exact = np.linspace(-9, 9, 50)
    pairs = [([sigmoid(exact)], [sigmoid(exact * 1.1)])]
    found = decibels(pairs, {"y"})
    assert found["odds of y"] == pytest.approx(20, abs=0.1)  # a tenth
    assert found["y"] > 30
    assert decibels(pairs) == {"y": found["y"]}


def test_what_has_no_floating_point_output_differs_by_nothing() -> None:
    names, found = closeness.powers([Port("y")], [([np.zeros(2, np.int64)], [np.zeros(2, np.int64)])] * 2, "m")
    assert names == []
    assert found.decibels.shape == (0,)
