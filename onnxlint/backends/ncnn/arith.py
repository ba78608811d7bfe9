"""What one convolution or inner product computes, as matrix products in NumPy: to judge scales and roundings.

Everywhere: g groups, m outputs in a group, k weights of an output, p output positions.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from onnxlint.backends.ncnn.format import Layer

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


def columns(layer: Layer, x: Floats, positions: Positions | None = None) -> Floats:
    """The input (C, H, W) as (g, k, p): one column for each output position, or for some (flat indices).

    Inner products have one position.
    """
    if layer.type == "InnerProduct":
        return np.ascontiguousarray(x, np.float32).reshape(1, -1, 1)
    g = groups(layer)
    windows = _windows(layer, x)
    if positions is not None:
        y, x_ = np.divmod(positions, windows.shape[2])
        chosen = windows[:, y, x_].transpose(0, 2, 3, 1)
        return np.ascontiguousarray(chosen).reshape(g, -1, len(positions))
    return np.ascontiguousarray(windows.transpose(0, 3, 4, 1, 2)).reshape(g, -1, windows.shape[1] * windows.shape[2])


def position_count(layer: Layer, x: Floats) -> int:
    """How many output positions the layer has for the input (C, H, W)."""
    return 1 if layer.type == "InnerProduct" else int(np.prod(_windows(layer, x).shape[1:3]))


def _windows(layer: Layer, x: Floats) -> Floats:
    """A view of the padded input, (C, output height, output width, kernel height, kernel width)."""
    if x.ndim < 3:  # a vector is an image of one pixel
        x = x.reshape(-1, 1, 1)
    kw, dw, sw = layer.integer(1), layer.integer(2, 1), layer.integer(3, 1)
    kh, dh, sh = layer.integer(11, kw), layer.integer(12, dw), layer.integer(13, sw)
    x = _pad(layer, x, (kh - 1) * dh + 1, (kw - 1) * dw + 1, sh, sw)
    windows = np.lib.stride_tricks.sliding_window_view(x, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), axis=(1, 2))
    return windows[:, ::sh, ::sw, ::dh, ::dw]


def _pad(layer: Layer, x: Floats, extent_h: int, extent_w: int, sh: int, sw: int) -> Floats:
    left = layer.integer(4)
    right, top = layer.integer(15, left), layer.integer(14, left)
    bottom = layer.integer(16, top)
    if left in (-233, -234):  # SAME, the odd pixel after or before
        need_h = max(0, (math.ceil(x.shape[1] / sh) - 1) * sh + extent_h - x.shape[1])
        need_w = max(0, (math.ceil(x.shape[2] / sw) - 1) * sw + extent_w - x.shape[2])
        small_h, small_w = need_h // 2, need_w // 2
        top, bottom = (small_h, need_h - small_h) if left == -233 else (need_h - small_h, small_h)
        left, right = (small_w, need_w - small_w) if left == -233 else (need_w - small_w, small_w)
    if not any((left, right, top, bottom)):
        return x
    fill = layer.numbers(18)
    return np.pad(x, ((0, 0), (top, bottom), (left, right)), constant_values=fill[0] if fill else 0)


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


def quantize_input(x: Floats, scale: float) -> Floats:
    """The int8 values of `x` as float32: round half away from zero(x · scale), clamped to ±127."""
    q: Floats = x * np.float32(scale)
    np.clip(q, -127, 127, out=q)
    q += np.copysign(np.float32(0.5), q)
    np.trunc(q, out=q)
    return q
