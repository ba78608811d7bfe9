"""How close models are, and what is chance."""

import numpy as np
import pytest

from onnxlint.backends import Port
from onnxlint.backends.closeness import is_closer, ratios


def test_a_difference_within_its_standard_error_is_chance() -> None:
    assert is_closer([21.0, 31.0, 26.5], [20.0, 30.0, 25.0])
    assert not is_closer([20.0, 30.0, 25.0], [21.0, 31.0, 26.5])
    assert not is_closer([60.0, 19.0, 24.0], [20.0, 20.0, 25.0])  # one input decides
    assert is_closer([21.0], [20.0])
    assert not is_closer([20.0], [20.0])


def test_sure_probabilities_are_compared_by_their_odds_as_well() -> None:
    def sigmoid(x: np.ndarray) -> np.ndarray:
        return np.asarray(1 / (1 + np.exp(-x)), np.float32)

    exact = np.linspace(-9, 9, 50)
    pairs = [([sigmoid(exact)], [sigmoid(exact * 1.1)])]
    found = ratios([Port("y")], pairs, "m", {"y"})
    assert found["odds of y"] == pytest.approx(20, abs=0.1)  # a tenth
    assert found["y"] > 30
    assert ratios([Port("y")], pairs, "m") == {"y": found["y"]}
