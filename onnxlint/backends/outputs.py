"""The systematic error of an output, as a line: quantized networks answer rare large values (scores of faces) too weakly.

Mean squared error is made of what is frequent, such as background, and layers refitted for it shrink what is rare. The last
layer of each output can take that back without a byte more: its channels are scaled and shifted so that on average they
are right for every size of the answer, however rare.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
T = TypeVar("T")

BINS = 16
"""Of equal width, over the range of a channel: all count alike, whatever number of values they hold."""

FEW = 1000
"""A bin with so many values counts half."""

LARGEST_SCALE = 1.25
"""What would be scaled by more than this, or by less than its inverse, is something else than a small systematic error."""

TOUCHES = 3
"""Bins that need values: on fewer, a line is guesswork."""


HEADROOM = 1.3
"""Ranges of values near the outputs, beyond those that the calibration images show. Rare answers, such as scores of faces,
are made of rare large values; other photos have larger ones, and clipping shrinks the answer. Steps that are as much larger
cost next to nothing there (RetinaFace on other photos: the same SNR, and 1.5 % of the faces less were lost)."""

FEWEST = 22
"""Calibration images, of which some can judge what is fitted to the others: with fewer, each is worth more for the fit."""

JUDGES = (8, 48)
"""Fewest and most images that choices are judged on."""

PIXELS = 8 * 320 * 320
"""Of all images that are judged on, or fitted to; of small images there are more, as one shows little."""

LAST = 2
"""Layers with weights from a value to an output, at most, for `HEADROOM`."""


def near_outputs(
    layers: Sequence[tuple[Sequence[str], Sequence[str], bool]], outputs: Iterable[str], part: int = 0
) -> set[str]:
    """Values from which the longest path to an output goes through the last layers with weights alone.

    Args:
        layers: In order: what each reads, what it makes, whether it has weights.
        outputs: Of the model.
        part: More than `LAST` layers where they are one in so many of the longest path; 0: no more.
    """
    far: dict[str, int] = dict.fromkeys(outputs, 0)
    for reads, makes, weighted in reversed(layers):
        longest = max((far[name] for name in makes if name in far), default=None)
        if longest is not None:
            for name in reads:
                far[name] = max(far.get(name, 0), longest + weighted)
    depth = max(far.values(), default=0)
    last = max(LAST, round(depth / part) if part else 0)
    return {name for name, count in far.items() if count <= last}


def count_for(between: tuple[int, int], size: Sequence[int | None], pixels: int = PIXELS) -> int:
    """How many images to take: the fewest, or more of those that are small.

    Args:
        between: Fewest and most.
        size: Height and width; None: not known, the fewest are taken.
        pixels: Of all images together, where they are between fewest and most.
    """
    each = math.prod(one or pixels for one in size)
    return min(max(between[0], pixels // max(1, each)), between[1])


def evenly(some: Sequence[T], count: int) -> list[T]:
    """At most `count` of some things, evenly taken."""
    return [some[i * len(some) // count] for i in range(count)] if len(some) > count else list(some)


CORRECTION_COST = 0.2
"""dB that the correction may cost: SNR counts what is frequent, the correction what is rare as well."""


def mirrored(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An image (…, C, H, W) turned left to right, anything else as it is: an input that is as likely, and that the layers
    were not refitted for. On inputs that they were, the error is smaller than elsewhere."""
    return np.ascontiguousarray(x[..., ::-1]) if x.ndim >= 3 else x


def correction(reference: Floats, found: Floats) -> tuple[Doubles, Doubles]:
    """For each channel, scale and shift that make a quantized output right on average, for every size of the answer.

    Args:
        reference: Outputs of the float model, (channels, values).
        found: Outputs of the quantized model for the same inputs.

    Returns:
        Scales and shifts (channels,): corrected = found · scale + shift; 1 and 0 without data.
    """
    scales, shifts = np.ones(len(reference)), np.zeros(len(reference))
    for i, (a, b) in enumerate(zip(reference.astype(np.float64), found.astype(np.float64), strict=True)):
        low, high = float(a.min()), float(a.max())
        if not high > low or not np.isfinite(b).all():
            continue
        bins = np.minimum(((a - low) * (BINS / (high - low))).astype(np.intp), BINS - 1)
        counts = np.bincount(bins, minlength=BINS)
        if (counts > 0).sum() < TOUCHES:
            continue
        weight = (1.0 / (counts + FEW))[bins]
        weight /= weight.sum()
        mean_a, mean_b = weight @ a, weight @ b
        # How the found values follow the true ones, and that turned round: not the other way, which noise would shrink.
        slope = (weight @ ((a - mean_a) * (b - mean_b))) / (weight @ (a - mean_a) ** 2)
        if 1 / LARGEST_SCALE < slope < LARGEST_SCALE:
            scales[i] = 1 / slope
            shifts[i] = mean_a - mean_b / slope
    return scales, shifts
