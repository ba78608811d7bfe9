"""The systematic error of an output, as a line: quantized networks answer rare large values (scores of faces) too weakly.

Mean squared error is made of what is frequent, such as background, and layers refitted for it shrink what is rare. The last
layer of each output can take that back without a byte more: its channels are scaled and shifted so that on average they
are right for every size of the answer, however rare.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

BINS = 16
"""Of equal width, over the range of a channel: all count alike, whatever number of values they hold."""

FEW = 1000
"""A bin with so many values counts half."""

LARGEST_SCALE = 1.25
"""What would be scaled by more than this, or by less than its inverse, is something else than a small systematic error."""

TOUCHES = 3
"""Bins that need values: on fewer, a line is guesswork."""


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
