"""Whether sums overflow in OpenVINO's int8 arithmetic on this processor, measured."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from onnxlint.backends.openvino.graph import element
from onnxlint.backends.openvino.runtime import compiled, runtime
from onnxlint.backends.overflow import CHANNELS, NOTE, RIGHT, is_large


@lru_cache(maxsize=1)
def measured_share() -> float:
    """What OpenVINO computes here for the largest int8 sum, as a share of the right result: 1, or about a half."""
    ov = runtime()
    ops = ov.opset13
    x = ops.parameter([1, CHANNELS, 4, 4], np.float32)
    low, high = (ops.constant(np.float32(value)) for value in (0, 255))
    levels = ops.fake_quantize(x, low, high, low, high, 256)
    whole = ops.convert(ops.constant(np.full((CHANNELS, CHANNELS, 1, 1), 127, np.int8)), "f32")
    weights = ops.multiply(whole, ops.constant(np.ones((CHANNELS, 1, 1, 1), np.float32)))
    made = ops.convolution(levels, weights, [1, 1], [0, 0], [0, 0], [1, 1])
    model = compiled(ov.Model([made], [x], "sum"), "the measurement", 1)
    found = model([np.full((1, CHANNELS, 4, 4), 255, np.float32)])[0]
    return float(found.min()) / (255 * 127 * CHANNELS)


def notes_for(model: Any) -> tuple[str, ...]:
    """A note for a model whose sums overflow on this processor.

    Args:
        model: An `openvino.Model`.
    """
    return (NOTE,) if has_large(model) and measured_share() < RIGHT else ()


def has_large(model: Any) -> bool:
    """Whether a model has int8 weights with which sums of two products may not fit 16 bits."""
    return any(
        is_large(op.data)
        for op in model.get_ordered_ops()
        if op.get_type_name() == "Constant" and element(op.output(0)) == "i8" and len(op.get_output_shape(0)) >= 2
    )
