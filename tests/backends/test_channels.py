"""Cross-layer equalization: the factors of channels."""

from __future__ import annotations

import numpy as np
import pytest

from onnxlint.backends.channels import FIXED, affordable, beyond, factors, log_factor, rare, room, unscaled


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


def test_channels_may_reach_as_far_beyond_as_the_image_that_shows_most() -> None:
    largest = np.array([2.0, 2.0, 2.0, 0.0], np.float32)
    second = np.array([2.0, 1.6, 0.1, 0.0], np.float32)
    assert beyond(largest, second).tolist() == pytest.approx([2.0, 2.5, 4.0, 0.0])


def test_ranges_have_room_where_clipping_costs_more_than_steps() -> None:
    """As many channels exceed in a small map and in a large one, and as far."""
    reach = np.full(64, 1.5)

    def of(elements: int, images: int, reach: np.ndarray = reach) -> float:
        return room([(reach, 1.0)], 1 / 127, elements, images)

    small, large = of(64 * 10 * 10, 10), of(64 * 320 * 320, 10)
    assert small in (1.4, 1.5)
    assert large == 1.0
    assert of(64 * 40 * 40, 10) > of(64 * 40 * 40, 1000)
    assert of(64 * 10 * 10, 10, np.ones(64)) == 1.0
    assert of(64 * 10 * 10, 2) == 1.0  # two images do not tell
    assert room([(reach, 1.0), (reach, 0.5)], 1 / 127, 6400, 10) > small


@pytest.mark.parametrize(("costs", "taken"), [((0.0, 0.4), 1.96), ((0.6, 0.3), 1.4), ((5.0, 2.0), 1.0)])
def test_room_is_taken_as_far_as_it_costs_little(costs: tuple[float, float], taken: float) -> None:
    scores = {1.0: 30.0, 1.96: 30 - costs[0], 1.4: 30 - costs[1]}
    found = affordable({"a": 1.96, "b": 1.0}, lambda factors: scores[round(factors["a"], 6)])
    assert found == pytest.approx({"a": taken, "b": 1.0})
    del scores[1.0]  # is not asked for where it is known
    known = affordable({"a": 1.96, "b": 1.0}, lambda factors: scores[round(factors["a"], 6)], 30.0)
    assert known == found


def test_without_need_for_room_nothing_is_tried() -> None:
    def never(_factors: object) -> float:
        raise AssertionError

    assert affordable({"a": 1.0}, never) == {"a": 1.0}
