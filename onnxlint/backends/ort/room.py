"""How much wider ranges are than what calibration images show, as others will show more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from onnxlint.backends import Array
from onnxlint.backends.channels import beyond, room
from onnxlint.backends.ort.calibrate import LEVELS, Ends, whole


def rooms(every: Sequence[Ends], ends: Ends, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, float]:
    """Value → the factor to widen its range by; see `onnxlint.backends.channels.room`.

    Args:
        every: For each set of inputs, smallest and largest value of each channel of the values.
        ends: Those of the equalized values, over all sets of inputs.
        shapes: Of the values.
    """
    found = {}
    for key, (low, high) in whole(ends).items():
        low, high = min(low, 0.0), max(high, 0.0)
        single = [one[key] for one in every if one[key][0].shape == ends[key][0].shape]
        if not ends[key][0].size or not single:
            continue
        sides = [
            (_reach(-ends[key][0], [-one[0] for one in single]), -low),
            (_reach(ends[key][1], [one[1] for one in single]), high),
        ]
        step = (high - low) / (LEVELS - 1)
        found[key] = room(sides, step, math.prod(shapes[key][1:]), len(single))
    return found


def _reach(end: Array, single: Sequence[Array]) -> Array:
    """How far each channel may reach in one direction, from its end in the equalized model and those of single inputs."""
    tops = np.sort(np.maximum(single, 0), axis=0)[-2:]
    scale = np.maximum(end, 0) / np.maximum(tops[-1], np.finfo(np.float32).tiny)
    return np.asarray(beyond(tops[-1], tops[0]) * scale)
