"""What one convolution or inner product computes, as matrix products in NumPy: to judge scales and roundings.

Everywhere: g groups, m outputs in a group, k weights of an output, p output positions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxlint.backends.ncnn.format import Layer
from onnxlint.backends.ncnn.packed import Packed

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.intp]


def groups(layer: Layer) -> int:
    """The groups of a layer: 1 unless it is a ConvolutionDepthWise."""
    return layer.integer(7, 1) if layer.type == "ConvolutionDepthWise" else 1


def weight_matrix(layer: Layer) -> Floats:
    """The weights as (g, m, k)."""
    weight = layer.blob("weight")
    assert weight is not None
    g = groups(layer)
    return weight.values().reshape(g, layer.integer(0) // g, -1)


def bias(layer: Layer) -> Floats:
    """The bias, shape (g·m,); zeros where the layer has none."""
    blob = layer.blob("bias")
    return blob.values() if blob is not None else np.zeros(layer.integer(0), np.float32)


def columns(layer: Layer, x: Floats | Packed, positions: Positions | None = None) -> Floats:
    """The input (C, H, W) as (g, k, p): one column for each output position, or for some (flat indices).

    Inner products have one position.
    """
    blob = x if isinstance(x, Packed) else Packed(x)
    return Columns.of(layer, x.shape, positions).take(blob, 0, groups(layer))


@dataclass(frozen=True)
class Columns:
    """Where a layer reads its input (C, H, W) for some output positions.

    Attributes:
        groups: Of the layer.
        places: In a channel, for each weight of an output that reads it and each position.
        padding: Which of them are padding: indices into the flat places, if any are.
        fill: What is there.
    """

    groups: int
    places: Positions | None
    padding: Positions | None = None
    fill: float = 0

    @classmethod
    def of(cls, layer: Layer, shape: Sequence[int], positions: Positions | None = None) -> Columns:
        """Of an input of this shape, for all positions, or for some (flat indices)."""
        if layer.type == "InnerProduct":
            return cls(1, None)
        window = _Window.of(layer, shape)
        some = np.arange(window.positions) if positions is None else positions
        y, x = np.divmod(some, window.sizes[1])
        rows, outside_rows = window.places(0, y)
        along, outside_along = window.places(1, x)
        places = (rows[:, None, :] * window.shape[1] + along[None, :, :]).reshape(-1, len(some))
        padding = np.flatnonzero(outside_rows[:, None, :] | outside_along[None, :, :])
        fill = layer.numbers(18)
        return cls(groups(layer), places, padding if len(padding) else None, fill[0] if fill else 0)

    def take(self, x: Packed, first: int, last: int) -> Floats:
        """What the groups from one to another read: (groups, k, positions)."""
        if self.places is None:  # all of it, at once
            return x.array().reshape(1, -1, 1)
        blob = x if len(x.shape) == 3 else Packed(x.array().reshape(-1))
        each = blob.shape[0] // self.groups
        found = blob.take(first * each, last * each, self.places.reshape(-1))
        if self.padding is not None:
            found[:, self.padding] = self.fill
        return np.asarray(found.reshape(last - first, -1, self.places.shape[1]), np.float32)


def position_count(layer: Layer, shape: Sequence[int]) -> int:
    """How many output positions the layer has for an input of this shape (C, H, W)."""
    return 1 if layer.type == "InnerProduct" else _Window.of(layer, shape).positions


@dataclass(frozen=True)
class _Window:
    """What an output position of a convolution reads; pairs are those of height and width.

    Attributes:
        channels: Of the input.
        shape: Of the input.
        kernel, dilation, stride: Of the layer.
        before: Padding above and to the left.
        sizes: Output positions.
    """

    channels: int
    shape: tuple[int, int]
    kernel: tuple[int, int]
    dilation: tuple[int, int]
    stride: tuple[int, int]
    before: tuple[int, int]
    sizes: tuple[int, int]

    @classmethod
    def of(cls, layer: Layer, shape: Sequence[int]) -> _Window:
        """Of a layer that reads an input (C, H, W), or a vector, which is an image of one pixel."""
        c, *inner = shape if len(shape) == 3 else (math.prod(shape), 1, 1)
        kw, dw, sw = layer.integer(1), layer.integer(2, 1), layer.integer(3, 1)
        kernel, dilation = (layer.integer(11, kw), kw), (layer.integer(12, dw), dw)
        stride = layer.integer(13, sw), sw
        left = layer.integer(4)
        top = layer.integer(14, left)
        pads = [(top, layer.integer(16, top)), (left, layer.integer(15, left))]
        sizes, before = [], []
        for size, k, d, s, (first, last) in zip(inner, kernel, dilation, stride, pads, strict=True):
            reach = (k - 1) * d + 1
            if left in (-233, -234):  # SAME, the odd pixel after or before
                need = max(0, (math.ceil(size / s) - 1) * s + reach - size)
                first = need // 2 if left == -233 else need - need // 2
                last = need - first
            before.append(first)
            sizes.append((size + first + last - reach) // s + 1)
        return cls(c, (inner[0], inner[1]), kernel, dilation, stride, (before[0], before[1]), (sizes[0], sizes[1]))

    @property
    def positions(self) -> int:
        """Of the output."""
        return math.prod(self.sizes)

    def places(self, axis: int, at: Positions) -> tuple[Positions, npt.NDArray[np.bool_]]:
        """What output positions along an axis read (kernel, positions), and which of that is padding."""
        first = at * self.stride[axis] - self.before[axis]
        found = first[None, :] + np.arange(self.kernel[axis])[:, None] * self.dilation[axis]
        outside = (found < 0) | (found >= self.shape[axis])
        return np.where(outside, 0, found), outside


def activate(layer: Layer, y: Floats) -> Floats:
    """The activation that is fused into the layer, in place where possible."""
    kind = layer.integer(9)
    params = layer.numbers(10)
    if kind == 1:
        return np.maximum(y, 0, out=y)
    if kind == 2:
        return np.asarray(np.where(y > 0, y, y * np.float32(params[0])), np.float32)
    if kind == 3:
        return np.clip(y, params[0], params[1], out=y)
    if kind == 4:
        return np.asarray(1 / (1 + np.exp(-y)), np.float32)
    if kind == 5:
        return np.asarray(y * np.tanh(np.logaddexp(y, 0)), np.float32)
    if kind == 6:
        return np.asarray(y * np.clip(y * params[0] + params[1], 0, 1), np.float32)
    return y


def quantize_input(x: Floats, scale: float, out: Floats | None = None) -> Floats:
    """The int8 values of `x` as float32, in `out` if it is given: round half away from zero(x · scale), clamped to ±127."""
    q: Floats = np.multiply(x, np.float32(scale), out=out)
    np.clip(q, -127, 127, out=q)
    q += np.copysign(np.float32(0.5), q)
    np.trunc(q, out=q)
    return q
