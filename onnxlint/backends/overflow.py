"""Overflow of int8 sums, as all runtimes have it that use AVX2 without VNNI.

Such x86 processors add two products of uint8 and int8 in 16 bits, which holds 255 · 64 · 2 and not 255 · 127 · 2: models
with full 8-bit weights lose accuracy there, and nowhere else. What a runtime computes is measured; see `saturation` of each.
"""

from __future__ import annotations

import numpy as np

from onnxlint.backends import Array

CHANNELS = 64
"""Of the layer that is measured."""

LARGEST = 64
"""The largest weight with which sums of two products fit 16 bits."""

RIGHT = 0.9
"""Share of the right result from which on nothing has overflowed."""

NOTE = (
    "sums overflow in this processor's int8 arithmetic (x86 without VNNI, measured) with full 8-bit weights: convert with "
    "--weight-bits 7 for such processors; on others this file is more accurate than here"
)


def is_large(weights: Array) -> bool:
    """Whether int8 weights are so large that sums of two products may not fit 16 bits."""
    return int(np.abs(weights.astype(np.int16)).max(initial=0)) > LARGEST
