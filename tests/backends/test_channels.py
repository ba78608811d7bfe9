"""Cross-layer equalization: the factors of channels."""

from __future__ import annotations

import numpy as np

from onnxlint.backends.channels import FIXED, factors, log_factor, rare, unscaled


def test_channels_are_brought_to_the_range_of_the_largest() -> None:
    assert np.allclose(np.exp(log_factor(np.array([4.0, 1.0, 2.0], np.float32))), [1.0, 0.25, 0.5])


def test_channels_that_are_rarely_large_or_never_keep_their_range() -> None:
    peak, usual = np.array([4.0, 1.0, 2.0, 0.0], np.float32), np.array([2.0, 0.09, 0.3, 0.0], np.float32)
    found = rare(peak, usual)
    assert found.tolist() == [False, True, False, True]
    assert np.allclose(np.exp(log_factor(unscaled(peak, found))), [1.0, 1.0, 0.5, 1.0])


def test_classes_have_the_geometric_mean_of_what_they_need() -> None:
    classes = {"a": np.array([0, 1, FIXED]), "b": np.array([1, 0, 2])}
    wishes = [("a", np.log([0.5, 0.2, 0.1])), ("b", np.log([0.8, 0.125, 0.3]))]
    found = factors(classes, wishes)
    assert np.allclose(found["a"], [0.25, 0.4, 1.0])
    assert np.allclose(found["b"], [0.4, 0.25, 0.3])
